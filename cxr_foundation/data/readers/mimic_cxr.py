"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson et al., https://doi.org/10.13026/jsn5-t979).

Layout: `mimic-cxr-2.0.0-split.csv.gz`, `…-metadata.csv.gz`, `…-chexpert.csv.gz` and
`…-negbio.csv.gz` (packed or not), pictures in `files/p10/p10000032/s50414267/<dicom_id>.jpg`.
Labels are mined from a study's report and hold for all of its pictures. Sex and age are not in
this release (they are in MIMIC-IV) and stay unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cxr_foundation.data.findings import names
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.readers.chexpert import stated
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import number, rows
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_FRONTAL = {"AP": True, "PA": True, "LATERAL": False, "LL": False}
_Labels = Mapping[float, frozenset[str]]
_NONE: _Labels = {1.0: frozenset({"unlabelled"}), 0.0: frozenset(), -1.0: frozenset()}


def _table(folder: Path, kind: str) -> Path | None:
    found = sorted(folder.glob(f"mimic-cxr-2.*-{kind}.csv")) or sorted(
        folder.glob(f"mimic-cxr-2.*-{kind}.csv.gz")
    )
    return found[0] if found else None


@reader(
    "mimic_cxr",
    title="MIMIC-CXR-JPG",
    recognises=lambda folder: _table(folder, "split") is not None,
)
def read(
    folder: Path,
    *,
    labeler: str = "chexpert",
    uncertain: str = "keep",
    blank: str = "unstated",
    missing: str = "refuse",
) -> list[Study]:
    """Read MIMIC-CXR-JPG; pictures in the order of the split's table.

    Args:
        folder: Where the tables lie.
        labeler: "chexpert" or "negbio", whose table has to be there.
        uncertain: What becomes of -1, as for CheXpert.
        blank: What an empty cell says, as for CheXpert.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table or an option cannot be taken at its word. A study without a row in the
            table of labels is "unlabelled".
    """
    if labeler not in ("chexpert", "negbio"):
        raise BadIndex(f"labeler={labeler!r}", "is neither 'chexpert' nor 'negbio'", "")
    tables = {kind: _table(folder, kind) for kind in ("split", "metadata", labeler)}
    for kind, table in tables.items():
        if table is None:
            raise BadIndex(folder, f"holds no mimic-cxr-2.…-{kind}.csv or .csv.gz")
    labels: dict[str, _Labels] = {}
    for row in rows(tables[labeler] or folder, ("study_id", *names("mimic_cxr"))):
        labels[row["study_id"]] = stated(row, "mimic_cxr", uncertain=uncertain, blank=blank)
    views = {}
    columns = ("dicom_id", "ViewPosition", "Rows", "Columns")
    for row in rows(tables["metadata"] or folder, columns):
        height, width = number(row, "Rows"), number(row, "Columns")
        size = (int(width), int(height)) if width and height else None
        views[row["dicom_id"]] = row["ViewPosition"], size
    pictures = Pictures(folder, missing=missing)
    studies = []
    columns = ("dicom_id", "study_id", "subject_id", "split")
    for row in rows(tables["split"] or folder, columns):
        subject, examination, image = row["subject_id"], row["study_id"], row["dicom_id"]
        inside = f"files/p{subject[:2]}/p{subject}/s{examination}/{image}.jpg"
        path = pictures.at(row, inside)
        if path is None:
            continue
        if image not in views:
            raise row.bad(f"{image[:60]!r} is not in the table of metadata")
        view, size = views[image]
        found = labels.get(examination, _NONE)
        patient = pseudonym("mimic_cxr", subject)
        studies.append(
            Study(
                path=path,
                labels=found[1.0],
                absent=found[0.0],
                uncertain=found[-1.0],
                patient=patient,
                group=patient,
                study=pseudonym("mimic_cxr study", examination),
                split=row["split"],
                source="mimic_cxr",
                view=view,
                frontal=_FRONTAL.get(view),
                original_size=size,
            )
        )
    return studies
