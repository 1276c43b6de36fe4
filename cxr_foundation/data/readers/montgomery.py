"""Montgomery County: tuberculosis screening, 138 radiographs with lung masks.

Release: https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html (NLM-MontgomeryCXRSet.zip). Folder
MontgomerySet with CXR_png/MCUCXR_0001_0.png (last digit: 0 normal, 1 abnormal, tuberculosis),
ClinicalReadings/MCUCXR_0001_0.txt (sex, age, reading) and ManualMask/{leftMask,rightMask}.
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

_NAME = re.compile(r"MCUCXR_(?P<patient>\d+)_(?P<tb>[01])")
_SEX = re.compile(r"Patient's Sex:\s*([MF])\b", re.IGNORECASE)
_AGE = re.compile(r"Patient's Age:\s*(\d{1,3})\s*(Y|M)?\b", re.IGNORECASE)
_LABELS = {
    "0": frozenset({harmonise("normal", "montgomery")}),
    "1": frozenset({harmonise("tuberculosis", "montgomery")}),
}
_MASKS = {"left_lung": "leftMask", "right_lung": "rightMask"}


def _root(folder: Path) -> Path:
    nested = folder / "MontgomerySet"
    return nested if nested.is_dir() else folder


def _is_montgomery(folder: Path) -> bool:
    return next((_root(folder) / "CXR_png").glob("MCUCXR_*.png"), None) is not None


@reader("montgomery", title="Montgomery County (NLM)", recognises=_is_montgomery)
def read(folder: Path) -> list[Study]:
    """The Montgomery set, one study per picture; all are PA views.

    Masks are called as the release calls their folders. Sex and age are taken from a clinical
    reading where there is one; its text goes no further.

    Raises:
        BadIndex: A picture whose name is not the release's.
    """
    root = _root(folder)
    base = root.relative_to(folder)
    masks = {
        name: {p.name: p for p in walk(folder, (base / "ManualMask" / part).as_posix())}
        for name, part in _MASKS.items()
        if (root / "ManualMask" / part).is_dir()
    }
    studies = []
    for path in walk(folder, (base / "CXR_png").as_posix(), {".png"}):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            raise BadIndex(path, "is not called as the pictures of this release are")
        patient = pseudonym("montgomery", name["patient"])
        sex, age = _reading(root / "ClinicalReadings" / f"{path.stem}.txt")
        studies.append(
            Study(
                path=path,
                labels=_LABELS[name["tb"]],
                absent=frozenset() if name["tb"] == "1" else _LABELS["1"],
                patient=patient,
                group=patient,
                source="montgomery",
                view="PA",
                frontal=True,
                sex=sex,
                age=age,
                masks=tuple(
                    Mask(name=organ, shape=MaskFile(path=files[path.name]))
                    for organ, files in masks.items()
                    if path.name in files
                ),
            )
        )
    return studies


def _reading(file: Path) -> tuple[str, float | None]:
    """Sex and age of one clinical reading."""
    if not file.exists():
        return "", None
    text = small_text(file, "latin-1")
    sex, age = _SEX.search(text), _AGE.search(text)
    months = age is not None and (age[2] or "Y").upper() == "M"
    return (
        sex[1].upper() if sex else "",
        int(age[1]) / (12 if months else 1) if age else None,
    )
