"""One vocabulary for the findings of all data sets: `harmonise`.

The table is `findings.csv` beside this file: data set, the name it uses, our word. Anyone can read
it, and a data set is added to it by adding rows. Words of different meaning stay apart even where
others merge them: "no_finding" (nothing of a data set's list is stated) is not "normal" (a reader
said so), "nodule_or_mass" is neither "nodule" nor "mass", "lung_opacity" is not "pneumonia".

A row whose name is "*" says that the data set's list is open (a report's terms): a name that is
not in the table becomes its own words in snake case. All other lists are closed, and a name that
is not in them is refused.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row
from cxr_foundation.errors import BadIndex
from cxr_foundation.registry import closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["finding_in", "findings_of", "harmonise", "markdown", "names", "truth"]

_ANY = "*"
_TITLE = """# Findings and what data sets call them

Made from `cxr_foundation/data/findings.csv` by `python -m cxr_foundation.data.findings`. Lists of
PadChest, BIMCV-COVID19, covid-chestxray and VinDr-PCXR are open: their other terms become words in
snake case.
"""


@functools.lru_cache(maxsize=4096)
def harmonise(name: str, data_set: str) -> str:
    """The common word for what one data set calls a finding.

    Args:
        name: As the data set writes it; case and surrounding space do not count.
        data_set: Short name of the data set, as in `data.data_sets()`.

    Raises:
        BadIndex: The data set is not in the table, or its list is closed and has no such name.
    """
    table = _of(data_set)
    found = table.get(_folded(name))
    if found is not None:
        return found
    snake = re.sub(r"[^a-z0-9]+", "_", _folded(name)).strip("_")
    if _ANY not in table or not snake:
        hint = closest(name, names(data_set)) or "findings.csv lists what is known."
        raise BadIndex(f"{name[:60]!r}", f"no finding of {data_set} has this name", hint)
    return snake


def finding_in(row: Row, name: str, data_set: str) -> str:
    """`harmonise` for a name in a row of a table.

    Raises:
        BadIndex: As `harmonise`; names the row.
    """
    try:
        return harmonise(name, data_set)
    except BadIndex as error:
        raise row.bad(f"{error.subject}: {error.reason}", error.remedy) from None


@functools.cache
def names(data_set: str) -> tuple[str, ...]:
    """What a data set calls its findings, in the table's order, without "*"."""
    return tuple(name for owner, name, _ in _rows() if owner == data_set and name != _ANY)


def findings_of(data_set: str) -> frozenset[str]:
    """The common words for a data set's findings, without "normal" and "no_finding"."""
    words = set(_of(data_set).values()) - {_ANY, "normal", "no_finding"}
    return frozenset(words)


def truth(studies: Sequence[Study], findings: Sequence[str]) -> NDArray[np.float32]:
    """What is stated about some findings, float32 (N, F): 1 present, 0 absent, nan neither."""
    import numpy as np

    stated = np.full((len(studies), len(findings)), np.nan, dtype=np.float32)
    for row, study in enumerate(studies):
        for column, finding in enumerate(findings):
            if finding in study.labels:
                stated[row, column] = 1
            elif finding in study.absent:
                stated[row, column] = 0
    return stated


def markdown() -> str:
    """The table as Markdown: a row per finding, with every data set's names for it."""
    called: dict[str, dict[str, list[str]]] = {}
    for owner, name, finding in sorted(_rows(), key=lambda row: row[0]):
        if name != _ANY:
            called.setdefault(finding, {}).setdefault(owner, []).append(name)
    lines = [_TITLE, "| finding | what data sets call it |", "|---|---|"]
    for finding, owners in sorted(called.items()):
        told = "; ".join(f"{owner}: {', '.join(theirs)}" for owner, theirs in owners.items())
        lines.append(f"| {finding} | {told} |")
    return "\n".join(lines) + "\n"


@functools.cache
def _rows() -> list[tuple[str, str, str]]:
    text = (importlib.resources.files("cxr_foundation.data") / "findings.csv").read_text("utf-8")
    header, *rows = csv.reader(text.splitlines())
    if header != ["data_set", "name", "finding"]:
        raise BadIndex("findings.csv", "its columns are not data_set, name and finding")
    return [(owner, name, finding) for owner, name, finding in rows]


@functools.cache
def _of(data_set: str) -> dict[str, str]:
    table = {_folded(name): finding for owner, name, finding in _rows() if owner == data_set}
    if not table:
        known = ", ".join(sorted({owner for owner, _, _ in _rows()}))
        raise BadIndex(f"{data_set[:60]!r}", "has no rows in findings.csv", f"There are {known}.")
    return table


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


if __name__ == "__main__":
    # python -m cxr_foundation.data.findings > docs/findings.md
    print(markdown(), end="")
