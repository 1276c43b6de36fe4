"""What views of radiographs may differ by."""

from __future__ import annotations

import dataclasses

__all__ = ["Range", "ViewConfig"]

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How strongly a view may differ from its radiograph. Everything is off unless it is set.

    Attributes:
        size: (height, width) of a view in pixels; None means the contract's. Smaller views are
            cheaper, and a crop of them shows findings as large as the whole picture does at the
            contract's size.
        border: Part of each side of the picture that is made black before anything else: markers,
            labels and frames at the edge tell which hospital a radiograph comes from.
        crop_area: Part of the picture's area that is cropped, drawn uniformly. A crop that is not
            turned or bent starts and ends on whole pixels.
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
        saturation: Of colour pictures: likewise; comes with brightness and contrast.
        hue: Of colour pictures: largest turn of the colours to either side, in parts of a circle;
            comes with brightness and contrast.
        grayscale_p: Probability that a colour picture loses its colours.
        gamma: Range of exponents, drawn log-uniformly.
        gamma_p: Its probability.
        blur: Range of the Gaussian's sigma, in pixels of the view.
        blur_p: Its probability.
        sharpen: Range of the weight of an unsharp mask (sigma 1 pixel).
        sharpen_p: Its probability; a view is blurred or sharpened, never both.
        noise: Range of the white noise's standard deviation, in parts of full scale.
        noise_p: Its probability.
        solarize_p: Probability that what is brighter than half of full scale is inverted.
    """

    size: tuple[int, int] | None = None
    border: float = 0.0
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
    saturation: float = 0.0
    hue: float = 0.0
    grayscale_p: float = 0.0
    gamma: Range = (1.0, 1.0)
    gamma_p: float = 0.0
    blur: Range = (0.1, 1.0)
    blur_p: float = 0.0
    sharpen: Range = (0.0, 0.0)
    sharpen_p: float = 0.0
    noise: Range = (0.0, 0.0)
    noise_p: float = 0.0
    solarize_p: float = 0.0

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
        for name in ("border", "hue"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not within [0, 0.5)")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area: {self.crop_area!r} is not within (0, 1]")
        for name in ("crop_ratio", "gamma", "blur"):
            if not getattr(self, name)[0] > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        if self.blur_p + self.sharpen_p > 1:
            raise ValueError("blur_p + sharpen_p: more than 1, and a view has only one of them")
