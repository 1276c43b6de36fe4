"""Random views of radiographs, drawn from (seed, epoch, picture, view) and nothing else.

No random state is carried from one batch to the next, so a run that is cut off and resumed sees
the very same views. Crop, zoom, shift, rotation, flip and lens distortion are one resampling; the
blur is separable; brightness and contrast are one multiply-add.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["ViewConfig", "Views"]

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How strongly a view may differ from its radiograph. Everything is off unless it is set.

    Attributes:
        size: (height, width) of a view in pixels; None means the contract's. Smaller views are
            cheaper, and a crop of them shows findings as large as the whole picture does at the
            contract's size.
        crop_area: Part of the picture's area that is cropped, drawn uniformly.
        crop_ratio: Width / height of the crop relative to the picture's, drawn log-uniformly.
        affine_p: Probability of zoom, shift and rotation, which come together.
        zoom: Relative size: 0.8 to 1.2 is `(-0.2, 0.2)`.
        shift: Largest shift to either side, in parts of the picture.
        rotation: Largest rotation to either side, in degrees.
        distortion: Largest radial distortion: a corner moves by up to twice this part of the
            half-width.
        distortion_p: Its probability.
        flip_p: Probability of a mirror image. The heart is on the left: 0 for radiographs.
        jitter_p: Probability of brightness and contrast, which come together.
        brightness: Largest change to either side, in parts of full scale.
        contrast: Largest change to either side, as a part of 1.
        gamma: Range of exponents, drawn log-uniformly.
        gamma_p: Its probability.
        blur: Range of the Gaussian's sigma, in pixels of the view.
        blur_p: Its probability.
        sharpen: Range of the weight of an unsharp mask (sigma 1 pixel).
        sharpen_p: Its probability; a view is blurred or sharpened, never both.
        noise: Range of the white noise's standard deviation, in parts of full scale.
        noise_p: Its probability.
    """

    size: tuple[int, int] | None = None
    crop_area: Range = (1.0, 1.0)
    crop_ratio: Range = (1.0, 1.0)
    affine_p: float = 0.0
    zoom: Range = (0.0, 0.0)
    shift: float = 0.0
    rotation: float = 0.0
    distortion: float = 0.0
    distortion_p: float = 0.0
    flip_p: float = 0.0
    jitter_p: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: Range = (1.0, 1.0)
    gamma_p: float = 0.0
    blur: Range = (0.1, 1.0)
    blur_p: float = 0.0
    sharpen: Range = (0.0, 0.0)
    sharpen_p: float = 0.0
    noise: Range = (0.0, 0.0)
    noise_p: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_p") and not 0 <= value <= 1:
                raise ValueError(f"{field.name}: {value!r} is not a probability")
            is_range = isinstance(value, tuple) and field.name != "size"
            if is_range and not value[0] <= value[1]:
                raise ValueError(f"{field.name}: {value!r} is not a range")
        if self.size is not None and not all(16 <= s <= 4096 for s in self.size):
            raise ValueError(f"size: {self.size!r} is not two whole numbers from 16 to 4096")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area: {self.crop_area!r} is not within (0, 1]")
        for name in ("crop_ratio", "gamma", "blur"):
            if not getattr(self, name)[0] > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        if self.blur_p + self.sharpen_p > 1:
            raise ValueError("blur_p + sharpen_p: more than 1, and a view has only one of them")


# One slot of uniform numbers per parameter: a new parameter at the end moves no other.
_SLOTS = (
    "area ratio left top affine zoom shift_x shift_y rotation distort distortion flip jitter "
    "brightness contrast gamma_on gamma blur_on blur noise_on noise"
).split()


class Views:
    """Makes batches of views: (N, H, W) pictures → (N, C, h, w) float32, normalised.

    Args:
        config: How strongly a view may differ.
        size: (height, width) of a view in pixels. A picture should be at most 1.5 times as large,
            since the resampling is bilinear without a low-pass.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        seed: Seed of the whole run.
    """

    def __init__(
        self,
        config: ViewConfig,
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> None:
        self.config = config
        self.size = size
        self.seed = seed
        self._mean = torch.tensor(mean).view(1, -1, 1, 1)
        self._std = torch.tensor(std).view(1, -1, 1, 1)

    def __call__(
        self, pictures: torch.Tensor, *, epoch: int, indices: Sequence[int], view: int
    ) -> torch.Tensor:
        """One view of every picture.

        Args:
            pictures: uint8 or uint16 (N, H, W) over the full range, or float32 in [0, 1].
            epoch: Epoch, from 0.
            indices: Number of each picture in the data set: a view does not depend on its batch.
            view: 0 for the query, 1 for the key.

        Returns:
            float32 (N, C, h, w).
        """
        generators = [_generator(self.seed, epoch, index, view) for index in indices]
        drawn = np.stack([g.random(len(_SLOTS)) for g in generators])
        u = {name: drawn[:, i] for i, name in enumerate(_SLOTS)}
        x = F.grid_sample(
            _unit_range(pictures)[:, None],
            self._grid(u),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
        self._blur_or_sharpen(x, u)
        self._change_intensity(x, u)
        self._add_noise(x, u, generators)
        return x.sub(self._mean).div_(self._std)

    def _grid(self, u: dict[str, NDArray[np.float64]]) -> torch.Tensor:
        """Where each pixel of the view comes from: float32 (N, h, w, 2) in [-1, 1]."""
        c = self.config
        area = _between(c.crop_area, u["area"])
        ratio = np.exp(_between((math.log(c.crop_ratio[0]), math.log(c.crop_ratio[1])), u["ratio"]))
        width = np.minimum(np.sqrt(area * ratio), 1.0)
        height = np.minimum(np.sqrt(area / ratio), 1.0)
        centre_x = (2 * u["left"] - 1) * (1 - width)
        centre_y = (2 * u["top"] - 1) * (1 - height)
        affine = u["affine"] < c.affine_p
        zoom = np.where(affine, 1 + _between(c.zoom, u["zoom"]), 1.0)
        centre_x = centre_x + affine * (2 * u["shift_x"] - 1) * 2 * c.shift
        centre_y = centre_y + affine * (2 * u["shift_y"] - 1) * 2 * c.shift
        angle = affine * (2 * u["rotation"] - 1) * math.radians(c.rotation)
        mirror = np.where(u["flip"] < c.flip_p, -1.0, 1.0)
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        # Rows and columns are added by broadcasting: torch's affine_grid is a matrix product over
        # every pixel, twice as slow as the resampling itself.
        across, down = (_pixel_centres(n) for n in reversed(self.size))
        grid = torch.empty(len(area), *self.size, 2)
        for axis, (per_x, per_y, offset) in enumerate(
            (
                (mirror * width * cos, -height * sin, centre_x),
                (mirror * width * sin, height * cos, centre_y),
            )
        ):
            column = _column(per_y)[:, 0] * down[:, None] + _column(offset)[:, 0]
            torch.add(column, _column(per_x)[:, 0] * across, out=grid[..., axis])
        if c.distortion_p:
            bend = np.where(
                u["distort"] < c.distortion_p, (2 * u["distortion"] - 1) * c.distortion, 0.0
            )
            radius2 = grid.square().sum(-1, keepdim=True)
            grid = grid * (1 + torch.from_numpy(bend).float().view(-1, 1, 1, 1) * radius2)
        return grid

    def _blur_or_sharpen(self, x: torch.Tensor, u: dict[str, NDArray[np.float64]]) -> None:
        c = self.config
        blurred = np.flatnonzero(u["blur_on"] < c.blur_p)
        if len(blurred):
            sigma = _between(c.blur, u["blur"][blurred])
            x[blurred] = _gaussian(x[blurred], sigma, radius=math.ceil(3 * c.blur[1]))
        crisp = np.flatnonzero(u["blur_on"] >= 1 - c.sharpen_p)
        if len(crisp):
            weight = _column(_between(c.sharpen, u["blur"][crisp]))
            smooth = _gaussian(x[crisp], np.ones(len(crisp)), radius=3)
            x[crisp] = x[crisp] + weight * (x[crisp] - smooth)

    def _change_intensity(self, x: torch.Tensor, u: dict[str, NDArray[np.float64]]) -> None:
        c = self.config
        on = u["jitter"] < c.jitter_p
        if on.any():
            gain = np.where(on, 1 + (2 * u["contrast"] - 1) * c.contrast, 1.0)
            offset = np.where(on, (2 * u["brightness"] - 1) * c.brightness, 0.0)
            # Contrast turns about mid-grey, so that it does not change the brightness too.
            x.mul_(_column(gain)).add_(_column(offset + 0.5 * (1 - gain)))
        x.clamp_(0, 1)
        bent = np.flatnonzero(u["gamma_on"] < c.gamma_p)
        if len(bent):
            low, high = math.log(c.gamma[0]), math.log(c.gamma[1])
            exponent = _column(np.exp(_between((low, high), u["gamma"][bent])))
            x[bent] = x[bent].pow_(exponent)

    def _add_noise(
        self,
        x: torch.Tensor,
        u: dict[str, NDArray[np.float64]],
        generators: Sequence[np.random.Generator],
    ) -> None:
        sigma = _between(self.config.noise, u["noise"])
        for i in np.flatnonzero(u["noise_on"] < self.config.noise_p).tolist():
            # torch draws normal numbers three times as fast as numpy.
            source = torch.Generator().manual_seed(int(generators[i].integers(2**62)))
            x[i, 0].add_(torch.randn(self.size, generator=source), alpha=sigma[i]).clamp_(0, 1)


def _generator(seed: int, epoch: int, index: int, view: int) -> np.random.Generator:
    # Philox is counter-based: (seed, epoch, index, view) is the state itself, nothing is hashed.
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, view, index, epoch]))


def _unit_range(pictures: torch.Tensor) -> torch.Tensor:
    """Float32 in [0, 1]."""
    if pictures.is_floating_point():
        return pictures
    return pictures.float().div_(torch.iinfo(pictures.dtype).max)


def _between(bounds: Range, u: NDArray[np.float64]) -> NDArray[np.float64]:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _pixel_centres(n: int) -> torch.Tensor:
    """(n,) centres of n pixels that fill [-1, 1]."""
    return (torch.arange(n, dtype=torch.float32) + 0.5) * (2 / n) - 1


def _column(values: NDArray[np.float64]) -> torch.Tensor:
    """(N,) → float32 (N, 1, 1, 1)."""
    return torch.from_numpy(values).float().view(-1, 1, 1, 1)


def _gaussian(x: torch.Tensor, sigma: NDArray[np.float64], *, radius: int) -> torch.Tensor:
    """Separable Gaussian of (N, 1, h, w), one sigma in pixels per picture, borders reflected."""
    radius = min(radius, min(x.shape[-2:]) - 1)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    taps = torch.exp(-0.5 * (steps / torch.from_numpy(sigma).float()[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    n = len(x)
    padded = F.pad(x, (radius,) * 4, mode="reflect").transpose(0, 1)
    rows = F.conv2d(padded, taps.view(n, 1, 1, -1), groups=n)
    return F.conv2d(rows, taps.view(n, 1, -1, 1), groups=n).transpose(0, 1)
