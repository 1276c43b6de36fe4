"""NODE21: lung nodules with boxes, 4,882 radiographs gathered from public data sets.

Release: https://node21.grand-challenge.org/Data/ (cxr_images with original_data and
proccessed_data, spelt so; each has images and metadata.csv with one row per nodule). The
pictures are from JSRT, ChestX-ray14, PadChest and Open-i, so it is external to none of them.

proccessed_data was made by opencxr's standardization: energy-normalised, cropped to the lungs,
1024 x 1024 padded with black, unsigned 16-bit integers from 0 to 4095, which is how `read_image`
takes them: https://github.com/DIAGNijmegen/opencxr/blob/627030a1ca171ca4e9030eb6a4ed802617835e61/
opencxr/algorithms/cxrstandardization/__init__.py
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Study
from cxr_foundation.data.tables import Row, columns_of, number, rows
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_COLUMNS = ("img_name", "label", "x", "y", "width", "height")
_NODULE = harmonise("nodule", "node21")
_PLACES = ("", "proccessed_data", "cxr_images/proccessed_data")
_ORIGINALS = ("", "original_data", "cxr_images/original_data")


def _table(folder: Path, places: tuple[str, ...]) -> Path | None:
    for place in places:
        table = folder / place / "metadata.csv"
        if set(_COLUMNS) <= set(columns_of(table)):
            return table
    return None


def _is_node21(folder: Path) -> bool:
    return _table(folder, _PLACES + _ORIGINALS) is not None


@reader("node21", title="NODE21", recognises=_is_node21)
def read(folder: Path, *, original: bool = False, missing: str = "refuse") -> list[Study]:
    """NODE21, one study per picture: "nodule" present with its boxes, or absent.

    The release names no patients: each picture is its own, though pictures of one patient of
    ChestX-ray14 may be among them.

    Args:
        folder: The release, or one of its two folders.
        original: Read original_data, not the cropped and resized proccessed_data.
        missing: "refuse" or "skip" pictures that are listed and not there.

    Raises:
        BadIndex: No table, or one that cannot be taken at its word.
    """
    table = _table(folder, _ORIGINALS if original else _PLACES)
    if table is None:
        raise BadIndex(folder, "has no metadata.csv of NODE21", "Name the folder cxr_images.")
    found: dict[str, tuple[Row, list[Box]]] = {}
    for row in rows(table, _COLUMNS):
        first, boxes = found.setdefault(row["img_name"], (row, []))
        if row["label"] not in ("0", "1"):
            raise row.bad(f"the label is {row['label'][:40]!r}, not 0 or 1")
        if first["label"] != row["label"] or (first is not row and row["label"] == "0"):
            raise row.bad(f"{row['img_name'][:100]!r} is already in line {first.line}")
        if row["label"] == "1":
            boxes.append(_box(row))
    pictures = Pictures(table.parent, missing=missing)
    studies = []
    for name, (row, boxes) in found.items():
        path = pictures.at(row, f"images/{name}")
        if path is None:
            continue
        patient = pseudonym("node21", Path(name).stem)
        nodule = frozenset({_NODULE})
        studies.append(
            Study(
                path=path,
                labels=nodule if boxes else frozenset(),
                absent=frozenset() if boxes else nodule,
                patient=patient,
                group=patient,
                source="node21",
                frontal=True,
                boxes=tuple(boxes),
            )
        )
    return studies


def _box(row: Row) -> Box:
    x, y, width, height = (number(row, column) for column in ("x", "y", "width", "height"))
    if x is None or y is None or width is None or height is None or min(width, height) <= 0:
        raise row.bad("a nodule without x, y, width and height")
    return Box(finding=_NODULE, x=x, y=y, width=width, height=height)
