"""VinDr-CXR (Nguyen et al., Scientific Data 2022, https://doi.org/10.1038/s41597-022-01498-w).

Two layouts of DICOMs in `train/<image_id>.dicom` and `test/<image_id>.dicom`:

* PhysioNet 1.0.0: `annotations/image_labels_train.csv` (three rows an image, one per radiologist),
  `image_labels_test.csv` (one row, by consensus of five) and `annotations_{train,test}.csv`.
* Kaggle's VinBigData competition: `train.csv`, boxes of three radiologists with 14 findings.

The release does not say which pictures are of one patient: each counts as a patient of its own.
Sex and age are in the DICOM headers, which a reader does not open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from cxr_foundation.data.findings import finding_in
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Study
from cxr_foundation.data.tables import Row, columns_of, number, rows, table_at
from cxr_foundation.errors import BadIndex

__all__ = ["VOTES", "Votes", "corner_box", "one_hot", "parts", "read"]

#: How three radiologists' rows become one label.
VOTES = ("majority", "any")
_PARTS = ("train", "test")
_KAGGLE = {"image_id", "class_name", "rad_id", "x_min"}


@dataclasses.dataclass
class Votes:
    """What radiologists say about one image.

    Attributes:
        row: The image's first row, for messages.
        readers: Who read it.
        present: Finding → who saw it.
        looked_for: Findings that the table has a column for.
        boxes: Rectangles of all readers.
    """

    row: Row
    readers: set[str] = dataclasses.field(default_factory=set)
    present: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    looked_for: frozenset[str] = frozenset()
    boxes: list[Box] = dataclasses.field(default_factory=list)

    def stated(self, votes: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """Findings that are present, absent and uncertain.

        Present is what more than half of the readers saw ("majority") or one of them ("any");
        absent is what none saw; uncertain is the rest.
        """
        needed = 1 if votes == "any" else len(self.readers) // 2 + 1
        present = {f for f, who in self.present.items() if len(who) >= needed}
        seen = {f for f, who in self.present.items() if who}
        absent = self.looked_for - seen - {"no_finding"}
        return frozenset(present), absent, frozenset(seen - present - {"no_finding"})


def _kaggle_table(folder: Path) -> Path | None:
    table = table_at(folder, "train.csv")
    return table if table is not None and set(columns_of(table)) >= _KAGGLE else None


@reader(
    "vindr_cxr",
    title="VinDr-CXR",
    recognises=lambda folder: (
        any(table_at(folder / "annotations", f"image_labels_{p}.csv") for p in _PARTS)
        or _kaggle_table(folder) is not None
    ),
)
def read(folder: Path, *, votes: str = "majority", missing: str = "refuse") -> list[Study]:
    """Read VinDr-CXR; pictures in the order of their first row, train before test.

    Args:
        folder: Where `train`, `test` and `annotations` lie, or Kaggle's `train.csv`.
        votes: "majority" of an image's radiologists, or "any".
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A table or an option cannot be taken at its word.
    """
    if votes not in VOTES:
        raise BadIndex(f"votes={votes!r}", f"is not one of {', '.join(VOTES)}", "")
    pictures = Pictures(folder, missing=missing)
    if (table := _kaggle_table(folder)) is not None:
        images = _kaggle(table)
        return list(_studies(images, "train", pictures, "vindr_cxr", votes))
    studies: list[Study] = []
    for part, images in parts(folder / "annotations", "vindr_cxr"):
        studies += _studies(images, part, pictures, "vindr_cxr", votes)
    return studies


def parts(folder: Path, data_set: str) -> Iterator[tuple[str, dict[str, Votes]]]:
    """The parts of a PhysioNet release of VinDr, each with its images and their votes."""
    for part in _PARTS:
        labels = table_at(folder, f"image_labels_{part}.csv")
        if labels is None:
            continue
        images = one_hot(labels, data_set)
        boxes = table_at(folder, f"annotations_{part}.csv")
        if boxes is not None:
            columns = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
            for row in rows(boxes, columns):
                box = corner_box(row, data_set)
                if box is None:
                    continue
                if row["image_id"] not in images:
                    raise row.bad(f"the image is not in {labels.name}")
                images[row["image_id"]].boxes.append(box)
        yield part, images


def one_hot(table: Path, data_set: str) -> dict[str, Votes]:
    """A table with a row per image and radiologist, and a 0/1 column per finding."""
    whose = [c for c in columns_of(table) if c.casefold() == "rad_id"]
    known = [c for c in columns_of(table) if c and c != "image_id" and c not in whose]
    # Columns are checked against the vocabulary here, so that no finding is passed over.
    top = Row(table, 1, {})
    words = {column: finding_in(top, column, data_set) for column in known}
    images: dict[str, Votes] = {}
    for row in rows(table, ("image_id", *known), optional=whose):
        image = images.setdefault(row["image_id"], Votes(row))
        who = row[whose[0]] if whose else "consensus"
        if who in image.readers:
            raise row.bad(f"a second row of {row['image_id'][:40]!r} by the same reader")
        image.readers.add(who)
        image.looked_for = frozenset(words.values())
        for column, finding in words.items():
            if row[column] not in ("0", "1", "0.0", "1.0"):
                raise row.bad(f"{column} is {row[column][:20]!r}, not 0 or 1")
            if row[column].startswith("1"):
                image.present.setdefault(finding, set()).add(who)
    return images


def corner_box(row: Row, data_set: str) -> Box | None:
    """A box given by its corners; None for the row of an image in which nothing is boxed."""
    corners = [number(row, c) for c in ("x_min", "y_min", "x_max", "y_max")]
    if all(c is None for c in corners):
        return None
    left, top, right, bottom = (-1.0 if c is None else c for c in corners)
    if not (0 <= left < right and 0 <= top < bottom):
        raise row.bad("not a box")
    finding = finding_in(row, row["class_name"], data_set)
    return Box(finding=finding, x=left, y=top, width=right - left, height=bottom - top)


def _kaggle(table: Path) -> dict[str, Votes]:
    images: dict[str, Votes] = {}
    columns = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
    seen = set()
    for row in rows(table, columns):
        image = images.setdefault(row["image_id"], Votes(row))
        finding = finding_in(row, row["class_name"], "vindr_cxr")
        seen.add(finding)
        image.readers.add(row["rad_id"])
        image.present.setdefault(finding, set()).add(row["rad_id"])
        box = corner_box(row, "vindr_cxr")
        if box is not None:
            image.boxes.append(box)
    for image in images.values():
        image.looked_for = frozenset(seen)
    return images


def _studies(
    images: dict[str, Votes], part: str, pictures: Pictures, data_set: str, votes: str
) -> Iterator[Study]:
    for name, image in images.items():
        path = pictures.at(image.row, f"{part}/{name}.dicom")
        if path is None:
            continue
        patient = pseudonym(data_set, name)
        labels, absent, uncertain = image.stated(votes)
        yield Study(
            path=path,
            labels=labels,
            absent=absent,
            uncertain=uncertain,
            patient=patient,
            group=patient,
            split=part,
            source=data_set,
            # "18,000 postero-anterior (PA) view CXR scans", https://vindr.ai/vi/datasets/cxr
            view="PA",
            frontal=True,
            boxes=tuple(image.boxes),
        )
