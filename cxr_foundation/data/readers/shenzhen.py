"""Shenzhen Hospital: tuberculosis, 662 radiographs.

Article: https://doi.org/10.3978/j.issn.2223-4292.2014.11.20
Release: https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html (ChinaSet_AllFiles.zip). Folder
ChinaSet_AllFiles with CXR_png/CHNCXR_0001_0.png (last digit: 0 normal, 1 tuberculosis) and
ClinicalReadings/CHNCXR_0001_0.txt («male 45yrs», then the reading). Lung masks of 566 of them are
a release of their own (https://www.kaggle.com/datasets/yoctoman/shcxr-lung-mask, CC BY-NC-SA 4.0):
mask/CHNCXR_0001_0_mask.png, put beside CXR_png.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, MaskFile, Study
from cxr_foundation.data.walking import small_text, walk
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_NAME = re.compile(r"CHNCXR_(?P<patient>\d+)_(?P<tb>[01])")
# The readings are typed by hand: «femal 32yrs», «Female, 28yrs», «male 16month», «female 64days».
_PERSON = re.compile(r"\b(femal|mal)e?\b[\s,]*(?:(\d{1,3})\s*(y|m|d))?", re.IGNORECASE)
_YEARS = {"y": 1.0, "m": 12.0, "d": 365.25}
_LABELS = {
    "0": frozenset({harmonise("normal", "shenzhen")}),
    "1": frozenset({harmonise("tuberculosis", "shenzhen")}),
}
_MASKS = ("mask", "masks")


def _root(folder: Path) -> Path:
    nested = folder / "ChinaSet_AllFiles"
    return nested if nested.is_dir() else folder


def _is_shenzhen(folder: Path) -> bool:
    return next((_root(folder) / "CXR_png").glob("CHNCXR_*.png"), None) is not None


@reader("shenzhen", title="Shenzhen Hospital (NLM)", recognises=_is_shenzhen)
def read(folder: Path) -> list[Study]:
    """The Shenzhen set, one study per picture; all are PA views by the article on it.

    Sex and age are taken from a clinical reading where there is one; its text goes no further.

    Raises:
        BadIndex: A picture whose name is not the release's.
    """
    root = _root(folder)
    base = root.relative_to(folder)
    masks = {
        path.stem.removesuffix("_mask"): path
        for part in _MASKS
        if (root / part).is_dir()
        for path in walk(folder, (base / part).as_posix(), {".png"})
    }
    studies = []
    for path in walk(folder, (base / "CXR_png").as_posix(), {".png"}):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            raise BadIndex(path, "is not called as the pictures of this release are")
        patient = pseudonym("shenzhen", name["patient"])
        sex, age = _reading(root / "ClinicalReadings" / f"{path.stem}.txt")
        mask = masks.get(path.stem)
        studies.append(
            Study(
                path=path,
                labels=_LABELS[name["tb"]],
                absent=frozenset() if name["tb"] == "1" else _LABELS["1"],
                patient=patient,
                group=patient,
                source="shenzhen",
                view="PA",
                frontal=True,
                sex=sex,
                age=age,
                masks=(Mask(name="lungs", shape=MaskFile(path=mask)),) if mask else (),
            )
        )
    return studies


def _reading(file: Path) -> tuple[str, float | None]:
    """Sex and age of one clinical reading; its first line holds them."""
    if not file.exists():
        return "", None
    first = small_text(file, "latin-1").strip().partition("\n")[0]
    person = _PERSON.search(first)
    if person is None:
        return "", None
    age = int(person[2]) / _YEARS[person[3].lower()] if person[2] else None
    return "F" if person[1].lower() == "femal" else "M", age
