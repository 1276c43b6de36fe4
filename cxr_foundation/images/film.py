"""Scanned films of the JSRT database: pixels without a header."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import UnreadableImage

__all__ = ["is_film", "read_film"]

# http://db.jsrt.or.jp/eng.php: 2048 x 2048 pixels of 0.175 mm, 4,096 grey levels, files *.IMG.
# Two bytes a pixel, the upper one first, and the film's blackness, so that air is the largest:
# https://github.com/imlab-uiip/lung-segmentation-2d/blob/8b720735/preprocess_JSRT.py
_SIDE = 2048
_TOP = 4095
_SUFFIX = ".img"


def is_film(path: str | os.PathLike[str], data: bytes) -> bool:
    """Whether a file has the name and the size of a JSRT film; it has no magic bytes."""
    return Path(path).suffix.lower() == _SUFFIX and len(data) == 2 * _SIDE * _SIDE


def read_film(path: str | os.PathLike[str], data: bytes) -> npt.NDArray[np.float32]:
    """The pixels of one JSRT film.

    Args:
        path: For messages.
        data: The file's bytes: 2048 x 2048 unsigned integers of 16 bits, big-endian, 0 to 4095.

    Returns:
        float32 (2048, 2048) in [0, 1], inverted, so that bone is bright.

    Raises:
        UnreadableImage: A value beyond 12 bits: another kind of file, or another byte order.
    """
    values = np.frombuffer(data, dtype=">u2").reshape(_SIDE, _SIDE)
    if int(values.max()) > _TOP:
        raise UnreadableImage(
            path,
            "has values beyond 12 bits, so it is not a big-endian film of the JSRT database",
            "Fetch the file again; other raw files: convert them to 16-bit PNG.",
        )
    grey: npt.NDArray[np.float32] = np.true_divide(
        np.subtract(_TOP, values, dtype=np.int32), np.float32(_TOP), dtype=np.float32
    )
    return grey
