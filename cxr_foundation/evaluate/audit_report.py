"""What an audit found, as records, as lines for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from cxr_foundation.evaluate.shortcuts import ShortcutScore

__all__ = ["SCHEMA", "Audit", "DataSummary", "Leak", "Place", "Seen", "Verdict"]

SCHEMA = "cxr_foundation.audit/1"

# A terminal is no place for thousands of lines; JSON has them all.
_SHOWN = 20

Status: TypeAlias = Literal["clean", "leaks", "incomplete", "unknown"]
Verdict: TypeAlias = Literal["seen", "maybe", "unknown", "none"]


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Place:
    """One picture: data set, part of its split (None if it has none), file inside the data set."""

    data: str
    split: str | None
    file: str

    def __str__(self) -> str:
        part = f" [{self.split}]" if self.split is not None else ""
        return f"{self.data}/{self.file}{part}"


@dataclasses.dataclass(frozen=True, slots=True)
class Leak:
    """One patient, or one picture, on more than one side.

    Attributes:
        kind: "patient" or "picture".
        places: For a patient the first picture on each side; for a picture all its copies.
    """

    kind: Literal["patient", "picture"]
    places: tuple[Place, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Whether a checkpoint may have been pretrained on a data set's radiographs.

    Attributes:
        card: Name of the checkpoint.
        source: Short name of the data set, or "".
        verdict: "seen": on radiographs of this set, or of one that shares some with it; "maybe":
            both draw on a third set; "unknown": the card or the data set does not say; "none":
            nothing is recorded. Never a statement about single pictures, which cards do not list.
        reason: In words.
    """

    card: str
    source: str
    verdict: Verdict
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """What was audited: a data set's name, its sources, and how many images each part has."""

    name: str
    sources: tuple[str, ...]
    images: int
    patients: int
    splits: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """All findings.

    Attributes:
        data: The data sets.
        leaks: Patients and pictures on more than one side.
        copies_within: Groups of near-duplicates that stay on one side.
        related: Pairs of data sets that are not external to each other, and why.
        seen: One verdict per checkpoint and source.
        shortcuts: Labels that can be scored without seeing a lung.
        unread: Pictures that could not be read, and why.
        uniform: Pictures without any contrast, which cannot be recognised.
    """

    data: tuple[DataSummary, ...]
    leaks: tuple[Leak, ...]
    copies_within: int
    related: tuple[tuple[str, str], ...]
    seen: tuple[Seen, ...]
    shortcuts: tuple[ShortcutScore, ...]
    unread: tuple[tuple[Place, str], ...]
    uniform: int

    @property
    def status(self) -> Status:
        """The worst finding: leaks before what was not looked at before what cannot be known."""
        if self.leaks or self.related or any(s.verdict in ("seen", "maybe") for s in self.seen):
            return "leaks"
        if self.unread:
            return "incomplete"
        return "unknown" if any(s.verdict == "unknown" for s in self.seen) else "clean"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "data": [dataclasses.asdict(summary) for summary in self.data],
            "leaks": [dataclasses.asdict(leak) for leak in self.leaks],
            "copies_within": self.copies_within,
            "related": [{"data": pair, "reason": reason} for pair, reason in self.related],
            "seen": [dataclasses.asdict(verdict) for verdict in self.seen],
            "shortcuts": [dataclasses.asdict(score) for score in self.shortcuts],
            "unread": [{**dataclasses.asdict(p), "reason": reason} for p, reason in self.unread],
            "uniform": self.uniform,
        }

    def lines(self) -> Iterator[str]:
        """The report for people; long lists are cut."""
        for summary in self.data:
            yield _described(summary)
        for kind in ("patient", "picture"):
            found = [leak for leak in self.leaks if leak.kind == kind]
            yield f"{kind}s on more than one side: {len(found)}"
            yield from _cut([" = ".join(_places(leak.places)) for leak in found])
        if self.copies_within:
            yield f"groups of copies on one side: {self.copies_within}"
        for pair, reason in self.related:
            yield f"not external to each other: {pair}: {reason}"
        for (card, verdict, reason), same in itertools.groupby(
            sorted(self.seen, key=lambda s: (s.card, s.verdict, s.reason)),
            key=lambda s: (s.card, s.verdict, s.reason),
        ):
            sources = ", ".join(s.source or "data of unknown origin" for s in same)
            yield f"{card} and {sources}: {_SAID[verdict]}: {reason}"
        if self.shortcuts:
            yield "AUROC without seeing a lung (5-fold, by patient; 0.5 is chance):"
            yield "  metadata  border  label"
            yield from map(_scored, self.shortcuts)
        if self.uniform:
            yield f"pictures without contrast, not compared: {self.uniform}"
        if self.unread:
            yield f"pictures that could not be read: {len(self.unread)}"
            yield from _cut([f"{place}: {reason}" for place, reason in self.unread])
        yield f"status: {self.status}"


_SAID = {
    "seen": "seen in pretraining",
    "maybe": "perhaps seen in pretraining",
    "unknown": "unknown",
    "none": "no overlap known",
}


def _described(summary: DataSummary) -> str:
    parts = ", ".join(f"{name or 'no split'} {count:,}" for name, count in summary.splits.items())
    return f"{summary.name}: {summary.images:,} images of {summary.patients:,} patients ({parts})"


def _scored(score: ShortcutScore) -> str:
    name = f"{score.source} {score.label}".strip()
    counts = f"({score.positive} and {score.negative} patients)"
    return f"  {score.metadata:8.3f}  {score.border:6.3f}  {name} {counts}"


def _places(places: Sequence[Place]) -> list[str]:
    shown = [str(place) for place in places[:4]]
    return [*shown, f"{len(places) - 4} more"] if len(places) > 4 else shown


def _cut(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN:,} more, all in the output of --json"
