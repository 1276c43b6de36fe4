"""Who is labelled, who is scored: tasks, patient-disjoint sides and nested label draws.

The draws depend on nothing but the task's name and the data, so every encoder, shortcut and later
run sees the same ones. They are ordered by SHA-256 instead of a random generator: the order is the
same on every machine and version, and a new patient moves no other patient.

In one draw each patient gives one image (the one with the smallest digest) and with it one label;
"k labelled patients per class" are the first k patients of each class in the order of their
digests. So 5 ⊂ 10 ⊂ 20 ⊂ 50, all are patients and none is counted twice. "all" takes every image
of every patient; it contains all draws, and there is only one such set.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from cxr_foundation.data import Study, by_split
from cxr_foundation.data.splits import same_patient
from cxr_foundation.errors import BadLabels, PatientLeak, RecipeError

__all__ = [
    "COUNTS",
    "DRAWS",
    "Count",
    "Side",
    "Task",
    "check_patients",
    "label_draws",
    "parse_counts",
    "read_tasks",
    "select",
    "single_task",
    "standing_tasks",
]

Count: TypeAlias = int | Literal["all"]

COUNTS: tuple[Count, ...] = (5, 10, 20, 50, "all")
"""Labelled patients per class."""

DRAWS = 20
"""Draws of labelled patients per count."""

# Rows of this label were looked at by nobody; that is not the absence of a finding.
_UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Two labels to tell apart within one source.

    Attributes:
        name: Seeds the label draws: another name gives other draws.
        title: For the reader of a report.
        source: Prefix of the data set that the rows are taken from; None takes all rows.
        positive: Label of the positive class.
        negative: Label of the negative class; None for images whose index states that the positive
            finding is absent (a 0 in its column).
        averaged: Whether the task enters the mean over tasks.
        note: What a reader has to know about the task, or an empty string.
    """

    name: str
    title: str
    source: str | None
    positive: str
    negative: str | None
    averaged: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        for key, optional in (
            ("name", False),
            ("title", False),
            ("source", True),
            ("positive", False),
            ("negative", True),
        ):
            value = getattr(self, key)
            if not (optional and value is None) and (not isinstance(value, str) or not value):
                raise RecipeError(f"task: {key}", f"{value!r} is not a word")
        if not isinstance(self.averaged, bool) or not isinstance(self.note, str):
            raise RecipeError(f"task: {self.name}", "averaged is true or false, note is a text")
        if self.positive == self.negative:
            raise RecipeError(f"task: {self.name}", f"both classes are {self.positive!r}")
        if _UNLABELLED in (self.positive, self.negative):
            raise RecipeError(f"task: {self.name}", "unlabelled rows are no class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """The labelled images of one task in one part of the split.

    Attributes:
        rows: int64 (N,), positions in the list of studies.
        labels: bool (N,), True for the positive class.
        patients: N patient keys: the groups that the data are split by.
        files: N file names; with the patient they identify an image.
        ambiguous: How many images carry both labels and were left out.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.bool_]
    patients: tuple[str, ...]
    files: tuple[str, ...]
    ambiguous: int

    def count(self) -> dict[str, int]:
        """Images and patients per class; a patient who carries both counts in both."""
        keys = np.asarray(self.patients, dtype=object)
        return {
            "images": len(self.rows),
            "patients": len(set(self.patients)),
            "positive_images": int(self.labels.sum()),
            "negative_images": int((~self.labels).sum()),
            "positive_patients": len(set(keys[self.labels])),
            "negative_patients": len(set(keys[~self.labels])),
            "ambiguous_images_left_out": self.ambiguous,
        }


def parse_counts(text: str) -> tuple[Count, ...]:
    """The text "5,10,all" as (5, 10, "all").

    Raises:
        RecipeError: A part is neither a whole number nor "all".
    """
    counts: list[Count] = []
    for part in (part.strip() for part in text.split(",")):
        if part != "all" and not (part.isascii() and part.isdigit()):
            raise RecipeError("counts", f"{part!r} is neither a number nor 'all'", "5,10,20,all")
        counts.append("all" if part == "all" else int(part))
    return tuple(counts)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """Tasks of a YAML file: a list under the key `tasks`, each with the fields of `Task`.

    Raises:
        RecipeError: It cannot be read, or a key or value is wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = f"cannot be read as YAML ({type(error).__name__})"
        raise RecipeError(path, reason) from error
    if not isinstance(raw, Mapping) or set(raw) != {"tasks"} or not isinstance(raw["tasks"], list):
        raise RecipeError(path, "is not a list of tasks under the one key 'tasks'")
    tasks = tuple(_task(path, entry) for entry in raw["tasks"])
    if not tasks:
        raise RecipeError(path, "names no task")
    if len({task.name for task in tasks}) < len(tasks):
        raise RecipeError(path, "two tasks have one name")
    return tasks


def standing_tasks() -> tuple[Task, ...]:
    """The tasks that every encoder is compared on."""
    recipe = importlib.resources.files("cxr_foundation.recipes") / "standing.yaml"
    with importlib.resources.as_file(recipe) as path:
        return read_tasks(path)


def single_task(
    positive: str | None, negative: str | None = None, source: str | None = None
) -> tuple[Task, ...]:
    """The one task of a user's own labels, for `run`'s `tasks`.

    Args:
        positive: Label of the positive class.
        negative: Label of the negative class; None takes images that state the positive finding as
            absent (a 0 in its column).
        source: Only rows of this source; None takes all.

    Raises:
        RecipeError: No positive label, or both are one.
    """
    if positive is None:
        raise RecipeError("positive", "no label is given", "Name one: --positive LABEL.")
    against = f"no {positive}" if negative is None else negative
    place = f"{source}: " if source else ""
    return (
        Task(
            name="-".join(filter(None, (source, positive, negative))),
            title=f"{place}{positive} or {against}",
            source=source,
            positive=positive,
            negative=negative,
        ),
    )


def select(task: Task, studies: Sequence[Study], *, split: str) -> Side:
    """The images of one part of the split that carry exactly one of the task's two labels.

    Raises:
        BadIndex: No such part, or no study is in it.
        BadLabels: Not both classes are there.
    """
    part = by_split(studies, split)
    chosen, ambiguous = [], 0
    for row, study in enumerate(studies):
        if study.split != split or task.source not in (None, study.source):
            continue
        positive, negative = _carries(task, study)
        if positive and negative:
            ambiguous += 1
        elif positive or negative:
            chosen.append(row)
    labels = np.array([task.positive in studies[row].labels for row in chosen], dtype=bool)
    for name, there in zip(_class_names(task), (labels.any(), (~labels).any()), strict=True):
        if not there:
            place = f" of source {task.source!r}" if task.source else ""
            reason = f"no image{place} in split {split!r} is labelled {name}"
            raise BadLabels(f"task {task.name!r}", reason, _labels_there(part))
    return Side(
        rows=np.array(chosen, dtype=np.int64),
        labels=labels,
        patients=tuple(same_patient(studies[row].group) for row in chosen),
        files=tuple(studies[row].path.name for row in chosen),
        ambiguous=ambiguous,
    )


def check_patients(task: Task, train: Side, test: Side) -> None:
    """No patient is on both sides.

    Raises:
        PatientLeak: One is.
    """
    shared = sorted(set(train.patients) & set(test.patients))
    if shared:
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        reason = f"patient {shared[0]!r}{more} would be both trained and scored on"
        raise PatientLeak(f"task {task.name!r}", reason)


def label_draws(
    task: Task, side: Side, *, counts: Sequence[Count] = COUNTS, draws: int = DRAWS
) -> dict[Count, list[npt.NDArray[np.int64]]]:
    """Which images are labelled, per count and draw.

    Returns:
        For each count a list of int64 arrays of positions in `side`: `draws` arrays of 2 * count
        (positives first, each class in its order), or for "all" one array with every position.

    Raises:
        BadLabels: A class has too few patients for a draw.
    """
    numbers = [count for count in counts if count != "all"]
    chosen: dict[Count, list[npt.NDArray[np.int64]]] = {count: [] for count in counts}
    if numbers:
        orders = [_patients_in_order(task.name, draw, side) for draw in range(draws)]
        _check_enough(task, orders, largest=max(numbers))
        for positives, negatives in orders:
            for count in numbers:
                chosen[count].append(np.concatenate([positives[:count], negatives[:count]]))
    if "all" in chosen:
        chosen["all"] = [np.arange(len(side.rows), dtype=np.int64)]
    return chosen


_Order: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _patients_in_order(name: str, draw: int, side: Side) -> _Order:
    """One position per patient in the order of this draw: of positive and of negative ones."""
    best: dict[str, tuple[str, int]] = {}
    for position, (patient, file) in enumerate(zip(side.patients, side.files, strict=True)):
        key = (_digest(name, draw, patient, file), position)
        best[patient] = min(best.get(patient, key), key)
    ranked = sorted(best, key=lambda patient: _digest(name, draw, patient))
    order = np.array([best[patient][1] for patient in ranked], dtype=np.int64)
    return order[side.labels[order]], order[~side.labels[order]]


def _check_enough(task: Task, orders: Sequence[_Order], *, largest: int) -> None:
    for index, name in enumerate(_class_names(task)):
        fewest = min(len(order[index]) for order in orders)
        if fewest < largest:
            reason = f"{largest} labelled patients per class are asked for, {name} has {fewest}"
            remedy = f"Ask for at most {fewest} labelled patients per class, or for all."
            raise BadLabels(f"task {task.name!r}", reason, remedy)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _carries(task: Task, study: Study) -> tuple[bool, bool]:
    """Whether a study is stated to be positive, and negative; neither for an unlabelled one."""
    if _UNLABELLED in study.labels:
        return False, False
    if task.negative is None:
        return task.positive in study.labels, task.positive in study.absent
    return task.positive in study.labels, task.negative in study.labels


def _class_names(task: Task) -> tuple[str, str]:
    absent = f"without {task.positive!r}"
    return repr(task.positive), absent if task.negative is None else repr(task.negative)


def _labels_there(part: Sequence[Study]) -> str:
    found = sorted({label for study in part for label in study.labels})
    shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    return f"Labels there: {shown or 'none'}."


def _task(path: Path, entry: Any) -> Task:
    names = {field.name for field in dataclasses.fields(Task)}
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        raise RecipeError(path, f"{entry!r:.60} is not a task")
    unknown, missing = set(entry) - names, names - {"averaged", "note"} - set(entry)
    for key in sorted(unknown):
        raise RecipeError(f"{path}: {key}", "unknown key of a task")
    for key in sorted(missing):
        raise RecipeError(f"{path}: {key}", "missing in a task")
    return Task(**entry)
