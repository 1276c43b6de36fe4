"""Pixels to model input, by an input contract and by nothing else."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, NoImages, UnsupportedPixels
from cxr_foundation.images import Trust, read_pixels
from cxr_foundation.images.picture import grey_pixels, unit_range
from cxr_foundation.images.source import LIBRARY_ERRORS, Pixels, to_grey

if TYPE_CHECKING:
    import torch

__all__ = ["Processor", "Radiograph", "fitted"]

# The kernel works out its weights in the pixels' own precision: in float32 they are off by up to
# 3e-5 of the local contrast where the sizes are not in a simple ratio, and a noisy radiograph by
# up to 1e-5. In float64 the result is exact, at 1.5 times float32's cost as long as what is
# converted at once fits a core's cache, and five times if it does not.
_STRIP = 2**18

Grey: TypeAlias = npt.NDArray[np.float32]
Radiograph: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Image.Image | torch.Tensor"


@dataclasses.dataclass(frozen=True)
class Processor:
    """Turns radiographs into the tensor that a checkpoint was trained on.

    Arrays, Pillow images and tensors are taken as modality values over the range of their type:
    floating point in [0, 1], unsigned 8 and 16 bit over their full range, bone bright. A path is
    read as `read_image` does, without the VOI LUT where the contract's intensity is not "voi".

    Processors are plain values: they compare, pickle to spawned workers, and show their contract.

    Attributes:
        contract: What the checkpoint was fed.
        trust: What to believe of a DICOM file that contradicts itself about polarity, as in
            `read_image`; None refuses it.
    """

    contract: InputContract
    trust: Trust | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        contract = self.contract
        if not contract.complete:
            unknown = [key for key in ("mean", "std") if getattr(contract, key) is None]
            unknown += ["intensity"] if contract.intensity == "unknown" else []
            raise ContractError(
                "contract", f"{', '.join(unknown)} unknown: pixels cannot be prepared by it"
            )

    def __call__(self, images: Radiograph | list[Radiograph], /) -> dict[str, torch.Tensor]:
        """Prepare one radiograph or several.

        Args:
            images: A path; an array (H, W), (1, H, W), (H, W, 1) or grey-valued (H, W, 3); a
                Pillow image; a tensor (H, W), (1, H, W) or grey-valued (3, H, W); a list or tuple
                of these; a tensor (B, C, H, W).

        Returns:
            {"pixel_values": float32 (B, C, H, W)}.

        Raises:
            ImageError: A radiograph that cannot be used; the message names its path or place.
            NoImages: An empty list.
        """
        import torch

        several = list(_several(images))
        if not several:
            raise NoImages("images", "an empty list", "Pass at least one radiograph.")
        return {"pixel_values": torch.stack([self._prepare(*named) for named in several])}

    def prepare(self, image: Radiograph | Pixels) -> torch.Tensor:
        """One radiograph, or pixels that were read before, as float32 (C, H, W); see `__call__`."""
        return self._prepare(_name(image), image)

    def _prepare(self, name: str, image: Radiograph | Pixels) -> torch.Tensor:
        import torch

        contract = self.contract
        grey = self._intensity(self._read(name, image))
        pixels = torch.from_numpy(grey)[None]
        mean, std = (torch.tensor(v)[:, None, None] for v in (contract.mean, contract.std))
        if contract.normalise_first:
            # Black beside the picture is black before mean and std, so that padding is the same.
            return _windowed((pixels - mean) / std, contract, outside=(0.0 - mean) / std)
        return (fitted(pixels, contract) - mean) / std

    def _read(self, name: str, image: Radiograph | Pixels) -> Pixels:
        if isinstance(image, Pixels):
            return image
        if isinstance(image, str | os.PathLike):
            return read_pixels(image, voi=self.contract.intensity == "voi", trust=self.trust)
        if isinstance(image, Image.Image):
            try:
                return Pixels(grey_pixels(name, image))
            except LIBRARY_ERRORS:
                raise UnsupportedPixels(name, "the Pillow image cannot be decoded") from None
        return Pixels(_array_pixels(name, image))

    def _intensity(self, pixels: Pixels) -> Grey:
        """The contract's intensity rule, by statistics that leave padding out; padding is black."""
        intensity = self.contract.intensity
        if intensity in ("voi", "full_range"):
            return pixels.values
        values, padding = pixels.values, pixels.padding
        seen = values if padding is None else values[~padding]
        if intensity == "percentile" and self.contract.percentile is not None:
            low, high = np.percentile(seen, self.contract.percentile) if seen.size else (0.0, 0.0)
        else:
            low, high = (seen.min(), seen.max()) if seen.size else (0.0, 0.0)
        values = _stretched(values, float(low), float(high))
        if intensity == "minmax_equalize":
            values = _equalised(values, padding)
        return values if padding is None else np.where(padding, np.float32(0), values)


def fitted(pixels: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """Pixels float32 (C, h, w) in [0, 1], brought to the contract's size by its aspect."""
    import torch

    pixels = _windowed(pixels, contract, outside=torch.zeros(1, 1, 1))
    # A bicubic kernel overshoots at edges; pixels stay pixels.
    return pixels.clamp(0.0, 1.0) if contract.interpolation == "bicubic" else pixels


def _windowed(
    pixels: torch.Tensor, contract: InputContract, *, outside: torch.Tensor
) -> torch.Tensor:
    """One antialiased resize of (C, h, w) by the contract's aspect, then its window."""
    height, width = pixels.shape[-2:]
    resized = _resized(pixels, _inner_size(contract, height, width), contract.interpolation)
    if resized.shape[-2:] == contract.size:
        return resized
    canvas = outside.expand(pixels.shape[0], *contract.size).clone()
    from_rows, to_rows = _centred(resized.shape[-2], contract.size[0])
    from_columns, to_columns = _centred(resized.shape[-1], contract.size[1])
    canvas[:, to_rows, to_columns] = resized[:, from_rows, from_columns]
    return canvas


def _several(images: Any) -> Iterator[tuple[str, Radiograph]]:
    """(name for messages, radiograph) of each."""
    batched = _is_tensor(images) and images.ndim == 4
    if isinstance(images, list | tuple) or batched:
        for place, image in enumerate(images):
            yield _name(image, f"images[{place}]"), image
    else:
        yield _name(images), images


def _name(image: Any, otherwise: str = "image") -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else otherwise


def _is_tensor(image: object) -> bool:
    # Asked by name, since a caller who holds no tensor need not have imported torch.
    return type(image).__module__.split(".")[0] == "torch" and hasattr(image, "detach")


def _array_pixels(name: str, image: Any) -> Grey:
    """An array or tensor as float32 (H, W) in [0, 1].

    Raises:
        UnsupportedPixels: Another shape or dtype, values outside [0, 1], or colour.
    """
    if _is_tensor(image):
        tensor = image.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        if array.ndim == 3 and array.shape[0] == 3:
            array = array.transpose(1, 2, 0)
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise UnsupportedPixels(
            name,
            f"a {type(image).__name__} is no radiograph",
            "Pass a path, a NumPy array, a Pillow image or a tensor.",
        )
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)):
        raise UnsupportedPixels(
            name, f"an array of shape {array.shape} is no radiograph", "Pass pixels of (H, W)."
        )
    if array.dtype.kind == "f":
        values = unit_range(name, array)
        return np.ascontiguousarray(to_grey(name, values, 1.0) if values.ndim == 3 else values)
    if array.dtype not in (np.uint8, np.uint16):
        raise UnsupportedPixels(
            name,
            f"pixels of type {array.dtype} have no known range",
            "Use float in [0, 1], uint8 or uint16.",
        )
    top = int(np.iinfo(array.dtype).max)
    grey = to_grey(name, array, top) if array.ndim == 3 else array
    return np.ascontiguousarray(np.true_divide(grey, np.float32(top), dtype=np.float32))


def _stretched(values: Grey, low: float, high: float) -> Grey:
    """Values from `low` to `high` over [0, 1], clipped; a flat picture is black."""
    if high <= low:
        return np.zeros_like(values)
    stretched = (values - np.float32(low)) / np.float32(high - low)
    return np.clip(stretched, 0.0, 1.0, out=stretched)


def _equalised(values: Grey, padding: npt.NDArray[np.bool_] | None) -> Grey:
    """8-bit histogram equalisation: each level's share of darker pixels, from 0 to 1.

    Gonzalez and Woods, Digital Image Processing, 3.3.1, with the darkest level at 0 as in
    OpenCV's equalizeHist.
    """
    levels = np.rint(values * 255).astype(np.uint8)
    counts = np.bincount((levels if padding is None else levels[~padding]).ravel(), minlength=256)
    total, first = int(counts.sum()), int(counts[np.flatnonzero(counts)[:1]].sum())
    if total == first:
        return np.zeros_like(values)
    shares = np.clip((np.cumsum(counts) - first) / (total - first), 0.0, 1.0)
    # OpenCV rounds to 8 bits here.
    return (np.rint(shares * 255) / 255).astype(np.float32)[levels]


def _inner_size(contract: InputContract, height: int, width: int) -> tuple[int, int]:
    """Size of the whole picture after the resize, before it is cropped or padded."""
    rows, columns = contract.size
    if contract.aspect == "squash":
        return rows, columns
    ratios = rows / height, columns / width
    if contract.resize is not None:
        side = max(height, width) if contract.aspect == "pad" else min(height, width)
        ratios = (contract.resize / side,) * 2
    scale = min(ratios) if contract.aspect == "pad" else max(ratios)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _centred(inner: int, outer: int) -> tuple[slice, slice]:
    """Slices that lay the middle of `inner` pixels onto the middle of `outer` ones."""
    length = min(inner, outer)
    source, target = (inner - length) // 2, (outer - length) // 2
    return slice(source, source + length), slice(target, target + length)


def _resized(pixels: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """The antialiased kernel of torch in float64: float32 (C, h, w) to float32 (C, *size).

    It is separable, so rows are resized first, a strip of them at a time, and then columns.
    """
    import torch

    channels, height, width = pixels.shape
    if (height, width) == size:
        return pixels
    rows = max(1, _STRIP // (channels * width))
    narrow = torch.empty(channels, height, size[1], dtype=torch.float64)
    for top in range(0, height, rows):
        strip = pixels[:, top : top + rows].double()
        narrow[:, top : top + rows] = _kernel(strip, (strip.shape[1], size[1]), interpolation)
    return _kernel(narrow, size, interpolation).float()


def _kernel(pixels: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    import torch.nn.functional as functional

    resized: torch.Tensor = functional.interpolate(
        pixels[None], size, mode=interpolation, antialias=True, align_corners=False
    )[0]
    return resized
