"""First layers for one channel or three, with the same response to grey pictures."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cxr_foundation.errors import KeyMismatch

__all__ = ["Stem", "adapt_channels"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Stem:
    """A first convolution or patch embedding, and how its input is normalised.

    Attributes:
        weight: Kernel (out, in, height, width).
        bias: (out,), or None if the layer has none.
        mean: Per channel, of pixels in [0, 1]; None if it is not known.
        std: Per channel, of pixels in [0, 1]; None if it is not known.
        padded: Whether the layer pads its input with zeros.
    """

    weight: Tensor
    bias: Tensor | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    padded: bool = False


def adapt_channels(stem: Stem, in_chans: int) -> Stem:
    """The same layer for another number of channels, exact for grey pictures.

    3 → 1 adds the kernels up and 1 → 3 repeats the kernel and divides it by three. Channels that
    are normalised differently are first brought to one mean m and one standard deviation s, the
    averages of theirs: from `W (x - mean) / std` the kernels become `W s / std`, and what is left,
    `W (m - mean) / std`, is constant and goes into the bias. That needs a bias, and a layer
    without padding: zeros beyond the border would stand for another grey in each channel.

    Args:
        stem: The layer.
        in_chans: 1 or 3; equal to the layer's own number it returns the layer as it is.

    Returns:
        A layer of the same types, with the mean and standard deviation that its input has to have.

    Raises:
        KeyMismatch: Any other pair of numbers, or means that differ and cannot be folded.
    """
    held = stem.weight.shape[1]
    if held == in_chans:
        return stem
    # Sums in float64: a half-precision sum of three would lose a bit that the file has.
    wide = stem.weight.double()
    if (held, in_chans) == (1, 3):
        return dataclasses.replace(
            stem,
            weight=(wide / 3).repeat(1, 3, 1, 1).to(stem.weight.dtype),
            mean=stem.mean and stem.mean * 3,
            std=stem.std and stem.std * 3,
        )
    if (held, in_chans) != (3, 1):
        raise KeyMismatch(
            f"in_chans={in_chans}",
            f"the first layer takes {held} channels, and only 1 and 3 turn into each other",
            f"Use in_chans={held}.",
        )
    bias = stem.bias
    if stem.mean is not None and stem.std is not None:
        wide, bias = _alike(stem, wide, stem.mean, stem.std)
    return Stem(
        weight=wide.sum(1, keepdim=True).to(stem.weight.dtype),
        bias=bias,
        mean=_average(stem.mean),
        std=_average(stem.std),
        padded=stem.padded,
    )


def _alike(
    stem: Stem, wide: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor | None]:
    """Kernels and bias for input whose channels all have the average mean and deviation."""
    means, stds = (torch.tensor(v, dtype=torch.float64) for v in (mean, std))
    scaled = wide * (stds.mean() / stds).view(1, -1, 1, 1)
    if len(set(mean)) == 1:
        return scaled, stem.bias
    if stem.bias is None or stem.padded:
        what = "pads with zeros" if stem.padded else "has no bias"
        raise KeyMismatch(
            "in_chans=1",
            f"its channels have the means {', '.join(f'{m:g}' for m in mean)} and the first layer"
            f" {what}, so that no layer of one channel gives the same",
            "Use in_chans=3; the processor repeats grey three times.",
        )
    constant = (wide.sum((2, 3)) * ((means.mean() - means) / stds)).sum(1)
    return scaled, (stem.bias.double() + constant).to(stem.bias.dtype)


def _average(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    # The mean of equal numbers is that number, whatever a sum of floats makes of it.
    return values[:1] if len(set(values)) == 1 else (sum(values) / len(values),)
