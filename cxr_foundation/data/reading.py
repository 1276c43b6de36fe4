"""`read`: a published data set's folder, as its owners hand it out, becomes a list of studies.

Each data set has one file in `cxr_foundation/data/readers`, which registers a function with
`reader`. The function gets the folder and the options of the data set and returns studies; it
opens tables, never pictures.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxr_foundation.data.overlaps import identify
from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadIndex, NoImages
from cxr_foundation.registry import Registry, discover

__all__ = ["Reader", "data_sets", "read", "reader", "recognise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """How one data set is read.

    Attributes:
        name: Short name, the `Study.source` of its pictures ("nih").
        title: Name in full, for people.
        recognises: Whether a folder is this data set, by the files that lie in it; None if its
            layout has no mark of its own and it is only read by name.
        read: Takes the folder and keyword options; returns the studies in the table's order.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool] | None
    read: Callable[..., list[Study]]

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the keyword options that `read` takes."""
        return tuple(
            p.name
            for p in inspect.signature(self.read).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        )


_READERS: Registry[Reader] = Registry("data set")
_Function = Callable[..., list[Study]]


def reader(
    name: str, *, title: str, recognises: Callable[[Path], bool] | None
) -> Callable[[_Function], _Function]:
    """Decorator that registers a function `(folder, *, options…) -> list[Study]` under `name`.

    Raises:
        ValueError: `name` is taken.
    """

    def add(function: _Function) -> _Function:
        made = Reader(name=name, title=title, recognises=recognises, read=function)
        _READERS.register(name)(made)
        return function

    return add


@functools.cache
def data_sets() -> Registry[Reader]:
    """Every data set that can be read, by its short name."""
    discover("cxr_foundation.data.readers")
    return _READERS


def recognise(folder: str | os.PathLike[str]) -> list[str]:
    """The names of the data sets whose files lie in a folder, sorted; mostly one or none."""
    folder = Path(folder)
    known = data_sets().values()
    return sorted(r.name for r in known if r.recognises is not None and r.recognises(folder))


def read(folder: str | os.PathLike[str], name: str | None = None, **options: Any) -> list[Study]:
    """Read a data set as it is published.

    Args:
        folder: Where its tables lie.
        name: Its short name, one of `data_sets()`, or another name of it that `data.overlaps`
            knows ("BIMCV", "ChestX-ray14"); None to recognise it by its files.
        options: What its reader takes, as `data_sets()[name].options` lists it: a split, a policy
            for uncertain labels. Readers that go by a table take `missing`: "refuse" (default) or
            "skip" pictures that the table names and that are not in the folder. Those that go
            by the folder alone (Montgomery, Shenzhen, Kermany, …) can miss none and have no
            such option.

    Returns:
        One study per picture, in the table's order. Pictures are not opened. Whether patients are
        on two sides of a published split is not checked here: `check_disjoint` does.

    Raises:
        NoImages: The folder does not exist, or none of its pictures is there.
        BadIndex: No data set is recognised, more than one is, an option is unknown, or a table
            cannot be taken at its word; the subject is "file: line N".
        UnknownName: No data set is called `name`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NoImages(folder, "does not exist" if not folder.exists() else "is not a folder")
    chosen = _called(name) if name is not None else data_sets()[_only(folder)]
    unknown = sorted(set(options) - set(chosen.options))
    if unknown:
        takes = ", ".join(chosen.options) or "none"
        reason = f"the reader of {chosen.title} has no option {unknown[0]!r}"
        raise BadIndex(folder, reason, f"Its options: {takes}.")
    studies = chosen.read(folder, **options)
    if not studies:
        raise NoImages(folder, f"holds no picture of {chosen.title} that its tables name")
    return studies


def _called(name: str) -> Reader:
    """The reader of the data set that a name means."""
    known, meant = data_sets(), identify(name)
    return known[meant.name if name not in known and meant and meant.name in known else name]


def _only(folder: Path) -> str:
    """The one data set that a folder is."""
    found = recognise(folder)
    if len(found) == 1:
        return found[0]
    if found:
        reason = f"looks like {' and like '.join(found)}"
        raise BadIndex(folder, reason, "Name the data set: name=" + repr(found[0]) + ", or …")
    known = ", ".join(sorted(data_sets()))
    raise BadIndex(
        folder,
        "no known data set has its files here",
        f"Name one of {known}, write an index.csv, or name the folder that holds the tables.",
    )
