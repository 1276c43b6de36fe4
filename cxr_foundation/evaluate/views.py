"""Scores of examinations with several views: the maximum over views, as CheXpert is scored.

Irvin et al., AAAI 2019, https://arxiv.org/abs/1901.07031: a study's probability of a finding is the
maximum over its views, and the mean is over five findings (`data.readers.chexpert.COMPETITION`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import BadLabels
from cxr_foundation.evaluate.metrics import auroc, finite_scores

__all__ = ["FindingScore", "mean_auroc", "over_views", "score_examinations"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindingScore:
    """How well one finding is told, over examinations in which it is stated.

    Attributes:
        finding: Its name.
        auroc: Area under the curve in [0, 1]; None with a reason if it cannot be given.
        positives: Examinations that have it.
        negatives: Examinations that do not.
        reason: Why there is no figure, or "".
    """

    finding: str
    auroc: float | None
    positives: int
    negatives: int
    reason: str = ""


def over_views(
    examinations: Sequence[str], scores: npt.ArrayLike
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The maximum of each score over an examination's views.

    Args:
        examinations: (N,) name of the examination that a view is of.
        scores: (N, F), finite.

    Returns:
        The S examinations in the order of their first view, and float64 (S, F).

    Raises:
        ValueError: Other shapes, or a score that is not finite.
    """
    values = _columns(scores, len(examinations))
    order = list(dict.fromkeys(examinations))
    rows = {name: row for row, name in enumerate(order)}
    best = np.full((len(order), values.shape[1]), -np.inf)
    np.maximum.at(best, [rows[name] for name in examinations], values)
    return order, best


def score_examinations(
    examinations: Sequence[str],
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    findings: Sequence[str],
    *,
    fewest: int = 10,
) -> list[FindingScore]:
    """AUROC per finding over examinations, from scores of single views.

    Args:
        examinations: (N,) name of the examination that a view is of.
        scores: (N, F), finite.
        truth: (N, F) of 1 (present), 0 (absent) and nan (not stated).
        findings: (F,) names.
        fewest: With fewer positives or negatives no figure is given: it would be chance.

    Raises:
        BadLabels: Two views of one examination are labelled differently.
        ValueError: Other shapes, or a score that is not finite.
    """
    order, best = over_views(examinations, scores)
    stated = np.asarray(truth, dtype=np.float64)
    if stated.shape != (len(examinations), len(findings)) or best.shape[1] != len(findings):
        raise ValueError(f"{stated.shape} labels for {len(findings)} findings")
    first: dict[str, npt.NDArray[np.float64]] = {}
    for name, row in zip(examinations, stated, strict=True):
        if not np.array_equal(first.setdefault(name, row), row, equal_nan=True):
            raise BadLabels("an examination", "two of its views are labelled differently", "")
    labels = np.array([first[name] for name in order]).reshape(len(order), len(findings))
    return [
        _finding(finding, best[:, column], labels[:, column], fewest)
        for column, finding in enumerate(findings)
    ]


def mean_auroc(scored: Sequence[FindingScore]) -> float | None:
    """The mean over findings; None if one of them has no figure, so that means compare."""
    areas = [s.auroc for s in scored if s.auroc is not None]
    return sum(areas) / len(areas) if areas and len(areas) == len(scored) else None


def _finding(
    finding: str,
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.float64],
    fewest: int,
) -> FindingScore:
    there = ~np.isnan(labels)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    area, reason = None, ""
    if positives + negatives != int(there.sum()):
        raise ValueError(f"the labels of {finding} are not 0, 1 or nan")
    if min(positives, negatives) < max(fewest, 1):
        side = "positives" if positives < max(fewest, 1) else "negatives"
        reason = f"{min(positives, negatives)} {side}, fewer than {max(fewest, 1)}"
    else:
        area = float(auroc(labels[there], scores[there]))
    return FindingScore(
        finding=finding, auroc=area, positives=positives, negatives=negatives, reason=reason
    )


def _columns(scores: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"scores of shape {values.shape}, not (N, F)")
    return finite_scores(values.T, count).T
