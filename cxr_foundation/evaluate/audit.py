"""`audit`: what makes a score on these radiographs better than it will be on others.

Four questions are asked of one data set or several:

* Is a patient on two sides, of a split or of two data sets?
* Is a radiograph, or a copy of it that was altered, on two sides (`images.likeness`)?
* Is a data set a part of another, or of what a checkpoint was pretrained on (`data.overlaps`)?
* How well are the labels told by metadata or the picture's frame alone (`shortcuts`)?

Files are named, patients never.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cxr_foundation.catalog import Checkpoint, checkpoint, read_card
from cxr_foundation.data import Study
from cxr_foundation.data.opening import open_data
from cxr_foundation.data.overlaps import identify, relation
from cxr_foundation.data.splits import same_patient
from cxr_foundation.errors import ImageError, NoImages, UnknownName
from cxr_foundation.evaluate import shortcuts
from cxr_foundation.evaluate.audit_report import Audit, DataSummary, Leak, Place, Seen, Verdict
from cxr_foundation.evaluate.shortcuts import ShortcutScore
from cxr_foundation.images.likeness import Fingerprint, clusters, fingerprint, near_duplicates

__all__ = ["audit", "copies", "seen_by"]

# Rows of this label were looked at by nobody; that is not the absence of a finding.
_UNLABELLED = "unlabelled"

_Side: TypeAlias = tuple[int, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """What is kept of a picture after it was read once."""

    likeness: Fingerprint
    thumbnail: npt.NDArray[np.float32]
    size: tuple[int, int]


def audit(
    data: Sequence[str | os.PathLike[str]],
    *,
    against: Sequence[str] = (),
    score_shortcuts: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> Audit:
    """Look for leaks in data sets, between them, and to what checkpoints were pretrained on.

    Args:
        data: Folders or index files; see `data.opening.open_data`.
        against: Names in the catalogue, or folders with a card.
        score_shortcuts: Whether to score labels by metadata and border alone. Pictures of a split
            named "test" are left out of that.
        workers: Threads that read pictures; None takes one per core, at most 8.
        progress: Show a bar.

    Raises:
        DataError: Nothing to read, or a table that cannot be taken at its word. A patient on two
            sides is no error here but a finding.
        UnknownName: No card of that name.
        CardError: A card that breaks the schema.
        MissingExtra: scikit-learn is not installed and shortcuts are to be scored.
    """
    if not data:
        raise NoImages("data", "no data set is named", "Name a folder or an index.csv.")
    cards = [_card(name) for name in against]
    names = _names(data)
    sets = [list(open_data(path, disjoint=False)) for path in data]
    studies = [study for one in sets for study in one]
    sides: list[_Side] = [(i, study.split) for i, one in enumerate(sets) for study in one]
    roots = [Path(path) if Path(path).is_dir() else Path(path).parent for path in data]
    places = [
        Place(names[side[0]], side[1], _file(study.path, roots[side[0]]))
        for study, side in zip(studies, sides, strict=True)
    ]
    looks = _looks(studies, workers=workers, progress=progress)
    prints = [look.likeness if isinstance(look, _Look) else _NOTHING for look in looks]
    groups = copies(prints)
    leaking = [group for group in groups if _crosses([sides[i] for i in group])]
    leaks = [
        *(Leak("patient", tuple(places[i] for i in g)) for g in _patients(studies, sides)),
        *(Leak("picture", tuple(places[i] for i in group)) for group in leaking),
    ]
    return Audit(
        data=tuple(
            DataSummary(
                name=names[i],
                sources=tuple(sorted({study.source for study in one})),
                images=len(one),
                patients=len({same_patient(study.patient) for study in one}),
                splits=dict(sorted(collections.Counter(s.split or "" for s in one).items())),
            )
            for i, one in enumerate(sets)
        ),
        leaks=tuple(leaks),
        copies_within=len(groups) - len(leaking),
        related=tuple(_related(names, sets)),
        seen=tuple(
            verdict for card in cards for verdict in seen_by(card, {s.source for s in studies})
        ),
        shortcuts=tuple(_shortcut_scores(studies, looks)) if score_shortcuts else (),
        unread=tuple(
            (place, look)
            for place, look in zip(places, looks, strict=True)
            if not isinstance(look, _Look)
        ),
        uniform=sum(isinstance(k, _Look) and not len(k.likeness.signs) for k in looks),
    )


def copies(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups of pictures that show one radiograph.

    Args:
        prints: N fingerprints.

    Returns:
        Lists of positions, each of two or more, in ascending order.
    """
    return clusters(len(prints), ((p.first, p.second) for p in near_duplicates(prints)))


def seen_by(card: Checkpoint | None, sources: set[str], *, name: str = "") -> Iterator[Seen]:
    """Whether a checkpoint may have been pretrained on radiographs of data sets, by its card.

    Args:
        card: The checkpoint; None if it has no card.
        sources: Short names of the data sets (`Study.source`); "" is an unknown one.
        name: Of a checkpoint without a card.
    """
    for source in sorted(sources):
        if card is None:
            yield Seen(name, source, "unknown", "it has no card of the catalogue")
        else:
            yield Seen(card.name, source, *_verdict(source, card))


def _verdict(source: str, card: Checkpoint) -> tuple[Verdict, str]:
    trained = [(name, identify(name)) for name in card.training.data]
    data_set = identify(source)
    if data_set is None:
        what = f"{source!r} is in no table of data sets" if source else "their data set is not said"
        return "unknown", what
    maybe = ""
    for _, other in trained:
        found = relation(data_set, other) if other is not None else None
        if other is None or found is None:
            continue
        if found.kind == "same":
            return "seen", f"it was pretrained on radiographs of {other.title}"
        if found.kind != "common":
            return "seen", f"it was pretrained on {other.title}: {found.reason}"
        maybe = maybe or found.reason
    if data_set in map(identify, card.training.overlaps):
        return "maybe", f"its card names {data_set.title} among the sets that it may have seen"
    if maybe:
        return "maybe", maybe
    unknown = [name for name, other in trained if other is None]
    if unknown or not trained:
        reason = card.unknown.get("training.data", "its card names no data set")
        return "unknown", f"{unknown[0]!r} cannot be compared" if unknown else reason
    return "none", "nothing is recorded"


def _card(name: str) -> Checkpoint:
    path = Path(name)
    if not path.exists():
        return checkpoint(name)
    found = read_card(path / "README.md" if path.is_dir() else path)
    if not isinstance(found, Checkpoint):
        raise UnknownName(name, "its card has no key cxr_foundation, so nothing can be compared")
    return found


def _names(data: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A short name for each data set; the whole path where two would have one name."""
    short = [Path(path).resolve().name for path in data]
    names = [n if short.count(n) == 1 else os.fspath(p) for n, p in zip(short, data, strict=True)]
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]


def _file(path: Path, root: Path) -> str:
    for folder in (root, root.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def _crosses(sides: Sequence[_Side]) -> bool:
    """Whether pictures are in two data sets, or in two parts of one data set's split."""
    if len({data for data, _ in sides}) > 1:
        return True
    return len({split for _, split in sides if split is not None}) > 1


def _patients(studies: Sequence[Study], sides: Sequence[_Side]) -> list[list[int]]:
    """Groups of pictures of one patient on two sides: the first picture of each side.

    Identifiers of two data sets mean one patient only if both sets are the same one, or related,
    or both unnamed; and a file's stem, which stands in where nobody said who it is, never does.
    """
    first: dict[tuple[str, str, str], int] = {}
    pairs = []
    for i, (study, side) in enumerate(zip(studies, sides, strict=True)):
        known = identify(study.source)
        family = known.name if known is not None else study.source
        for kind, name in (("patient", study.patient), ("group", study.group)):
            key = same_patient(name)
            pairs.append((first.setdefault((kind, str(side[0]), key), i), i))
            if key != same_patient(study.path.stem):
                pairs.append((first.setdefault((kind, f"\0{family}", key), i), i))
    found = []
    for members in clusters(len(studies), pairs):
        if _crosses([sides[i] for i in members]):
            each = {sides[i]: i for i in reversed(members)}
            found.append(sorted(each.values()))
    return found


def _related(names: Sequence[str], sets: Sequence[Sequence[Study]]) -> Iterator[tuple[str, str]]:
    """Pairs of data sets that are not external to each other, and why."""
    sources = [sorted({s.source for s in one}) for one in sets]
    for i, j in itertools.combinations(range(len(sets)), 2):
        for one, other in itertools.product(sources[i], sources[j]):
            first, second = identify(one), identify(other)
            found = relation(first, second) if first and second else None
            if found is not None:
                yield f"{names[i]} and {names[j]}", found.reason


def _looks(studies: Sequence[Study], *, workers: int | None, progress: bool) -> list[_Look | str]:
    """Each picture, read once; for one that cannot be read, the reason."""
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(_look, (study.pixels for study in studies))
        return list(tqdm(found, total=len(studies), desc="pictures", disable=not progress))


def _look(pixels: Callable[[], npt.NDArray[np.float32]]) -> _Look | str:
    try:
        image = pixels()
    except (ImageError, OSError) as error:
        return error.reason if isinstance(error, ImageError) else "the file cannot be read"
    high, wide = image.shape
    return _Look(fingerprint(image), shortcuts.thumbnails([image])[0], (wide, high))


def _shortcut_scores(
    studies: Sequence[Study], looks: Sequence[_Look | str]
) -> Iterator[ShortcutScore]:
    """Every label of every source that enough patients have and lack."""
    rows = [i for i, k in enumerate(looks) if isinstance(k, _Look) and studies[i].split != "test"]
    for source in sorted({studies[i].source for i in rows}):
        here = [i for i in rows if studies[i].source == source]
        stated = sorted({label for i in here for label in studies[i].labels} - {_UNLABELLED})
        for label in stated:
            yield from _scored(label, source, [i for i in here if _told(studies[i], label)],
                               studies, looks)  # fmt: skip


def _told(study: Study, label: str) -> bool:
    """Whether a study says if it has the finding: by name, or by having other findings."""
    if _UNLABELLED in study.labels or label in study.uncertain:
        return False
    if label in study.labels or label in study.absent:
        return True
    return not study.absent and bool(study.labels)


def _scored(
    label: str,
    source: str,
    rows: Sequence[int],
    studies: Sequence[Study],
    looks: Sequence[_Look | str],
) -> Iterator[ShortcutScore]:
    chosen = [(studies[i], look) for i in rows if isinstance(look := looks[i], _Look)]
    labels = np.array([label in study.labels for study, _ in chosen], dtype=bool)
    patients = [same_patient(study.group) for study, _ in chosen]
    positive = {p for p, value in zip(patients, labels, strict=True) if value}
    negative = {p for p, value in zip(patients, labels, strict=True) if not value}
    if min(len(positive), len(negative)) < shortcuts.FEWEST:
        return
    small = np.stack([look.thumbnail for _, look in chosen])
    known = shortcuts.metadata(
        sizes=[study.original_size or look.size for study, look in chosen],
        views=[study.view for study, _ in chosen],
        sexes=[study.sex for study, _ in chosen],
        ages=[study.age for study, _ in chosen],
    )
    features: dict[str, npt.NDArray[np.floating]] = {
        "metadata": known,
        "border": shortcuts.border(small),
    }
    found = shortcuts.shortcut_scores(labels, patients, features)
    if found is not None:
        yield ShortcutScore(
            source=source,
            label=label,
            positive=len(positive),
            negative=len(negative),
            metadata=found["metadata"],
            border=found["border"],
        )


_NOTHING = Fingerprint(np.zeros((0, 121), np.int8), np.zeros((0, 48, 48), np.int8))
