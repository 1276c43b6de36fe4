"""Kermany 2018: chest radiographs of children, normal, bacterial and viral pneumonia.

Release: https://data.mendeley.com/datasets/rscbjbr9sj (CC BY 4.0), folder chest_xray with
train/{NORMAL,PNEUMONIA} and test/…; pictures are called BACTERIA-1008087-0001.jpeg. The copy on
Kaggle has val/ as well and calls them person1_bacteria_1.jpeg and IM-0115-0001.jpeg. All are
anterior-posterior views of children of one to five years: https://doi.org/10.1016/j.cell.2018.02.010
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.walking import walk
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_SPLITS = ("train", "val", "test")
_FOLDERS = ("NORMAL", "PNEUMONIA")
_NAMES = (
    re.compile(r"(?P<kind>BACTERIA|VIRUS|NORMAL)-(?P<patient>\d+)-\d+"),
    re.compile(r"(?P<patient>person\d+)_(?P<kind>bacteria|virus)_\d+"),
    re.compile(r"(?P<patient>(NORMAL2-)?IM-\d+)-\d+(-\d+)?"),
)
_LABELS = {
    "normal": ("NORMAL",),
    "bacteria": ("PNEUMONIA", "BACTERIA"),
    "virus": ("PNEUMONIA", "VIRUS"),
}


def _root(folder: Path) -> Path:
    nested = folder / "chest_xray"
    return nested if nested.is_dir() else folder


def _is_kermany(folder: Path) -> bool:
    root = _root(folder)
    if not all((root / s / f).is_dir() for s in ("train", "test") for f in _FOLDERS):
        return False
    first = next((root / "train" / "PNEUMONIA").glob("[!.]*.jpeg"), None)
    return first is not None and any(n.fullmatch(first.stem) for n in _NAMES)


@reader("kermany", title="Kermany 2018 (paediatric)", recognises=_is_kermany)
def read(folder: Path) -> list[Study]:
    """Kermany 2018, one study per picture.

    A child's number is in the picture's name. The copy on Kaggle counts from person1 in train and
    in test; nobody says whether the two are one child, so they are taken as one, and its split
    then leaks by `check_disjoint`.

    Raises:
        BadIndex: A picture whose name is not the release's, or contradicts its folder.
    """
    root = _root(folder)
    studies = []
    for split in _SPLITS:
        for kind in _FOLDERS:
            if (root / split / kind).is_dir():
                paths = walk(folder, (root / split / kind).relative_to(folder).as_posix())
                studies += [_study(path, split, kind) for path in paths]
    return studies


def _study(path: Path, split: str, folder: str) -> Study:
    named = next((m for n in _NAMES if (m := n.fullmatch(path.stem))), None)
    if named is None:
        raise BadIndex(path, "is not called as the pictures of this release are")
    kind = named.groupdict().get("kind", "normal").lower()
    if (kind == "normal") != (folder == "NORMAL"):
        raise BadIndex(path, f"its name says {kind}, its folder {folder}")
    patient = pseudonym("kermany", named["patient"])
    return Study(
        path=path,
        labels=frozenset(harmonise(name, "kermany") for name in _LABELS[kind]),
        patient=patient,
        group=patient,
        split=split,
        source="kermany",
        licence="CC BY 4.0",
        view="AP",
        frontal=True,
    )
