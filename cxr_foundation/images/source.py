"""What every reader of pictures shares: a file's bytes, caps, silence, and what counts as grey."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels

__all__ = [
    "LIBRARY_ERRORS",
    "MAX_BYTES",
    "ImageWarning",
    "Pixels",
    "check_size",
    "quiet",
    "read_bytes",
    "to_grey",
]

MAX_BYTES = 256 * 2**20
"""Largest file that is read. One uncompressed radiograph of 64 megapixels has 128 MiB."""

MAX_SAMPLES = 64 * 10**6
"""Most samples (rows x columns x channels) that are decoded; the largest detectors have 20e6."""

MAX_SIDE = 16384
"""Longest side in pixels."""

# Red, green, blue: ITU-R BT.601-7, 2.5.1, as in JPEG's and DICOM's luma (PS3.3 C.7.6.3.1.2).
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# A scan of film has a slight tint and lossy chroma is noisy; a marker in colour covers little.
_GREY_SPREAD = 1 / 16
_GREY_SHARE = 0.99

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
)
"""What pydicom's plugins and Pillow raise on damaged bytes, found by mutating files."""


class ImageWarning(UserWarning):
    """Something about a picture that was read which its user should look at."""


class Pixels(NamedTuple):
    """One picture as it was read.

    Attributes:
        values: float32 (H, W) in [0, 1], bone bright; padding is 0.
        padding: bool (H, W), true where the pixel is padding; None if none is marked.
        lossy: Whether a DICOM file's pixels went through lossy compression; None if unknown.
        notes: What the header says against the picture, without a value of it being quoted.
    """

    values: npt.NDArray[np.float32]
    padding: npt.NDArray[np.bool_] | None = None
    lossy: bool | None = None
    notes: tuple[str, ...] = ()


class _Quiet:
    """Context in which imaging libraries neither warn nor log: they quote what they read.

    Python's own `catch_warnings` restores a wrong state when threads leave it in another order
    than they entered it; here the first one in installs and the last one out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._stack.enter_context(warnings.catch_warnings(record=True, action="always"))
                for name in ("pydicom", "PIL"):
                    logger = logging.getLogger(name)
                    self._stack.callback(setattr, logger, "propagate", logger.propagate)
                    logger.propagate = False
            self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._stack.close()


quiet = _Quiet()


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole of a regular file.

    Raises:
        UnreadableImage: No such file, no permission, a folder, a pipe or device, an empty file,
            or one of more than `MAX_BYTES`.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for a writer for ever.
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise UnreadableImage(path, f"is {what}", "Name one DICOM, PNG, JPEG or TIFF file.")
        if status.st_size == 0:
            raise UnreadableImage(path, "is empty", "Fetch or export the file again.")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(
                path,
                f"has {status.st_size / 2**20:,.0f} MiB; a radiograph has at most "
                f"{MAX_BYTES / 2**20:.0f} MiB",
            )
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file", "Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not a path"
        raise UnreadableImage(path, f"cannot be opened ({reason})", "Check the path.") from None


def check_size(path: str | os.PathLike[str], rows: int, columns: int, samples: int = 1) -> None:
    """Refuse a claimed size before memory is taken for it.

    Raises:
        UnreadableImage: A side of zero, or more pixels than any radiograph has.
    """
    if rows < 1 or columns < 1:
        raise UnreadableImage(path, f"claims {rows} x {columns} pixels")
    if max(rows, columns) > MAX_SIDE or rows * columns * samples > MAX_SAMPLES:
        raise UnreadableImage(
            path,
            f"claims {rows} x {columns} pixels; at most {MAX_SIDE} a side and "
            f"{MAX_SAMPLES / 1e6:.0f} million samples are read",
        )


def to_grey(path: str | os.PathLike[str], colour: npt.NDArray[Any], top: float) -> npt.NDArray[Any]:
    """The grey picture that three channels hold.

    Args:
        path: For the message.
        colour: (H, W, 3), any real dtype, from 0 to `top`.
        top: White.

    Returns:
        (H, W) on the same scale: the first channel where all three agree (no rounding), else the
        luma of ITU-R BT.601 as float32.

    Raises:
        UnsupportedPixels: A colour picture: on more than 1 % of the pixels the channels are
            further apart than a sixteenth of the range.
    """
    red, green, blue = colour[..., 0], colour[..., 1], colour[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red
    spread = colour.max(axis=-1) - colour.min(axis=-1)
    if np.mean(spread <= top * _GREY_SPREAD) < _GREY_SHARE:
        raise UnsupportedPixels(
            path, "is a colour picture, not a radiograph", "Save the radiograph as grey pixels."
        )
    return np.asarray(colour.astype(np.float32) @ _LUMA, dtype=np.float32)
