"""Percentile bootstrap over patients, paired between rows of a table.

A test set's images are not independent when a patient has several, so patients are resampled, with
all their images. Patients are resampled within strata (positive only, negative only, both classes):
AUROC is a statement within classes, and no resample can lose one. All rows of a table are scored on
the same resamples, so that a difference between two rows is paired.

Where scores come from several draws of training labels, the value of a row is its AUROC averaged
over draws (what one draw is expected to give), never the AUROC of averaged scores (that would be an
ensemble which has seen the labels of all draws). Draws are resampled beside the patients, since
another set of draws would have given another mean; both rows of a pair use the same ones.

In 1,000 simulations each, 95 % intervals of an AUROC of .86 and of a paired difference covered the
truth in 94 % at 40 and 60 patients, and in 95 % at 100 and 200.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cxr_foundation.evaluate.metrics import auroc, binary_labels, finite_scores, tie_bounds

__all__ = ["LEVEL", "RESAMPLES", "Interval", "PatientBootstrap", "paired_bootstrap"]

LEVEL = 0.95
"""Coverage that the intervals aim at."""

RESAMPLES = 2000
"""The limits then move by a standard deviation of .002 to .003 from seed to seed, at 100 patients
and an AUROC of .8."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval.

    Attributes:
        estimate: The value on the data as they are.
        low: 2.5 % percentile of the resamples.
        high: 97.5 % percentile of the resamples.
    """

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: float, resampled: npt.NDArray[np.float64]) -> Interval:
        """The percentile interval of resampled values (B,) around `estimate`."""
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return cls(estimate=float(estimate), low=float(low), high=float(high))


class PatientBootstrap:
    """One set of resamples of a test set's patients and of label draws, shared by all rows.

    Args:
        labels: (N,) of 0 and 1.
        patients: N patient keys; images of one key are resampled together.
        generator: Source of all randomness.
        resamples: Number of resamples, B.

    Raises:
        BadLabels: One class only.
        ValueError: Another number of patients than labels.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        patients: Sequence[str],
        *,
        generator: np.random.Generator,
        resamples: int = RESAMPLES,
    ) -> None:
        self.labels = binary_labels(labels)
        self.resamples = resamples
        if len(patients) != len(self.labels):
            raise ValueError(f"{len(patients)} patients for {len(self.labels)} labels")
        _, member = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        counts = _resample_counts(self.labels, member, generator=generator, resamples=resamples)
        self._weights = counts[member]  # (N, B)
        self._generator = generator
        self._draws: dict[int, npt.NDArray[np.float64]] = {}

    def auroc(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """AUROC in every resample, averaged over the draws of that resample.

        Args:
            scores: (N,), or (D, N) for D draws, or (S, D, N) for S encoders on each of D draws;
                the S are averaged and not resampled.

        Returns:
            float64 (B,) in [0, 1].
        """
        values = finite_scores(scores, len(self.labels))
        values = values.reshape((-1,) * (values.ndim > 2) + values.shape[-2:])
        values = values.reshape(-1, values.shape[-2] if values.ndim > 1 else 1, values.shape[-1])
        draws = values.shape[1]
        share = self._draw_shares(draws)
        total = np.zeros(self.resamples)
        for encoder in values:
            for draw, vector in enumerate(encoder):
                total += share[draw] * weighted_auroc(self.labels, vector, self._weights)
        return total / len(values)

    def interval(self, scores: npt.ArrayLike) -> Interval:
        """AUROC, averaged over draws, with its interval. For `scores` see `auroc`."""
        return Interval.of(float(auroc(self.labels, scores).mean()), self.auroc(scores))

    def difference(self, scores: npt.ArrayLike, other: npt.ArrayLike) -> Interval:
        """AUROC of `scores` minus AUROC of `other`, paired over patients and draws."""
        estimate = auroc(self.labels, scores).mean() - auroc(self.labels, other).mean()
        return Interval.of(float(estimate), self.auroc(scores) - self.auroc(other))

    def _draw_shares(self, draws: int) -> npt.NDArray[np.float64]:
        """(D, B): how much each draw weighs in each resample; columns sum to 1."""
        if draws not in self._draws:
            picked = self._generator.multinomial(
                draws, np.full(draws, 1 / draws), size=self.resamples
            )
            self._draws[draws] = picked.T / draws
        return self._draws[draws]


def paired_bootstrap(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    other: npt.ArrayLike,
    patients: Sequence[str],
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """AUROC of `scores` minus AUROC of `other` with its 95 % interval over patients and draws.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) or (D, N).
        other: Of the same shape, on the same images and draws.
        patients: N patient keys.
        generator: Source of all randomness.
        resamples: Number of resamples.

    Raises:
        BadLabels: One class only.
        ValueError: Shapes that do not fit.
    """
    if np.shape(scores) != np.shape(other):
        raise ValueError(f"scores of shapes {np.shape(scores)} and {np.shape(other)}")
    bootstrap = PatientBootstrap(labels, patients, generator=generator, resamples=resamples)
    return bootstrap.difference(scores, other)


def weighted_auroc(
    labels: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """AUROC where image i counts `weights[i]` times.

    Args:
        labels: (N,), True for positive.
        scores: (N,).
        weights: (N, B), not negative; in each column both classes weigh something.

    Returns:
        float64 (B,) in [0, 1].
    """
    order = np.argsort(scores, kind="stable")
    first, last = tie_bounds(scores[order])
    positive = labels[order]
    ordered = weights[order]
    below = np.zeros((len(scores) + 1, weights.shape[1]))
    np.cumsum(np.where(positive[:, None], 0, ordered), axis=0, out=below[1:])
    # Negatives below a positive count once, tied ones one half.
    beaten = (below[first[positive]] + below[last[positive] + 1]) / 2
    weight = ordered[positive]
    area = (weight * beaten).sum(axis=0) / (weight.sum(axis=0) * below[-1])
    return np.asarray(area, dtype=np.float64)


def _resample_counts(
    labels: npt.NDArray[np.bool_],
    member: npt.NDArray[np.intp],
    *,
    generator: np.random.Generator,
    resamples: int,
) -> npt.NDArray[np.float64]:
    """(P, B): how often each patient is drawn, with replacement within the strata."""
    patients = int(member.max()) + 1
    has_positive = np.bincount(member, weights=labels, minlength=patients) > 0
    has_negative = np.bincount(member, weights=~labels, minlength=patients) > 0
    stratum = 2 * has_positive + has_negative
    counts = np.zeros((patients, resamples))
    for value in np.unique(stratum):
        rows = np.flatnonzero(stratum == value)
        picked = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
        counts[rows] = picked.T
    return counts
