"""TBX11K: tuberculosis with boxes, 11,200 radiographs of 512 x 512 pixels.

Release: https://github.com/yun-liu/Tuberculosis (CC BY-NC-SA 2.0 by its annotation files). Folder
TBX11K with imgs/{health,sick,tb,test,extra}, annotations/json/TBX11K_{train,val}.json in COCO's
form, and lists/all_test.txt. imgs/extra holds other data sets, among them Montgomery and Shenzhen;
it is not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxr_foundation.data.documents import json_document
from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Study
from cxr_foundation.data.tables import Row, lines
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_LABELED = ("train", "val")
_TEST = "lists/all_test.txt"
# "PulmonaryTuberculosis", the annotations' third category, says no more than tuberculosis.
_TB = harmonise("PulmonaryTuberculosis", "tbx11k")
_KINDS = frozenset(
    harmonise(name, "tbx11k") for name in ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis")
)


def _root(folder: Path) -> Path:
    nested = folder / "TBX11K"
    return nested if nested.is_dir() else folder


def _json(root: Path, split: str) -> Path:
    return root / "annotations" / "json" / f"TBX11K_{split}.json"


def _is_tbx11k(folder: Path) -> bool:
    return _json(_root(folder), "train").is_file() and (_root(folder) / "imgs").is_dir()


@reader("tbx11k", title="TBX11K", recognises=_is_tbx11k)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """TBX11K's train, val and (unlabelled) test part, one study per picture.

    Healthy pictures are "normal", sick ones "other_abnormality". A picture of
    the folder tb without a box of the active or the latent kind leaves the kind uncertain. The
    release has no patients: each picture is its own.

    Args:
        folder: TBX11K, or the folder that holds it.
        missing: "refuse" or "skip" pictures that are listed and not there.

    Raises:
        BadIndex: An annotation file or list that cannot be taken at its word.
    """
    root = _root(folder)
    pictures = Pictures(root, missing=missing)
    studies = [s for split in _LABELED for s in _labelled(root, split, pictures)]
    if (root / _TEST).is_file():
        studies += _test(root, pictures)
    return studies


def _labelled(root: Path, split: str, pictures: Pictures) -> Iterator[Study]:
    file = _json(root, split)
    document = json_document(file, "images", "annotations", "categories")
    try:
        categories = {c["id"]: harmonise(c["name"], "tbx11k") for c in document["categories"]}
        boxes: dict[Any, list[Box]] = defaultdict(list)
        for drawn in document["annotations"]:
            x, y, width, height = (float(side) for side in drawn["bbox"])
            finding = categories[drawn["category_id"]]
            boxes[drawn["image_id"]].append(
                Box(finding=finding, x=x, y=y, width=width, height=height)
            )
        images = [
            (str(i["file_name"]), (int(i["width"]), int(i["height"])), tuple(boxes[i["id"]]))
            for i in document["images"]
        ]
    except (BadIndex, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise BadIndex(file, "not annotations in COCO's form with TBX11K's categories") from None
    for number, (name, size, drawn_boxes) in enumerate(images, start=1):
        row = Row(file, number, {})
        kind = name.partition("/")[0]
        if kind == "extra":
            continue
        path = pictures.at(row, f"imgs/{name}")
        if path is not None:
            labels, absent, uncertain = _labels(file, name, kind, drawn_boxes)
            yield _study(
                path,
                split,
                labels=labels,
                absent=absent,
                uncertain=uncertain,
                original_size=size,
                boxes=drawn_boxes,
            )


def _labels(
    file: Path, name: str, kind: str, boxes: tuple[Box, ...]
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Present, absent and uncertain findings of one picture."""
    if kind == "tb":
        seen = frozenset(b.finding for b in boxes) & _KINDS
        return seen | {_TB}, frozenset(), frozenset() if seen else _KINDS
    if kind not in ("health", "sick") or boxes:
        raise BadIndex(file, f"the picture {name[:100]!r} is in no known folder, or has boxes")
    return frozenset({harmonise(kind, "tbx11k")}), _KINDS | {_TB}, frozenset()


def _test(root: Path, pictures: Pictures) -> Iterator[Study]:
    for number, line in enumerate(lines(root / _TEST, limit=1 << 12), start=1):
        name = line.strip()
        if name and not name.startswith("extra/"):
            path = pictures.at(Row(root / _TEST, number, {}), f"imgs/{name}")
            if path is not None:
                yield _study(path, "test", labels=frozenset({"unlabelled"}))


def _study(path: Path, split: str, **facts: Any) -> Study:
    patient = pseudonym("tbx11k", path.stem)
    return Study(
        path=path,
        patient=patient,
        group=patient,
        split=split,
        source="tbx11k",
        licence="CC BY-NC-SA 2.0",
        frontal=True,
        **facts,
    )
