"""Colour pictures: natural ones, for encoders that are pretrained on them. Radiographs are grey."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, UnsupportedPixels
from cxr_foundation.images.film import is_film
from cxr_foundation.images.header import is_dicom
from cxr_foundation.images.metaimage import is_metaimage
from cxr_foundation.images.picture import read_colour
from cxr_foundation.images.processor import fitted
from cxr_foundation.images.source import read_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["prepare_colour"]

# Rules that take stored values as they are; the others are made for one channel.
_AS_STORED = ("voi", "full_range")


def prepare_colour(path: str | os.PathLike[str], contract: InputContract) -> torch.Tensor:
    """A colour picture by a contract's size, aspect and kernel; without its mean and std.

    Args:
        path: An 8-bit PNG, JPEG or TIFF file; a grey one is repeated three times.
        contract: Its intensity has to take pictures as they are stored.

    Returns:
        float32 (3, H, W) in [0, 1].

    Raises:
        ContractError: The intensity is a rule for radiographs.
        ImageError: A picture that cannot be used, or a radiograph's file.
    """
    import torch

    if contract.intensity not in _AS_STORED:
        raise ContractError(
            "contract: intensity",
            f"{contract.intensity!r} is for radiographs, and the pictures are in colour",
            f"Use one of {', '.join(_AS_STORED)}.",
        )
    data = read_bytes(path)
    if is_dicom(data) or is_film(path, data) or is_metaimage(data):
        raise UnsupportedPixels(
            path, "is a radiograph, and colour pictures were asked for", "Set data.colour to false."
        )
    colour = np.ascontiguousarray(read_colour(path, data).transpose(2, 0, 1))
    return fitted(torch.from_numpy(colour), contract)
