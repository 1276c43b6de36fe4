"""VinDr-RibCXR: outlines of twenty ribs in 245 radiographs.

Release: https://github.com/vinbigdata-medical/MIDL2021-VinDr-RibCXR (its README shows the form of
the annotations). Vindr_RibCXR_{train,val}_mask.json: {"img": {"0": "data/train/img/….png"}, "R1":
{"0": [{"x": …, "y": …}, …]}, …}, R1 to R10 and L1 to L10, where null or no points is no rib. The
pictures are also in VinDr-CXR.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from cxr_foundation.data.documents import json_document
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, Polygon, Study
from cxr_foundation.data.tables import Row
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_RIBS = {
    f"{letter}{number}": f"{side}_rib_{number}"
    for letter, side in (("R", "right"), ("L", "left"))
    for number in range(1, 11)
}
# Its README has them in data/train, copies of the download in Annotations/train.
_PLACES = ("data/{split}/", "{split}/", "Annotations/{split}/", "annotations/{split}/", "")


def _table(folder: Path, split: str) -> Path | None:
    name = f"Vindr_RibCXR_{split}_mask.json"
    tables = (folder / place.format(split=split) / name for place in _PLACES)
    return next((t for t in tables if t.is_file()), None)


def _is_vindr_ribcxr(folder: Path) -> bool:
    return _table(folder, "train") is not None


@reader("vindr_ribcxr", title="VinDr-RibCXR", recognises=_is_vindr_ribcxr)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """VinDr-RibCXR's train and val part, one study per picture, with a mask per rib.

    The release names no patients: each picture is its own.

    Args:
        folder: Where the annotations and the pictures lie; pictures are found by their names.
        missing: "refuse" or "skip" pictures that are annotated and not there.

    Raises:
        BadIndex: An annotation file that cannot be taken at its word.
    """
    pictures = Pictures(folder, missing=missing)
    studies = []
    for split in ("train", "val"):
        table = _table(folder, split)
        if table is None:
            continue
        document = json_document(table, "img", *_RIBS)
        if not all(isinstance(document[key], dict) for key in ("img", *_RIBS)):
            raise BadIndex(table, "not outlines by rib and picture")
        for line, (number, name) in enumerate(document["img"].items(), start=1):
            path = pictures.named(Row(table, line, {}), PurePosixPath(str(name)).name)
            if path is None:
                continue
            patient = pseudonym("vindr_ribcxr", path.stem)
            outlines = {rib: document[key].get(number) for key, rib in _RIBS.items()}
            studies.append(
                Study(
                    path=path,
                    labels=frozenset({"unlabelled"}),
                    patient=patient,
                    group=patient,
                    split=split,
                    source="vindr_ribcxr",
                    frontal=True,
                    masks=tuple(
                        Mask(name=rib, shape=Polygon(points=_points(table, points), size=path))
                        for rib, points in outlines.items()
                        if points
                    ),
                )
            )
    return studies


def _points(table: Path, points: Any) -> tuple[tuple[float, float], ...]:
    try:
        return tuple((float(p["x"]), float(p["y"])) for p in points)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadIndex(table, "an outline is not a list of points with x and y") from None
