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

from cxr_foundation.data.nlm import Release
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, MaskFile, Study

__all__ = ["read"]

# The readings are typed by hand: «femal 32yrs», «Female, 28yrs», «male 16month», «female 64days».
_PERSON = re.compile(r"\b(femal|mal)e?\b[\s,]*(?:(\d{1,3})\s*(y|m|d))?", re.IGNORECASE)
_YEARS = {"y": 1.0, "m": 12.0, "d": 365.25}
_MASKS = ("mask", "masks")


def _person(text: str) -> tuple[str, float | None]:
    """Sex and age in years of one clinical reading; its first line holds them."""
    person = _PERSON.search(text.strip().partition("\n")[0])
    if person is None:
        return "", None
    age = int(person[2]) / _YEARS[person[3].lower()] if person[2] else None
    return "F" if person[1].lower() == "femal" else "M", age


_RELEASE = Release(source="shenzhen", folder="ChinaSet_AllFiles", prefix="CHNCXR", person=_person)


@reader("shenzhen", title="Shenzhen Hospital (NLM)", recognises=_RELEASE.is_in)
def read(folder: Path) -> list[Study]:
    """The Shenzhen set, one study per picture; all are PA views by the article on it.

    Sex and age are taken from a clinical reading where there is one; its text goes no further.

    Raises:
        BadIndex: A picture whose name is not the release's.
    """
    drawn = {
        path.stem.removesuffix("_mask"): path
        for part in _MASKS
        for path in _RELEASE.files(folder, part)
    }

    def masks(path: Path) -> tuple[Mask, ...]:
        mask = drawn.get(path.stem)
        return (Mask(name="lungs", shape=MaskFile(path=mask)),) if mask else ()

    return _RELEASE.studies(folder, masks)
