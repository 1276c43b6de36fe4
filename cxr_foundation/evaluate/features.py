"""Columns brought to one scale by the training rows alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["standardise"]


def standardise(
    train: npt.ArrayLike, features: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Subtract the training rows' mean and divide by their standard deviation, column by column.

    A column that does not vary in training becomes 0 everywhere: nothing can be learnt from it,
    and it must not blow up on other rows.

    Args:
        train: (M, D).
        features: (N, D).

    Returns:
        float64 (M, D) and (N, D).
    """
    fitted = np.asarray(train, dtype=np.float64)
    mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
    varies = spread > 1e-9 * np.maximum(np.abs(mean), 1e-3)
    scale = np.where(varies, 1 / np.where(varies, spread, 1), 0)
    return (fitted - mean) * scale, (np.asarray(features, dtype=np.float64) - mean) * scale
