"""The small picture that guards look at: `thumbnail`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIDE", "ranks", "thumbnail"]

SIDE = 20
"""Pixels a side. Lungs, heart, shoulders and diaphragm are told apart at that size."""

# Of a larger picture every second, third, … row and column is enough: each of the means is still
# of some 400 pixels.
_ENOUGH = 384


def thumbnail(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A picture as ranks on a small square: the same whatever its size, aspect and contrast.

    Args:
        values: float32 (H, W), any monotone scale.

    Returns:
        float32 (`SIDE`, `SIDE`) in [-1, 1], mean 0, see `ranks`.
    """
    step = max(1, min(values.shape) // _ENOUGH)
    sampled = Image.fromarray(values[::step, ::step])
    small = sampled.resize((SIDE, SIDE), Image.Resampling.BOX)
    return ranks(np.asarray(small))


def ranks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each value's rank from -1 (least) to 1 (greatest); equal values share their mean rank.

    A monotone change of contrast leaves it as it is, and an inversion changes its sign exactly.
    """
    flat = values.ravel()
    ordered = np.sort(flat)
    below = np.searchsorted(ordered, flat, side="left")
    not_above = np.searchsorted(ordered, flat, side="right")
    ranked = (below + not_above) / max(flat.size, 1) - 1.0
    return np.asarray(ranked, dtype=np.float32).reshape(values.shape)
