"""The numbers of one task, and their mean over tasks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cxr_foundation.data import Study
from cxr_foundation.evaluate import Interval, PatientBootstrap, auroc, knn_scores, probe_scores
from cxr_foundation.evaluate.protocol import (
    Count,
    Side,
    Task,
    check_patients,
    label_draws,
    select,
)

__all__ = ["Features", "Mode", "Plan", "Scored", "mean_over_tasks", "plan_task", "score_task"]

Mode: TypeAlias = Literal["probe", "knn"]

Features: TypeAlias = Mapping[str, npt.NDArray[np.floating[Any]]]
"""Row of the table → (S, N, D): S encoders (one, or several untrained twins), N studies."""

_Values: TypeAlias = dict[str, dict[Count, npt.NDArray[np.float64]]]

_Classifier: TypeAlias = Callable[
    [npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[np.float64]
]
_CLASSIFIERS: Mapping[str, _Classifier] = {"probe": probe_scores, "knn": knn_scores}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about one task that is settled before a radiograph is read.

    Attributes:
        task: The task.
        train: Images whose labels are drawn.
        test: Images that are scored.
        draws: Per count, arrays of positions in `train`.
    """

    task: Task
    train: Side
    test: Side
    draws: Mapping[Count, Sequence[npt.NDArray[np.int64]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """One task's results.

    Attributes:
        task: The task.
        results: Its part of results.json.
        per_draw: Row → count → AUROC (draws,), averaged over the encoders of the row.
        resampled: Row → count → AUROC (resamples,), averaged over draws and encoders.
    """

    task: Task
    results: Mapping[str, Any]
    per_draw: _Values
    resampled: _Values


def plan_task(
    task: Task,
    studies: Sequence[Study],
    *,
    split_train: str,
    split_test: str,
    counts: Sequence[Count],
    draws: int,
    allow_leaks: bool = False,
) -> Plan:
    """Choose both sides and draw the labels.

    Raises:
        BadIndex: A part of the split is empty.
        BadLabels: One class only, or too few patients for a draw.
        PatientLeak: A patient would be both trained and scored on, and that is not allowed.
    """
    train = select(task, studies, split=split_train)
    test = select(task, studies, split=split_test)
    if not allow_leaks:
        check_patients(task, train, test)
    return Plan(
        task=task,
        train=train,
        test=test,
        draws=label_draws(task, train, counts=counts, draws=draws),
    )


def score_task(
    plan: Plan,
    features: Features,
    place: npt.NDArray[np.int64],
    *,
    mode: Mode,
    resamples: int,
) -> Scored:
    """Score every row on the same draws, and all of them on the same resamples of patients.

    Args:
        plan: The task.
        features: One entry per row of the table, "model" among them.
        place: int64, position in the list of studies → position in `features`.
        mode: How features are classified.
        resamples: Bootstrap resamples.
    """
    seed = bootstrap_seed(plan.task)
    bootstrap = PatientBootstrap(
        plan.test.labels,
        plan.test.patients,
        generator=np.random.default_rng(seed),
        resamples=resamples,
    )
    per_draw: _Values = {row: {} for row in features}
    resampled: _Values = {row: {} for row in features}
    for row, matrices in features.items():
        for count in plan.draws:
            scores = _scores(plan, matrices, place, count=count, mode=mode)
            per_draw[row][count] = auroc(plan.test.labels, scores).mean(axis=0)
            resampled[row][count] = bootstrap.auroc(scores)
    results = {
        **dataclasses.asdict(plan.task),
        "bootstrap_seed": seed,
        "train": plan.train.count(),
        "test": plan.test.count(),
        "draws": _listed(plan),
        **_tables(per_draw, resampled),
    }
    return Scored(task=plan.task, results=results, per_draw=per_draw, resampled=resampled)


def mean_over_tasks(scored: Sequence[Scored]) -> dict[str, Any] | None:
    """The tables of the mean over those tasks that are averaged; None for fewer than two.

    Draw i of the mean is the mean of draw i of every task. Patients are resampled within each task
    on their own: tasks of one mean come from different sources, so they share no patient.
    """
    averaged = [s for s in scored if s.task.averaged]
    if len(averaged) < 2:
        return None
    return _tables(_mean([s.per_draw for s in averaged]), _mean([s.resampled for s in averaged]))


def bootstrap_seed(task: Task) -> int:
    """Seed of the resamples: 32 bits of the digest of the task's name."""
    return int(hashlib.sha256(f"bootstrap\0{task.name}".encode()).hexdigest()[:8], 16)


def _scores(
    plan: Plan,
    matrices: npt.NDArray[np.floating[Any]],
    place: npt.NDArray[np.int64],
    *,
    count: Count,
    mode: Mode,
) -> npt.NDArray[np.float64]:
    """(S, draws, N): a score for each image of the test side."""
    classify = _CLASSIFIERS[mode]
    per_encoder = []
    for matrix in matrices:
        train, test = matrix[place[plan.train.rows]], matrix[place[plan.test.rows]]
        per_encoder.append(
            [classify(test, train[drawn], plan.train.labels[drawn]) for drawn in plan.draws[count]]
        )
    return np.array(per_encoder)


def _tables(per_draw: _Values, resampled: _Values) -> dict[str, Any]:
    rows = {
        row: {str(c): _cell(values, resampled[row][c]) for c, values in cells.items()}
        for row, cells in per_draw.items()
    }
    differences = {
        row: {
            str(c): _difference(
                per_draw["model"][c].mean() - values.mean(),
                resampled["model"][c] - resampled[row][c],
            )
            for c, values in cells.items()
        }
        for row, cells in per_draw.items()
        if row != "model"
    }
    return {"rows": rows, "differences": differences}


def _cell(values: npt.NDArray[np.float64], resampled: npt.NDArray[np.float64]) -> dict[str, Any]:
    interval = Interval.of(float(values.mean()), resampled)
    return {
        "auroc": interval.estimate,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "low": interval.low,
        "high": interval.high,
        "draws": [round(float(v), 6) for v in values],
    }


def _difference(estimate: float, resampled: npt.NDArray[np.float64]) -> dict[str, float]:
    return dataclasses.asdict(Interval.of(float(estimate), resampled))


def _listed(plan: Plan) -> list[dict[str, list[int]]]:
    """Each draw's largest subset, by position in the index; smaller counts are its first ones."""
    numbers = [count for count in plan.draws if count != "all"]
    if not numbers:
        return []
    largest = max(numbers)
    rows = [plan.train.rows[drawn].tolist() for drawn in plan.draws[largest]]
    return [{"positive": r[:largest], "negative": r[largest:]} for r in rows]


def _mean(values: Sequence[_Values]) -> _Values:
    return {
        row: {c: np.mean([v[row][c] for v in values], axis=0) for c in cells}
        for row, cells in values[0].items()
    }
