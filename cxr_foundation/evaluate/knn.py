"""Weighted nearest-neighbour classification by cosine similarity: no parameter is fitted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_foundation.evaluate.features import standardise
from cxr_foundation.evaluate.metrics import binary_labels

__all__ = ["NEIGHBOURS", "TEMPERATURE", "knn_scores"]

# https://github.com/facebookresearch/dino/blob/04c0ad957c9fd04cced6d703668bc049586d1d21/eval_knn.py
# (`--temperature` default; `--nb_knn`: "20 is usually working the best"), after Wu et al. 2018,
# https://arxiv.org/abs/1805.01978.
TEMPERATURE = 0.07
NEIGHBOURS = 20


def knn_scores(
    features: npt.ArrayLike,
    train_features: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> npt.NDArray[np.float64]:
    """Share of the votes of the nearest training images that are positive.

    A neighbour of cosine similarity s votes with weight exp(s / temperature). Before that features
    are standardised by the training rows (unlike the sources of the two constants), so that
    columns of different units, such as metadata, can be compared at all.

    Args:
        features: (N, D), images to score.
        train_features: (M, D).
        train_labels: (M,) of 0 and 1.
        neighbours: How many vote; all M where there are fewer.
        temperature: Above 0; smaller trusts the nearest more.

    Returns:
        float64 (N,) in [0, 1].

    Raises:
        BadLabels: One class only among the training labels.
    """
    positive = binary_labels(train_labels)
    train, other = standardise(train_features, features)
    similarity = _unit(other) @ _unit(train).T
    count = min(neighbours, len(positive))
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    near = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.exp((near - near[:, :1]) / temperature)
    share = (votes * positive[nearest]).sum(axis=1) / votes.sum(axis=1)
    return np.asarray(share, dtype=np.float64)


def _unit(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(array, axis=1, keepdims=True)
    # A zero vector has no direction; it is equally far from all.
    return np.asarray(array / np.where(length > 0, length, 1))
