"""The drawn pictures, by integer arithmetic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS, COLUMNS = 24, 20


def ramp(bits: int) -> npt.NDArray[np.uint16]:
    """A diagonal ramp over the whole range of `bits`, the same under no turn or mirror: (24, 20).

    Each row begins four columns' worth above the last, so that no two corners are equal.
    """
    row, column = np.mgrid[:ROWS, :COLUMNS]
    steps = 4 * row + column
    return np.asarray(steps * (2**bits - 1) // int(steps.max()), dtype=np.uint16)
