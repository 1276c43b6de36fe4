"""SIIM-ACR Pneumothorax Segmentation 2019 (Kaggle).

Layout: `train-rle.csv` (first stage) or `stage_2_train.csv`, with the columns `ImageId` and
`EncodedPixels`; DICOMs of 1024 x 1024 anywhere below the folder, called `<ImageId>.dcm`. Test
pictures have no labels and are not read.

A mask's runs go down the columns and start relative to the end of the run before; -1 says that
there is no pneumothorax; a picture with several rows has several masks. The pictures are of
ChestX-ray14, but the release does not say of which patients: each counts as one of its own.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, RunLengths, Study
from cxr_foundation.data.tables import Row, columns_of, rows, table_at
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_TABLES = ("stage_2_train.csv", "train-rle.csv")
_SIZE = (1024, 1024)


def _table(folder: Path) -> Path | None:
    tables = (table_at(folder, name) for name in _TABLES)
    needed = {"ImageId", "EncodedPixels"}
    return next((t for t in tables if t and needed <= set(columns_of(t))), None)


@reader("siim", title="SIIM-ACR pneumothorax", recognises=lambda f: _table(f) is not None)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Read the SIIM-ACR pneumothorax set; pictures in the order of their first row.

    Args:
        folder: Where the table lies.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: The table cannot be taken at its word.
    """
    table = _table(folder)
    if table is None:
        raise BadIndex(folder, f"holds neither {_TABLES[0]} nor {_TABLES[1]}")
    first: dict[str, Row] = {}
    masks: dict[str, list[Mask]] = {}
    none: set[str] = set()
    for row in rows(table, ("ImageId", "EncodedPixels")):
        name, text = row["ImageId"], row["EncodedPixels"]
        first.setdefault(name, row)
        if text == "-1":
            none.add(name)
        elif not text:
            raise row.bad("no run lengths; -1 says that there is no pneumothorax")
        else:
            runs = RunLengths(text=text, size=_SIZE, columns=True, relative=True)
            masks.setdefault(name, []).append(Mask(name="pneumothorax", shape=runs))
        if name in none and name in masks:
            raise row.bad(f"{name[:80]!r} has a mask and -1")
    pictures = Pictures(folder, missing=missing)
    finding = frozenset({"pneumothorax"})
    studies = []
    for name, row in first.items():
        path = pictures.named(row, f"{name}.dcm")
        if path is None:
            continue
        patient = pseudonym("siim", name)
        studies.append(
            Study(
                path=path,
                labels=frozenset() if name in none else finding,
                absent=finding if name in none else frozenset(),
                patient=patient,
                group=patient,
                split="train",
                source="siim",
                frontal=True,
                masks=tuple(masks.get(name, ())),
            )
        )
    return studies
