"""CheXmask: masks of both lungs and the heart for other data sets' radiographs.

Release: https://physionet.org/content/chexmask-cxr-segmentation-data/1.0.0/. Folder
OriginalResolution with one table per data set (ChestX-Ray8.csv, CheXpert.csv, MIMIC-CXR-JPG.csv,
Padchest.csv, VinDr-CXR.csv): the picture's identifier in that data set's own column, the masks as
run lengths along the rows, counted from 1, their height and width, and «Dice RCA (Mean)», the
estimated quality; its data dictionary recommends 0.7 and more. Masks are a network's (HybridGNet),
not a reader's. The folder Preprocessed is not read: its masks are of other pictures' size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cxr_foundation.data.reading import read as read_data_set
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Mask, RunLengths, Study
from cxr_foundation.data.tables import Row, columns_of, number, rows
from cxr_foundation.errors import BadIndex

__all__ = ["attach", "read"]

_ORGANS = {"Left Lung": "left_lung", "Right Lung": "right_lung", "Heart": "heart"}
_QUALITY = "Dice RCA (Mean)"
_NEEDED = (*_ORGANS, "Height", "Width", _QUALITY)
_FOLDER = "OriginalResolution"
# How each data set names its pictures, and which of our readers reads it.
_TABLES = {
    "nih": ("ChestX-Ray8.csv", "Image Index"),
    "chexpert": ("CheXpert.csv", "Path"),
    "mimic_cxr": ("MIMIC-CXR-JPG.csv", "dicom_id"),
    "padchest": ("Padchest.csv", "ImageID"),
    "vindr_cxr": ("VinDr-CXR.csv", "image_id"),
}


def _table(folder: Path, data_set: str) -> Path | None:
    name, column = _TABLES[data_set]
    places = (folder / _FOLDER / name, folder / name)
    return next((t for t in places if {column, *_NEEDED} <= set(columns_of(t))), None)


def _is_chexmask(folder: Path) -> bool:
    return any(_table(folder, data_set) is not None for data_set in _TABLES)


@reader("chexmask", title="CheXmask", recognises=_is_chexmask)
def read(
    folder: Path,
    *,
    pictures: str | Path | None = None,
    data_set: str | None = None,
    quality: float = 0.7,
    missing: str = "refuse",
) -> list[Study]:
    """The radiographs of another data set that CheXmask has masks of.

    Args:
        folder: CheXmask, or its folder OriginalResolution.
        pictures: The folder of the data set itself; CheXmask holds no pictures.
        data_set: Its short name, or None to recognise it.
        quality: The least «Dice RCA (Mean)» of a mask.
        missing: "refuse" or "skip" pictures that are not there, as the data set's reader does.

    Raises:
        BadIndex: No `pictures`, or a table that cannot be taken at its word.
    """
    if pictures is None:
        raise BadIndex(
            folder,
            "CheXmask holds masks, not pictures",
            "Name the folder of the radiographs: data.read(folder, pictures=…).",
        )
    studies = read_data_set(pictures, data_set, missing=missing)
    return [s for s in attach(studies, folder, quality=quality) if s.masks]


def attach(studies: Sequence[Study], folder: Path, *, quality: float = 0.7) -> list[Study]:
    """The same studies, those that CheXmask knows with its masks after their own.

    Memory is taken only for masks of these studies; the tables are read once, row by row.

    Raises:
        BadIndex: The studies' data set is not one of CheXmask's, its table is not there, or it
            cannot be taken at its word.
    """
    found: dict[tuple[str, str], tuple[Mask, ...]] = {}
    wanted = {(s.source, _key(s.source, s.path.as_posix())) for s in studies}
    for source in sorted({s.source for s in studies}):
        if source not in _TABLES:
            known = ", ".join(sorted(_TABLES))
            raise BadIndex(folder, f"has no masks of {source or 'this data set'!r}", f"Of {known}.")
        table = _table(folder, source)
        if table is None:
            raise BadIndex(folder, f"holds no {_FOLDER}/{_TABLES[source][0]}")
        column = _TABLES[source][1]
        for row in rows(table, (column, *_NEEDED)):
            key = source, _key(source, row[column])
            if key not in wanted:
                continue
            if key in found:
                raise row.bad(f"{row[column][:80]!r} is there twice")
            found[key] = _masks(row) if (number(row, _QUALITY) or 0.0) >= quality else ()
    return [
        dataclasses.replace(
            s, masks=s.masks + found.get((s.source, _key(s.source, s.path.as_posix())), ())
        )
        for s in studies
    ]


def _key(source: str, name: str) -> str:
    """What a data set's path and CheXmask's identifier have in common."""
    path = PurePosixPath(name)
    if source == "chexpert":
        # …/train/patient00001/study1/view1_frontal.jpg
        return "/".join(path.parts[-4:])
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


_SUFFIXES = {".png", ".jpg", ".dcm", ".dicom", ".jpeg"}


def _masks(row: Row) -> tuple[Mask, ...]:
    height, width = number(row, "Height"), number(row, "Width")
    if not height or not width or min(height, width) < 1 or max(height, width) > 1 << 14:
        raise row.bad("a mask without a usable height and width")
    size = int(width), int(height)
    return tuple(
        Mask(
            name=organ,
            shape=RunLengths(text=row[column], size=size, columns=False, relative=False, first=1),
        )
        for column, organ in _ORGANS.items()
        if row[column]
    )
