"""Letters in the pixels, found by their edges: `lettering`. Not recognised, and not removed."""

from __future__ import annotations

from collections.abc import Iterator

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
# Every third row is searched first, and its surroundings only if a word's width of it has so many
# jumps. Of 1,710 radiographs (`cxr_small` without its test part) 200 have 12 and more in a window;
# in each of them some third row has 12, so that 9 leaves a margin.
_STEP, _FEW = 3, 9


def lettering(values: npt.NDArray[np.float32]) -> float:
    """How dense strokes lie where they are densest: jumps in a row of a word's width.

    Args:
        values: float32 (H, W) in [0, 1].

    Returns:
        10 and more in a line of text; 0 where nothing comes near one.
    """
    scale = max(1.0, max(values.shape) / _LONGEST)
    return max((_densest(band) for band in _suspects(values, scale)), default=0.0)


def _suspects(values: npt.NDArray[np.float32], scale: float) -> Iterator[npt.NDArray[np.float32]]:
    """Bands of rows in which there may be a line of text, on the scale that letters are sought."""
    step = max(1, round(_STEP * scale))
    # Points in place of means, no nearer to one another than pixels on that scale: their jumps are
    # as sharp or sharper, at a tenth of the cost.
    skip = round(scale)
    apart = 1 if skip >= scale else 2
    sampled = values[step // 2 :: step, ::skip]
    jumps = np.abs(sampled[:, apart:] - sampled[:, :-apart]) >= _JUMP
    wide = round(_WIDE * scale / skip)
    hits = [r for r in np.flatnonzero(jumps.sum(axis=1) >= _FEW) if _is_dense(jumps[r], wide)]
    height, width = (max(1, round(side / scale)) for side in values.shape)
    for first, last in _runs(np.rint((np.array(hits) * step + step // 2) / scale), height):
        if scale == 1.0:
            yield values[first:last]
            continue
        rows = values.shape[0] / height
        top, bottom = int(first * rows), min(values.shape[0], int(np.ceil(last * rows)))
        box = (0, first * rows - top, values.shape[1], min(last * rows - top, bottom - top))
        picture = Image.fromarray(values[top:bottom])
        yield np.asarray(picture.resize((width, last - first), Image.Resampling.BOX, box=box))


def _is_dense(jumps: npt.NDArray[np.bool_], wide: int) -> bool:
    """Whether a word's width of one row has many jumps."""
    at = np.flatnonzero(jumps)
    return bool((at[_FEW - 1 :] - at[: 1 - _FEW] < wide).any())


def _runs(rows: npt.NDArray[np.float64], height: int) -> Iterator[tuple[int, int]]:
    """First and one past the last row of the bands around some rows, overlapping ones as one."""
    around = 2 * _HIGH
    for part in np.split(rows, np.flatnonzero(np.diff(rows) > 2 * around) + 1):
        if part.size:
            yield max(0, int(part[0]) - around), min(height, int(part[-1]) + around + 1)


def _densest(values: npt.NDArray[np.float32]) -> float:
    """The most jumps in a window, for each of its rows."""
    jumps = np.abs(np.diff(values, axis=1)) >= _JUMP
    high, wide = (min(a, b) for a, b in zip((_HIGH, _WIDE), jumps.shape, strict=True))
    if not high or not wide:
        return 0.0
    total = np.zeros((jumps.shape[0] + 1, jumps.shape[1] + 1), dtype=np.int32)
    np.cumsum(np.cumsum(jumps, axis=0), axis=1, out=total[1:, 1:])
    below, above = total[high:], total[:-high]
    inside = below[:, wide:] - above[:, wide:] - below[:, :-wide] + above[:, :-wide]
    return int(inside.max()) / int(high)
