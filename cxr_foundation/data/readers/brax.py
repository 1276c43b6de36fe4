"""BRAX: 40,967 radiographs of a hospital in São Paulo, labelled as CheXpert is.

Release: https://physionet.org/content/brax/1.1.0/ (credentialed). master_spreadsheet_update.csv
(1.0.0: master_spreadsheet.csv) with PngPath (images/id_…/Study_…/Series_…/image-….png) and
DicomPath (Anonymized_DICOMs/…). Ages are groups of five years, the last "85 or more". The release
has no split. A dozen pictures are thin strips of 19:1 and more, as torchxrayvision's reader found.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.findings import names
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.readers.chexpert import stated
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, columns_of, number, rows, sex
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
_COLUMNS = {"png": "PngPath", "dicom": "DicomPath"}
_NEEDED = ("PatientID", "ViewPosition", "No Finding")
# Decubitus and oblique views are neither.
_FRONTAL = {"PA": True, "AP": True, "L": False, "RL": False, "LL": False, "LATERAL": False}


def _table(folder: Path) -> Path | None:
    columns = {*_NEEDED, "PngPath"}
    tables = (folder / name for name in _TABLES)
    return next((t for t in tables if columns <= set(columns_of(t))), None)


@reader("brax", title="BRAX", recognises=lambda folder: _table(folder) is not None)
def read(
    folder: Path,
    *,
    pictures: str = "png",
    uncertain: str = "keep",
    blank: str = "unstated",
    missing: str = "refuse",
) -> list[Study]:
    """BRAX, one study per picture.

    Args:
        folder: Where the spreadsheet lies.
        pictures: "png" (8 bits) or "dicom".
        uncertain: What becomes of -1, as for CheXpert.
        blank: What an empty cell says, as for CheXpert.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: No spreadsheet, or one that cannot be taken at its word, or an unknown option.
    """
    if pictures not in _COLUMNS:
        raise BadIndex(f"pictures={pictures!r}", "is neither 'png' nor 'dicom'", "")
    table = _table(folder)
    if table is None:
        raise BadIndex(folder, f"holds no {_TABLES[0]}")
    column = _COLUMNS[pictures]
    files = Pictures(folder, missing=missing)
    studies = []
    needed = (column, *_NEEDED, *names("brax"))
    optional = ("AccessionNumber", "PatientSex", "PatientAge", "Rows", "Columns")
    for row in rows(table, tuple(dict.fromkeys(needed)), optional=optional):
        if not row[column]:
            continue
        path = files.at(row, row[column])
        if path is None:
            continue
        patient = pseudonym("brax", row["PatientID"])
        examination = row["AccessionNumber"]
        findings = stated(row, "brax", uncertain=uncertain, blank=blank)
        height, width = number(row, "Rows"), number(row, "Columns")
        studies.append(
            Study(
                path=path,
                labels=findings[1.0],
                absent=findings[0.0],
                uncertain=findings[-1.0],
                patient=patient,
                group=patient,
                study=pseudonym("brax study", examination) if examination else "",
                source="brax",
                view=row["ViewPosition"],
                frontal=_FRONTAL.get(row["ViewPosition"]),
                sex=sex(row, "PatientSex"),
                age=_age(row),
                original_size=(int(width), int(height)) if width and height else None,
            )
        )
    return studies


def _age(row: Row) -> float | None:
    """The first year of the group of ages."""
    text = row["PatientAge"].removesuffix(" or more")
    if not text:
        return None
    if not text.removesuffix(".0").isdecimal() or float(text) > 130:
        raise row.bad(f"the age {row['PatientAge'][:40]!r} is not a group of ages")
    return float(text)
