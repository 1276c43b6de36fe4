"""covid-chestxray-dataset (Cohen et al., https://github.com/ieee8023/covid-chestxray-dataset).

Layout of the repository: `metadata.csv`, pictures in `images`, lung masks that a network drew in
`annotations/lungVAE-masks`. Every picture has terms of its own (`Study.licence`); CT slices are
left out. A finding is a path from the general to the special ("Pneumonia/Viral/COVID-19"), each
step of which is a label. There is no official split. Names, dates and notes are never read.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.findings import finding_in
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, MaskFile, Study
from cxr_foundation.data.tables import columns_of, rows, sex, years

__all__ = ["read"]

_COLUMNS = ("patientid", "finding", "view", "modality", "filename", "license")
_FRONTAL = {"PA": True, "AP": True, "AP Supine": True, "AP Erect": True, "L": False}
_UNKNOWN = frozenset({"", "todo", "Unknown"})


@reader(
    "cohen",
    title="covid-chestxray-dataset",
    recognises=lambda folder: set(columns_of(folder / "metadata.csv")) >= set(_COLUMNS),
)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Read the covid-chestxray-dataset.

    Args:
        folder: The repository.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: The table cannot be taken at its word.
    """
    pictures = Pictures(folder, missing=missing)
    studies = []
    for row in rows(folder / "metadata.csv", _COLUMNS, optional=("sex", "age", "folder")):
        if row["modality"] != "X-ray":
            continue
        name = row["filename"]
        path = pictures.at(row, f"{row['folder'] or 'images'}/{name}")
        if path is None:
            continue
        steps = [step.strip() for step in row["finding"].split("/")]
        labels = {finding_in(row, step, "cohen") for step in steps if step not in _UNKNOWN}
        mask = f"annotations/lungVAE-masks/{Path(name).stem}_mask.png"
        drawn = pictures.at(row, mask) if (folder / mask).exists() else None
        patient = pseudonym("cohen", row["patientid"])
        studies.append(
            Study(
                path=path,
                labels=frozenset(labels or {"unlabelled"}),
                patient=patient,
                group=patient,
                source="cohen",
                licence=row["license"],
                view=row["view"],
                frontal=_FRONTAL.get(row["view"]),
                sex=sex(row, "sex"),
                age=years(row, "age"),
                masks=(Mask(name="lungs", shape=MaskFile(path=drawn)),) if drawn else (),
            )
        )
    return studies
