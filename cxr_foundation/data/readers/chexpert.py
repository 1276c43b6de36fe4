"""CheXpert (Irvin et al., AAAI 2019, https://arxiv.org/abs/1901.07031), small or full size.

Layout: `train.csv`, `valid.csv`, and where one has it `test.csv` or `test_labels.csv`, whose
column `Path` starts with the folder's published name ("CheXpert-v1.0-small/train/patient00001/
study1/view1_frontal.jpg"). Cells are 1 (present), 0 (absent), -1 (uncertain) or empty (not
mentioned).

A study is labelled as a whole. The published way of scoring takes the maximum over a study's
views and five findings (`COMPETITION`); `evaluate.score_examinations` does so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cxr_foundation.data.findings import harmonise, names
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, columns_of, rows, sex, table_at, years
from cxr_foundation.errors import BadIndex

__all__ = ["COMPETITION", "UNCERTAIN", "read", "stated"]

#: The findings that the CheXpert competition scores (paper).
COMPETITION = ("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion")
#: What to make of a label that is neither present nor absent: the paper's policies by name.
UNCERTAIN = ("keep", "ones", "zeros", "ignore")
_TABLES = {
    "train": ("train.csv",),
    "valid": ("valid.csv",),
    "test": ("test.csv", "test_labels.csv"),
}


def _tables(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part, files in _TABLES.items():
        for table in filter(None, (table_at(folder, name) for name in files)):
            if {"Path", "No Finding", "Enlarged Cardiomediastinum"} <= set(columns_of(table)):
                found.setdefault(part, table)
    return found


@reader("chexpert", title="CheXpert", recognises=lambda folder: bool(_tables(folder)))
def read(
    folder: Path, *, uncertain: str = "keep", blank: str = "unstated", missing: str = "refuse"
) -> list[Study]:
    """Read CheXpert.

    Args:
        folder: Where the tables lie.
        uncertain: What becomes of -1: "keep" as `Study.uncertain`, "ones" (U-Ones: present),
            "zeros" (U-Zeros: absent) or "ignore" (U-Ignore: not stated).
        blank: An empty cell is "unstated", or "absent" as the paper's training has it. In a part
            where a cell of each finding is filled (valid, test) both are the same.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table or an option cannot be taken at its word.
    """
    pictures = Pictures(folder, missing=missing)
    studies = []
    for part, table in _tables(folder).items():
        optional = (*names("chexpert"), "Sex", "Age", "Frontal/Lateral", "AP/PA")
        for row in rows(table, ("Path",), optional=optional):
            inside = row["Path"].split("/")
            if len(inside) < 4:
                raise row.bad(f"{row['Path'][:80]!r} is not …/patient/study/view")
            # Paths begin with the release's own folder name, whatever the folder is called here.
            shorter = "/".join(inside[1:])
            if not os.path.exists(folder / shorter) and os.path.exists(folder / row["Path"]):
                shorter = row["Path"]
            path = pictures.at(row, shorter)
            if path is None:
                continue
            patient = pseudonym("chexpert", inside[-3])
            labels = stated(row, "chexpert", uncertain=uncertain, blank=blank)
            side = row["Frontal/Lateral"] or ("Frontal" if "frontal" in inside[-1] else "Lateral")
            age = years(row, "Age")
            studies.append(
                Study(
                    path=path,
                    labels=labels[1.0],
                    absent=labels[0.0],
                    uncertain=labels[-1.0],
                    patient=patient,
                    group=patient,
                    study=pseudonym("chexpert study", "/".join(inside[-3:-1])),
                    split=part,
                    source="chexpert",
                    view=row["AP/PA"] if side == "Frontal" else "LATERAL",
                    frontal=side == "Frontal",
                    sex=sex(row, "Sex"),
                    # Nobody in the set is under 18: a 0 says that the age is not known.
                    age=age or None,
                )
            )
    return studies


def stated(
    row: Row, data_set: str, *, uncertain: str, blank: str
) -> Mapping[float, frozenset[str]]:
    """A row's findings by what is stated: present under 1, absent under 0, uncertain under -1.

    Raises:
        BadIndex: A cell is not 1, 0, -1 or empty, or an option is not known.
    """
    if uncertain not in UNCERTAIN:
        raise BadIndex(f"uncertain={uncertain!r}", f"is not one of {', '.join(UNCERTAIN)}", "")
    if blank not in ("unstated", "absent"):
        raise BadIndex(f"blank={blank!r}", "is neither 'unstated' nor 'absent'", "")
    found: dict[float, set[str]] = {1.0: set(), 0.0: set(), -1.0: set()}
    becomes = {"keep": -1.0, "ones": 1.0, "zeros": 0.0, "ignore": None}[uncertain]
    for name in names(data_set):
        value = _VALUES.get(row[name], None if row[name] else _BLANK)
        if value is None:
            raise row.bad(f"{name} is {row[name][:20]!r}, not 1, 0, -1 or empty")
        if value == _BLANK:
            value = 0.0 if blank == "absent" else _BLANK
        elif value == -1.0:
            value = _BLANK if becomes is None else becomes
        finding = harmonise(name, data_set)
        # Nobody states that "no finding" is absent: the findings themselves say so.
        if value != _BLANK and not (finding == "no_finding" and value != 1.0):
            found[value].add(finding)
    return {value: frozenset(words) for value, words in found.items()}


_BLANK = 2.0
_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}
