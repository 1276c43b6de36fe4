"""The input contract: what a checkpoint was fed while it was trained. Standard library only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from cxr_foundation.errors import ContractError

__all__ = ["Aspect", "InputContract", "Intensity", "Interpolation"]

Aspect = Literal["squash", "pad", "crop"]
Intensity = Literal["voi", "full_range", "minmax", "percentile", "minmax_equalize", "unknown"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputContract:
    """Everything that turns a radiograph into the tensor that a checkpoint expects.

    Attributes:
        channels: 1, or 3 for grey replicated three times.
        size: (height, width) of the tensor in pixels.
        resize: Length in pixels of the side that is resized before a crop (the shorter one) or
            a pad (the longer one); None means `size` itself.
        aspect: "squash" resizes both sides at once; "pad" resizes the longer side and centres
            the picture on black; "crop" resizes the shorter side and takes the centre.
        intensity: "voi": as a viewer shows it (modality and VOI LUT for DICOM, the stored values
            over their full range for pictures). "full_range": modality values over the range of
            BitsStored, without VOI. "minmax": modality values over their own range. "percentile":
            over the two percentiles of `percentile`, clipped. "minmax_equalize": "minmax" and
            then an 8-bit histogram equalisation. "unknown": the sources do not say.
        percentile: (low, high) in percent for `intensity` "percentile", else None.
        interpolation: Kernel of the one antialiased resize.
        mean: Per channel, of pixels in [0, 1]; None if the sources do not say.
        std: Per channel, of pixels in [0, 1]; None if the sources do not say.
        normalise_first: True where mean and std are applied before the resize.
        polarity: Always "bone_bright": air is dark.
    """

    channels: int
    size: tuple[int, int]
    resize: int | None = None
    aspect: Aspect = "squash"
    intensity: Intensity = "voi"
    percentile: tuple[float, float] | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    normalise_first: bool = False
    polarity: Literal["bone_bright"] = "bone_bright"

    def __post_init__(self) -> None:
        def refuse(key: str, reason: str) -> None:
            raise ContractError(f"contract: {key}", reason)

        if not _is_int(self.channels) or self.channels not in (1, 3):
            refuse("channels", f"{_shown(self.channels)} is neither 1 nor 3")
        if len(self.size) != 2 or not all(_is_int(s) and 16 <= s <= 4096 for s in self.size):
            refuse("size", f"{_shown(self.size)} is not two whole numbers from 16 to 4096")
        if self.resize is not None and not (_is_int(self.resize) and 16 <= self.resize <= 8192):
            refuse("resize", f"{_shown(self.resize)} is not a whole number from 16 to 8192")
        if self.resize is not None and self.aspect == "squash":
            refuse("resize", "has no meaning with aspect 'squash'")
        for key, literal in (
            ("aspect", Aspect),
            ("intensity", Intensity),
            ("interpolation", Interpolation),
        ):
            if getattr(self, key) not in get_args(literal):
                refuse(
                    key,
                    f"{_shown(getattr(self, key))} is not one of {', '.join(get_args(literal))}",
                )
        if self.polarity != "bone_bright":
            refuse("polarity", f"{_shown(self.polarity)} is not 'bone_bright'")
        if (self.percentile is not None) != (self.intensity == "percentile"):
            refuse("percentile", "goes with intensity 'percentile' and with nothing else")
        if self.percentile is not None:
            if len(self.percentile) != 2 or not 0 <= self.percentile[0] < self.percentile[1] <= 100:
                refuse("percentile", f"{_shown(self.percentile)} is not 0 <= low < high <= 100")
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is None:
                continue
            if len(values) != self.channels:
                refuse(key, f"{len(values)} values for {self.channels} channels")
            if not all(math.isfinite(v) for v in values):
                refuse(key, f"{_shown(values)} has a value that is not finite")
        if self.std is not None and not all(v > 0 for v in self.std):
            refuse("std", f"{_shown(self.std)} has a value that is not above 0")

    @property
    def complete(self) -> bool:
        """Whether a processor can be built: nothing that changes pixels is unknown."""
        return self.mean is not None and self.std is not None and self.intensity != "unknown"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> InputContract:
        """Build a contract from parsed YAML or JSON.

        Raises:
            ContractError: An unknown or missing key, or a value out of range.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        for key in raw:
            if key not in names:
                raise ContractError(f"contract: {key}", "unknown key")
        for key in ("channels", "size", "mean", "std"):
            if key not in raw:
                raise ContractError(f"contract: {key}", "missing")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        for key in ("size", "percentile", "mean", "std"):
            may_be_null = key != "size"
            if not isinstance(values.get(key), tuple) and not (
                may_be_null and values.get(key) is None
            ):
                raise ContractError(f"contract: {key}", "is not a list")
            if not all(_is_number(v) for v in values.get(key) or ()):
                raise ContractError(f"contract: {key}", "holds something that is not a number")
        if not isinstance(values.get("normalise_first", False), bool):
            raise ContractError("contract: normalise_first", "is neither true nor false")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The contract as JSON types; `from_dict` gives an equal contract back."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    def to_timm(self) -> dict[str, Any]:
        """The nearest that timm's `pretrained_cfg` can say about the input.

        timm knows no intensity rule, no order and no square pixels; a missing mean or std is left
        out, never replaced.
        """
        cfg: dict[str, Any] = {
            "input_size": (self.channels, *self.size),
            "interpolation": self.interpolation,
            "crop_mode": {"squash": "squash", "pad": "border", "crop": "center"}[self.aspect],
            "crop_pct": min(self.size) / self.resize if self.resize else 1.0,
        }
        if self.mean is not None:
            cfg["mean"] = self.mean
        if self.std is not None:
            cfg["std"] = self.std
        return cfg


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value in a message: a card may hold any, of any length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
