"""Radiographs: file to pixels (`read_image`), pixels to model input (`processor.Processor`)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import UnreadableImage
from cxr_foundation.images.dicom import read_dicom
from cxr_foundation.images.header import is_dicom
from cxr_foundation.images.picture import read_picture
from cxr_foundation.images.source import Pixels, read_bytes

__all__ = ["read_image", "read_pixels"]

_DICOM_SUFFIXES = {".dcm", ".dicom"}


def read_image(path: str | os.PathLike[str], *, voi: bool = True) -> npt.NDArray[np.float32]:
    """Read one radiograph from a DICOM, PNG, JPEG or TIFF file, which is told by its content.

    DICOM: modality LUT or rescale, then the VOI LUT or the first window or neither (the range of
    BitsStored), then inverted once if the least value is white. Pictures: stored values over
    their full range.

    Args:
        path: The file.
        voi: Without it, DICOM values stop before the VOI LUT: modality values over the range of
            BitsStored. Pictures have none and are the same either way.

    Returns:
        float32 (H, W) in [0, 1], bone bright, pixels square, padding black.

    Raises:
        UnreadableImage: No such file, not a picture, damaged, cut off, or implausibly large.
        UnsupportedPixels: Pixels whose meaning would have to be guessed: several frames, colour,
            FOR PROCESSING, contradicting polarity, a transfer syntax that is not decodable here.
    """
    return read_pixels(path, voi=voi).values


def read_pixels(path: str | os.PathLike[str], *, voi: bool = True) -> Pixels:
    """`read_image` together with the mask of padding, for statistics."""
    data = read_bytes(path)
    if is_dicom(data):
        return read_dicom(path, data, voi=voi)
    if Path(path).suffix.lower() in _DICOM_SUFFIXES:
        raise UnreadableImage(path, "is called a DICOM file, but is none")
    return read_picture(path, data)
