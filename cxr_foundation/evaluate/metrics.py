"""How well scores separate two classes: AUROC and accuracy of a binary classifier."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import BadLabels

__all__ = ["accuracy", "auroc", "balanced_accuracy", "binary_labels"]


def binary_labels(labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Labels as booleans, True for the positive class; both classes are there.

    Args:
        labels: (N,) of booleans, or of numbers that are 0 or 1.

    Raises:
        BadLabels: One class only, or a value that is neither 0 nor 1.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels have {array.ndim} dimensions, not 1")
    values = set(np.unique(array).tolist())
    if not values <= {0, 1}:
        raise BadLabels("labels", f"{sorted(values, key=str)} are not only 0 and 1")
    if len(values) < 2:
        raise BadLabels("labels", "one class only", "Both classes are needed to score anything.")
    return array.astype(bool)


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Area under the receiver operating characteristic curve.

    It is the share of (positive, negative) pairs in which the positive scores higher; a tie counts
    one half.

    Args:
        labels: (N,) of 0 and 1.
        scores: (..., N), finite: one score vector or many.

    Returns:
        float64 (...,) in [0, 1]; 0-dimensional for one score vector.

    Raises:
        BadLabels: One class only.
        ValueError: Other shapes, or a score that is not finite.
    """
    positive = binary_labels(labels)
    values = finite_scores(scores, len(positive))
    order = np.argsort(values, axis=-1, kind="stable")
    ranks = _mid_ranks(np.take_along_axis(values, order, axis=-1))
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    rank_sum = (ranks * positive[order]).sum(axis=-1)
    area = (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    return np.asarray(area, dtype=np.float64)


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Share of predictions (N,) that equal the labels (N,), in [0, 1]."""
    return float((binary_labels(labels) == np.asarray(predictions, dtype=bool)).mean())


def balanced_accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Mean of sensitivity and specificity of predictions (N,), in [0, 1]."""
    positive = binary_labels(labels)
    right = positive == np.asarray(predictions, dtype=bool)
    return float((right[positive].mean() + right[~positive].mean()) / 2)


def finite_scores(scores: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Scores as float64 (..., count).

    Raises:
        ValueError: Another length, or a score that is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != count:
        raise ValueError(f"scores of shape {values.shape} for {count} labels")
    if not np.isfinite(values).all():
        raise ValueError("scores that are not finite")
    return values


def tie_bounds(ordered: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], ...]:
    """First and last position of the run of equal values that each position lies in.

    Args:
        ordered: (..., N), ascending along the last axis.

    Returns:
        Two int64 (..., N), counted from 0.
    """
    count = ordered.shape[-1]
    new = np.ones(ordered.shape, dtype=bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ends = np.ones(ordered.shape, dtype=bool)
    ends[..., :-1] = new[..., 1:]
    index = np.broadcast_to(np.arange(count), ordered.shape)
    first = np.maximum.accumulate(np.where(new, index, 0), axis=-1)
    reverse = np.where(ends, index, count - 1)[..., ::-1]
    last = np.minimum.accumulate(reverse, axis=-1)[..., ::-1]
    return first, last


def _mid_ranks(ordered: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    first, last = tie_bounds(ordered)
    return (first + last) / 2 + 1
