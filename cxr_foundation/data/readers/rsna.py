"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., https://doi.org/10.1148/ryai.2019180041).

Layout of Kaggle's second stage: `stage_2_train_labels.csv` (a row per box),
`stage_2_detailed_class_info.csv`, DICOMs of 1024 x 1024 in `stage_2_train_images`. The test part
has no labels and is not read.

All pictures are of ChestX-ray14, which has several of many patients, while a `patientId` here
names one picture. With RSNA's `pneumonia-challenge-dataset-mappings_2018.json` beside the tables
the patient is the one of ChestX-ray14; without it each picture counts as a patient of its own.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.findings import finding_in
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Study
from cxr_foundation.data.tables import Row, number, rows, table_at
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_LABELS = "stage_2_train_labels.csv"
_CLASSES = "stage_2_detailed_class_info.csv"
_ORIGINALS = "pneumonia-challenge-dataset-mappings_2018.json"
# The mapping of 30,000 pictures is some 10 MB.
_JSON_BYTES = 1 << 27


@reader(
    "rsna",
    title="RSNA pneumonia",
    recognises=lambda folder: table_at(folder, _LABELS) is not None,
)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Read the RSNA pneumonia set.

    A picture with a box has "pneumonia" and "lung_opacity"; one of class "Normal" is "normal",
    one of class "No Lung Opacity / Not Normal" has "other_abnormality"; in both, pneumonia and
    lung opacity are absent.

    Args:
        folder: Where the tables lie.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table cannot be taken at its word, or target and class contradict each other.
    """
    labels = table_at(folder, _LABELS)
    if labels is None:
        raise BadIndex(folder, f"holds no {_LABELS}")
    classes: dict[str, str] = {}
    if (table := table_at(folder, _CLASSES)) is not None:
        for row in rows(table, ("patientId", "class")):
            classes[row["patientId"]] = finding_in(row, row["class"], "rsna")
    originals = _originals(folder / _ORIGINALS)
    first: dict[str, Row] = {}
    boxes: dict[str, list[Box]] = {}
    for row in rows(labels, ("patientId", "x", "y", "width", "height", "Target")):
        if row["Target"] not in ("0", "1"):
            raise row.bad(f"the target is {row['Target'][:20]!r}, not 0 or 1")
        if first.setdefault(row["patientId"], row)["Target"] != row["Target"]:
            raise row.bad("the picture has both targets")
        if row["Target"] == "1":
            boxes.setdefault(row["patientId"], []).append(_box(row))
    pictures = Pictures(folder, missing=missing)
    studies = []
    for name, row in first.items():
        path = pictures.at(row, f"stage_2_train_images/{name}.dcm")
        if path is None:
            continue
        sick = name in boxes
        kind = classes.get(name)
        if kind is not None and (kind == "lung_opacity") != sick:
            raise row.bad(f"the target is {row['Target']}, but the class is {kind!r}")
        opacity = frozenset({"pneumonia", "lung_opacity"})
        # Patients of ChestX-ray14 keep that set's pseudonym, so that the two can be compared.
        original = originals.get(name)
        patient = pseudonym("rsna", name) if original is None else pseudonym("nih", original)
        studies.append(
            Study(
                path=path,
                labels=opacity if sick else frozenset({kind} if kind else ()),
                absent=frozenset() if sick else opacity,
                patient=patient,
                group=patient,
                split="train",
                source="rsna",
                frontal=True,
                boxes=tuple(boxes.get(name, ())),
            )
        )
    return studies


def _box(row: Row) -> Box:
    x, y, width, height = (number(row, c) for c in ("x", "y", "width", "height"))
    if x is None or y is None or not width or not height or min(x, y, width, height) < 0:
        raise row.bad("not a box")
    return Box(finding="lung_opacity", x=x, y=y, width=width, height=height)


def _originals(path: Path) -> dict[str, str]:
    """This set's picture → patient number of ChestX-ray14, as that set writes it ("1")."""
    import json

    if not path.is_file():
        return {}
    if path.stat().st_size > _JSON_BYTES:
        raise BadIndex(path, f"larger than {_JSON_BYTES:,} bytes")
    try:
        entries = json.loads(path.read_bytes())
        pairs = [(str(e["subset_img_id"]), str(e["img_id"])) for e in entries]
        # "00004608_000.png" is patient 4608's first picture.
        return {ours: str(int(theirs.split("_")[0])) for ours, theirs in pairs}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadIndex(path, "not RSNA's list of subset_img_id and img_id") from None
