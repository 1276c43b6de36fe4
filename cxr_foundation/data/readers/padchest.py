"""PadChest (Bustos et al., Medical Image Analysis 2020, https://arxiv.org/abs/1901.07441).

Layout: `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv` (packed or not) and 16-bit PNG in
numbered folders or in one. There is no official split. 39,053 rows of the table were labelled by
physicians, 121,808 by a network (`MethodLabel`). Findings are a report's terms: the ones that
`findings.csv` maps count as absent where a report does not name them.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.findings import finding_in, findings_of
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, number, rows, sex
from cxr_foundation.errors import BadIndex

__all__ = ["read", "terms"]

_FRONTAL = {"PA": True, "AP": True, "AP_horizontal": True, "L": False}
# Words about the report or the exposure, and no finding of the chest.
_NO_FINDING = frozenset({"exclude", "unchanged", "suboptimal study"})


def _table(folder: Path) -> Path | None:
    found = sorted(folder.glob("PADCHEST_chest_x_ray_images_labels_160K*.csv"))
    found += sorted(folder.glob("PADCHEST_chest_x_ray_images_labels_160K*.csv.gz"))
    return found[0] if found else None


@reader("padchest", title="PadChest", recognises=lambda folder: _table(folder) is not None)
def read(folder: Path, *, labelled_by: str = "all", missing: str = "refuse") -> list[Study]:
    """Read PadChest.

    Rows whose Projection is EXCLUDE are left out, as their authors say.

    Args:
        folder: Where the table lies.
        labelled_by: "all", or only rows that a "physician" labelled.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: The table or an option cannot be taken at its word.
    """
    table = _table(folder)
    if table is None:
        raise BadIndex(folder, "holds no PADCHEST_chest_x_ray_images_labels_160K….csv")
    if labelled_by not in ("all", "physician"):
        raise BadIndex(f"labelled_by={labelled_by!r}", "is neither 'all' nor 'physician'", "")
    pictures = Pictures(folder, missing=missing)
    known = findings_of("padchest")
    needed = ("ImageID", "StudyID", "PatientID", "Projection", "MethodLabel", "Labels")
    optional = (
        *("PatientSex_DICOM", "PatientBirth", "StudyDate_DICOM"),
        *("Rows_DICOM", "Columns_DICOM"),
    )
    studies = []
    for row in rows(table, needed, optional=optional):
        physician = row["MethodLabel"] == "Physician"
        if row["Projection"] == "EXCLUDE" or (labelled_by == "physician" and not physician):
            continue
        path = pictures.named(row, row["ImageID"])
        if path is None:
            continue
        words = set(terms(row["Labels"])) - _NO_FINDING
        labels = frozenset(finding_in(row, word, "padchest") for word in words)
        height, width = number(row, "Rows_DICOM"), number(row, "Columns_DICOM")
        patient = pseudonym("padchest", row["PatientID"])
        studies.append(
            Study(
                path=path,
                labels=labels or frozenset({"unlabelled"}),
                absent=known - labels if labels else frozenset(),
                patient=patient,
                group=patient,
                study=pseudonym("padchest study", row["StudyID"]),
                source="padchest",
                view=row["Projection"],
                frontal=_FRONTAL.get(row["Projection"]),
                sex=sex(row, "PatientSex_DICOM"),
                age=_age(row),
                original_size=(int(width), int(height)) if width and height else None,
            )
        )
    return studies


def terms(text: str) -> list[str]:
    """The words of a list as Python prints it: "['pneumonia', ' nodule']"; none for "nan".

    The text is never evaluated.
    """
    found = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    return [word for word in (" ".join((a or b).split()) for a, b in found) if word]


def _age(row: Row) -> float | None:
    """Years between the year of birth and the year of the study; neither goes further."""
    born, year = number(row, "PatientBirth"), row["StudyDate_DICOM"][:4]
    if born is None or not year.isdigit():
        return None
    age = int(year) - born
    return age if 0 <= age <= 130 else None
