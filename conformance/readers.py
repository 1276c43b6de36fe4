"""The readers that are scored. Each takes a path and gives (H, W) or raises.

Ours is compared as it is. The others state other output ranges or none, so that their pictures are
compared up to brightness and contrast: a wrong window, polarity or geometry shows all the same.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: Column of the table.
        package: Distribution whose version is printed.
        read: Path to pixels.
        exact: Whether its output is compared without a fit of brightness and contrast.
    """

    name: str
    package: str
    read: Callable[[Path], Picture]
    exact: bool = False

    @property
    def title(self) -> str | None:
        """Name and version, None if it is not installed."""
        try:
            return f"{self.name} {version(self.package)}"
        except PackageNotFoundError:
            return None


def ours(path: Path) -> Picture:
    """`cxr_foundation.read_image`."""
    from cxr_foundation import read_image

    return read_image(path)


def torchxrayvision(path: Path) -> Picture:
    """`read_xray_dcm` with its VOI LUT, which is off by default."""
    from torchxrayvision.utils import read_xray_dcm

    return np.asarray(read_xray_dcm(path, voi_lut=True))


def monai(path: Path) -> Picture:
    """`LoadImage` with its pydicom reader, unturned: MONAI's own order is (W, H)."""
    from monai.transforms import LoadImage

    load = LoadImage(reader="PydicomReader", image_only=True, swap_ij=False)
    return np.asarray(load(str(path)))


def recipe(path: Path) -> Picture:
    """The lines that most notebooks share: LUTs by pydicom, MONOCHROME1 flipped, min to max."""
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    data = pydicom.dcmread(path, force=True)
    pixels = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype(float)
    if data.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.amax(pixels) - pixels
    pixels = pixels - np.min(pixels)
    return pixels / np.max(pixels)


READERS = (
    Reader("cxr_foundation", "cxr-foundation-hub", ours, exact=True),
    Reader("torchxrayvision", "torchxrayvision", torchxrayvision),
    Reader("MONAI", "monai", monai),
    Reader("pydicom recipe", "pydicom", recipe),
)


def read(reader: Reader, path: Path) -> Picture | None:
    """The reader's picture, grey; None if it refused, by whatever exception."""
    with warnings.catch_warnings(action="ignore"):
        try:
            pixels = np.squeeze(np.asarray(reader.read(path), dtype=np.float64))
        except Exception:
            return None
    # Equal channels are a grey picture too.
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = pixels.mean(-1)
    return pixels


def error(pixels: Picture, shown: Picture, *, exact: bool, inside: int) -> float:
    """Largest error, after the best brightness and rising contrast where not `exact`."""
    if pixels.shape != shown.shape or not np.isfinite(pixels).all():
        return float("inf")
    if inside:
        pixels = pixels[inside:-inside, inside:-inside]
        shown = shown[inside:-inside, inside:-inside]
    if not exact:
        spread = float(pixels.std())
        if spread == 0:
            return float("inf")
        slope = float(((pixels - pixels.mean()) * (shown - shown.mean())).mean()) / spread**2
        if slope <= 0:
            return float("inf")
        pixels = slope * (pixels - pixels.mean()) + shown.mean()
    return float(np.abs(pixels - shown).max())
