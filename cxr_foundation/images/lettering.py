"""Letters in the pixels, found by their edges: `lettering`. Not recognised, and not removed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["lettering"]

# A stroke of a character is a jump up and a jump down of this much, from one pixel to the next;
# film and detector noise, ribs, wires and lead markers make few of them side by side.
_JUMP = 0.2
# A window that a word fits into, in pixels.
_HIGH, _WIDE = 7, 80
# Larger pictures are looked at on this scale, where annotations have about 10 to 30 pixels.
_LONGEST = 1280


def lettering(values: npt.NDArray[np.float32]) -> float:
    """How dense strokes lie where they are densest: jumps in a row of a word's width.

    Args:
        values: float32 (H, W) in [0, 1].

    Returns:
        0 where there is no edge as sharp as a letter's; 10 and more in a line of text.
    """
    longest = max(values.shape)
    if longest > _LONGEST:
        high, wide = (max(1, round(side * _LONGEST / longest)) for side in values.shape)
        picture = Image.fromarray(values).resize((wide, high), Image.Resampling.BOX)
        values = np.asarray(picture)
    jumps = np.abs(np.diff(values, axis=1)) >= _JUMP
    high, wide = (min(a, b) for a, b in zip((_HIGH, _WIDE), jumps.shape, strict=True))
    if not high or not wide or not jumps.any():
        return 0.0
    total = np.zeros((jumps.shape[0] + 1, jumps.shape[1] + 1), dtype=np.int32)
    np.cumsum(np.cumsum(jumps, axis=0), axis=1, out=total[1:, 1:])
    below, above = total[high:], total[:-high]
    inside = below[:, wide:] - above[:, wide:] - below[:, :-wide] + above[:, :-wide]
    return int(inside.max()) / int(high)
