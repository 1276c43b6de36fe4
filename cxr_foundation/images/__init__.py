"""Radiographs: file to pixels (`read_image`), pixels to model input (`processor.Processor`)."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import UnreadableImage
from cxr_foundation.images.dicom import Trust, read_dicom
from cxr_foundation.images.film import is_film, read_film
from cxr_foundation.images.header import is_dicom
from cxr_foundation.images.metaimage import is_metaimage, read_metaimage
from cxr_foundation.images.picture import read_picture
from cxr_foundation.images.source import ImageWarning, Pixels, read_bytes

__all__ = ["ImageWarning", "Trust", "read_image", "read_pixels"]

_DICOM_SUFFIXES = {".dcm", ".dicom"}


def read_image(
    path: str | os.PathLike[str], *, voi: bool = True, trust: Trust | None = None
) -> npt.NDArray[np.float32]:
    """Read one radiograph from a DICOM, PNG, JPEG or TIFF file, which is told by its content.

    DICOM: modality LUT or rescale, then the VOI LUT or the first window or neither (the range of
    BitsStored), then inverted once if the least value is white. Body part, view and modality
    play no part; display shutter, collimator, overlay planes and presentation states are not
    interpreted. Pictures: stored values over their full range.

    Args:
        path: The file.
        voi: Without it, DICOM values stop before the VOI LUT: modality values over the range of
            BitsStored. Pictures have none and are the same either way.
        trust: What to believe of a DICOM file whose (0028,0004) PhotometricInterpretation and
            (2050,0020) PresentationLUTShape contradict each other: "photometric" or "shape".
            Without it such a file is refused.

    Returns:
        float32 (H, W) in [0, 1], bone bright, pixels square, padding black.

    Raises:
        UnreadableImage: No such file, not a picture, damaged, cut off, or implausibly large.
        UnsupportedPixels: Pixels whose meaning would have to be guessed: several frames, colour,
            FOR PROCESSING, a localiser, contradicting polarity, a transfer syntax that is not
            decodable here.

    Warns:
        ImageWarning: (0028,1041) PixelIntensityRelationshipSign contradicts the polarity.
    """
    pixels = read_pixels(path, voi=voi, trust=trust)
    for note in pixels.notes:
        warnings.warn(f"{os.fspath(path)}: {note}", ImageWarning, stacklevel=2)
    return pixels.values


def read_pixels(
    path: str | os.PathLike[str], *, voi: bool = True, trust: Trust | None = None
) -> Pixels:
    """`read_image` with the mask of padding, for statistics; notes are returned, not warned of."""
    data = read_bytes(path)
    if is_film(path, data):
        return Pixels(read_film(path, data))
    if is_metaimage(data):
        return Pixels(read_metaimage(path, data))
    if is_dicom(data):
        return read_dicom(path, data, voi=voi, trust=trust)
    if Path(path).suffix.lower() in _DICOM_SUFFIXES:
        raise UnreadableImage(path, "is called a DICOM file, but is none")
    return read_picture(path, data)
