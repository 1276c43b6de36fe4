"""NIH ChestX-ray14 (Wang et al., CVPR 2017, https://doi.org/10.1109/CVPR.2017.369).

Layout: `Data_Entry_2017.csv` or `Data_Entry_2017_v2020.csv`, `train_val_list.txt`,
`test_list.txt`, `BBox_List_2017.csv`, and 112,120 PNG of 1024 x 1024 in `images_001/images` …
`images_012/images` or in one folder.

Labels are mined from reports: what is not named counts as absent. The official split and the
random one by patients of the CheXNet reimplementations (70/10/20 %, lists of
https://github.com/arnoweng/CheXNet/tree/master/ChestX-ray14/labels at 63c159f) have different
names, "train_val" and "test" against "chexnet_train", "chexnet_val" and "chexnet_test": a
picture of one's training part may be in the other's test part, so figures do not compare.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.findings import finding_in, findings_of
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Study
from cxr_foundation.data.tables import Row, bad, lines, number, rows, sex, table_at
from cxr_foundation.errors import BadIndex

__all__ = ["SPLITS", "read"]

# As cxr_foundation.data.splits knows the terms under which the pictures may be handed on.
_TERMS = "NIH CC: no restrictions on use, cite Wang et al. 2017"
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")

#: Split → the file that lists a part, and the name of the part.
SPLITS = {
    "official": {"train_val_list.txt": "train_val", "test_list.txt": "test"},
    "chexnet": {
        "train_list.txt": "chexnet_train",
        "val_list.txt": "chexnet_val",
        "test_list.txt": "chexnet_test",
    },
}


def _table(folder: Path) -> Path | None:
    return next((t for t in (table_at(folder, name) for name in _TABLES) if t), None)


@reader("nih", title="NIH ChestX-ray14", recognises=lambda folder: _table(folder) is not None)
def read(folder: Path, *, split: str | None = "official", missing: str = "refuse") -> list[Study]:
    """Read ChestX-ray14.

    Args:
        folder: Where the table lies.
        split: "official"; "chexnet", whose three lists lie in `labels`; None for no split.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table or list cannot be taken at its word, or a picture is in no list.
    """
    table = _table(folder)
    if table is None:
        raise BadIndex(folder, f"holds neither {_TABLES[0]} nor {_TABLES[1]}")
    if split is not None and split not in SPLITS:
        raise BadIndex(f"split={split!r}", f"is not one of {', '.join(SPLITS)}, None", "")
    sides = _sides(folder, split) if split is not None else {}
    boxes = _boxes(folder)
    pictures = Pictures(folder, missing=missing)
    known = findings_of("nih")
    # The second edition of the table calls a patient's sex "Patient Sex", the first "Gender".
    optional = ("Patient Gender", "Patient Sex", "OriginalImage[Width", "Height]")
    needed = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
    studies = []
    for row in rows(table, needed, optional=optional):
        name = row["Image Index"]
        if split is not None and name not in sides:
            reason = f"{name[:60]!r} is in no list of the {split} split"
            raise row.bad(reason, "Complete the lists, or pass split=None.")
        path = pictures.named(row, name)
        if path is None:
            continue
        labels = frozenset(finding_in(row, w, "nih") for w in row["Finding Labels"].split("|"))
        patient = pseudonym("nih", row["Patient ID"])
        view = row["View Position"]
        studies.append(
            Study(
                path=path,
                labels=labels,
                absent=known - labels,
                patient=patient,
                group=patient,
                split=sides.get(name),
                source="nih",
                licence=_TERMS,
                view=view,
                frontal=True if view in ("AP", "PA") else None,
                sex=sex(row, "Patient Gender") or sex(row, "Patient Sex"),
                age=_age(row),
                original_size=_size(row),
                boxes=tuple(boxes.get(name, ())),
            )
        )
    return studies


def _sides(folder: Path, split: str) -> dict[str, str]:
    """Picture → part. An official list has one word a line, CheXNet's has 14 labels behind it."""
    sides: dict[str, str] = {}
    words = 1 if split == "official" else 15
    for file, part in SPLITS[split].items():
        places = (folder / file, folder / "labels" / file)
        listed = next((p for p in (places if words == 1 else places[::-1]) if p.is_file()), None)
        if listed is None:
            remedy = "Put the list there, or pass split=None."
            raise BadIndex(folder / file, f"the {split} split needs this list", remedy)
        for number_, line in enumerate(lines(listed, limit=4096), start=1):
            cells = line.split()
            if not cells:
                continue
            if len(cells) != words:
                reason = f"{len(cells)} words where a list of the {split} split has {words}"
                raise bad(listed, number_, reason, "The two splits are never mixed.")
            if sides.setdefault(cells[0], part) != part:
                raise bad(listed, number_, f"{cells[0][:60]!r} is already in {sides[cells[0]]}")
    return sides


def _boxes(folder: Path) -> dict[str, list[Box]]:
    """Boxes by picture, in pixels of the 1024 x 1024 PNG."""
    table = table_at(folder, "BBox_List_2017.csv")
    if table is None:
        return {}
    boxes: dict[str, list[Box]] = {}
    # The header is «Bbox [x,y,w,h]»: its commas make four columns of it.
    columns = ("Bbox [x", "y", "w", "h]")
    for row in rows(table, ("Image Index", "Finding Label", *columns)):
        x, y, width, height = (number(row, column) for column in columns)
        if x is None or y is None or not width or not height or width < 0 or height < 0:
            raise row.bad("not a box")
        finding = finding_in(row, row["Finding Label"], "nih")
        box = Box(finding=finding, x=x, y=y, width=width, height=height)
        boxes.setdefault(row["Image Index"], []).append(box)
    return boxes


def _age(row: Row) -> float | None:
    """Years; the first edition writes "058Y", "009M", "012D". Typing errors (414) are unknown."""
    found = re.fullmatch(r"(\d{1,3})([YMD]?)", row["Patient Age"])
    if found is None:
        if not row["Patient Age"]:
            return None
        raise row.bad(f"the age {row['Patient Age'][:20]!r} is not a number")
    age = int(found[1]) / {"": 1, "Y": 1, "M": 12, "D": 365.25}[found[2]]
    return age if age <= 130 else None


def _size(row: Row) -> tuple[int, int] | None:
    width, height = number(row, "OriginalImage[Width"), number(row, "Height]")
    return (int(width), int(height)) if width and height else None
