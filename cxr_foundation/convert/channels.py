"""First layers for one channel or three, with the same response to grey pictures."""

from __future__ import annotations

from torch import Tensor

from cxr_foundation.errors import KeyMismatch

__all__ = ["adapt_channels"]


def adapt_channels(weight: Tensor, in_chans: int) -> Tensor:
    """The kernel of a first convolution or patch embedding for another number of channels.

    Exact where the channels of the picture are copies of one another and are normalised alike:
    3 → 1 adds the kernels up, 1 → 3 repeats the kernel and divides it by three.

    Args:
        weight: Kernel (out, in, height, width).
        in_chans: 1 or 3; equal to the kernel's own number it returns the kernel as it is.

    Returns:
        Kernel (out, in_chans, height, width) of the same type.

    Raises:
        KeyMismatch: Any other pair of numbers.
    """
    held = weight.shape[1]
    if held == in_chans:
        return weight
    # Sums in float64: a half-precision sum of three would lose a bit that the file has.
    wide = weight.double()
    if (held, in_chans) == (3, 1):
        return wide.sum(1, keepdim=True).to(weight.dtype)
    if (held, in_chans) == (1, 3):
        return (wide / 3).repeat(1, 3, 1, 1).to(weight.dtype)
    raise KeyMismatch(
        f"in_chans={in_chans}",
        f"the first layer takes {held} channels, and only 1 and 3 turn into each other",
        f"Use in_chans={held}.",
    )
