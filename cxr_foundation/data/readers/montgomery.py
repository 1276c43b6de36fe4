"""Montgomery County: tuberculosis screening, 138 radiographs with lung masks.

Release: https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html (NLM-MontgomeryCXRSet.zip). Folder
MontgomerySet with CXR_png/MCUCXR_0001_0.png (last digit: 0 normal, 1 abnormal, tuberculosis),
ClinicalReadings/MCUCXR_0001_0.txt (sex, age, reading) and ManualMask/{leftMask,rightMask}.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.nlm import Release
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, MaskFile, Study

__all__ = ["read"]

_SEX = re.compile(r"Patient's Sex:\s*([MF])\b", re.IGNORECASE)
_AGE = re.compile(r"Patient's Age:\s*(\d{1,3})\s*(Y|M)?\b", re.IGNORECASE)
_MASKS = {"left_lung": "leftMask", "right_lung": "rightMask"}


def _person(text: str) -> tuple[str, float | None]:
    """Sex and age in years of one clinical reading."""
    sex, age = _SEX.search(text), _AGE.search(text)
    months = age is not None and (age[2] or "Y").upper() == "M"
    return (
        sex[1].upper() if sex else "",
        int(age[1]) / (12 if months else 1) if age else None,
    )


_RELEASE = Release(source="montgomery", folder="MontgomerySet", prefix="MCUCXR", person=_person)


@reader("montgomery", title="Montgomery County (NLM)", recognises=_RELEASE.is_in)
def read(folder: Path) -> list[Study]:
    """The Montgomery set, one study per picture; all are PA views.

    Masks are called as the release calls their folders. Sex and age are taken from a clinical
    reading where there is one; its text goes no further.

    Raises:
        BadIndex: A picture whose name is not the release's.
    """
    drawn = {
        organ: {p.name: p for p in _RELEASE.files(folder, f"ManualMask/{part}")}
        for organ, part in _MASKS.items()
    }

    def masks(path: Path) -> tuple[Mask, ...]:
        found = ((organ, files.get(path.name)) for organ, files in drawn.items())
        return tuple(Mask(name=organ, shape=MaskFile(path=file)) for organ, file in found if file)

    return _RELEASE.studies(folder, masks)
