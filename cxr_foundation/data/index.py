"""`read_index`: a table of radiographs, from somebody who may be careless or hostile.

Two kinds of table are known; one with a column `path` is of the second kind:

* `file, patient, labels`: findings separated by "|". Optional columns: `split_group`, `split`,
  `source`, `view`, `licence`, `sex`, `age`, `original_size` ("WIDTHxHEIGHT"). Others are ignored.
  Without a `split` column the split is in `splits.csv` (`split_group, split`), which lies beside
  the index or one folder above.
* `path, patient_id, split`: every further column is a finding whose cells are 1 (present), 0
  (absent) or empty (not stated).
"""

from __future__ import annotations

import csv
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from cxr_foundation.data.folder import confined, read_folder, resolved
from cxr_foundation.data.splits import SPLITS, check_disjoint, same_patient
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import bad, lines
from cxr_foundation.errors import BadIndex, NoImages, PatientLeak

__all__ = ["read_index"]

# Longer lines are not an index. Checked before a line is decoded, so a bomb costs no memory.
_LINE_BYTES = 1 << 16
_FORMULA = re.compile(r"[=@+\-](?![0-9.]+$)")
_PRESENCE = {"1": True, "1.0": True, "0": False, "0.0": False}
_Row = tuple[int, Mapping[str, str]]


def read_index(path: str | os.PathLike[str], *, disjoint: bool = True) -> list[Study]:
    """Read a data set's table; every file that it names is checked to be inside its folder.

    Args:
        path: A folder with an index.csv, such a file, or a plain folder of pictures and DICOM
            files (searched through, sorted; each file its own patient unless DICOM says more).
        disjoint: Refuse a patient who is on two sides of the split. Without it the caller has to
            look for such patients (`evaluate.audit` does).

    Returns:
        One study per row, in the table's order. Pictures are not opened.

    Raises:
        NoImages: The path does not exist, or nothing is in it.
        BadIndex: The table or the split cannot be taken at its word; the subject is
            "file: line N".
        PatientLeak: A patient is on two sides of the split.
    """
    path = Path(path)
    if not path.exists():
        raise NoImages(path, "does not exist")
    table = path / "index.csv" if path.is_dir() else path
    if path.is_dir() and not table.exists():
        return read_folder(path)
    if not table.is_file():
        raise BadIndex(table, "not a regular file")
    rows = _rows(table)
    wide = "path" in rows[0][1]
    studies = [_wide(table, *row) for row in rows] if wide else _long(table, rows)
    if disjoint:
        try:
            check_disjoint(studies)
        except PatientLeak as leak:
            raise PatientLeak(f"{table}: {leak.subject}", leak.reason) from None
    _refuse_duplicates(table, rows, studies)
    return studies


def _rows(table: Path) -> list[_Row]:
    """The table's rows by column name, each with its line number."""
    reader = csv.reader(lines(table, limit=_LINE_BYTES), strict=True)
    rows: list[_Row] = []
    header: list[str] = []
    try:
        for cells in reader:
            _check_cells(table, reader.line_num, cells)
            if not header:
                header = [c.strip() for c in cells]
                _check_header(table, header)
            elif len(cells) != len(header):
                reason = f"{len(cells)} fields where the header has {len(header)}"
                raise bad(table, reader.line_num, reason)
            else:
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise bad(table, reader.line_num, f"not a table: {error}") from None
    if not rows:
        raise NoImages(table, "has no rows")
    return rows


def _check_cells(table: Path, line: int, cells: list[str]) -> None:
    for cell in cells:
        if any(unicodedata.category(c) == "Cc" for c in cell):
            raise bad(table, line, "a cell holds control characters or a line break")
        if _FORMULA.match(cell.strip()):
            reason = f"the cell {cell[:40]!r} would run as a formula in a spreadsheet"
            raise bad(table, line, reason)


def _check_header(table: Path, header: list[str]) -> None:
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise bad(table, 1, f"the column {twice[0]!r} is there twice")
    needed = ("path", "patient_id", "split") if "path" in header else ("file", "patient")
    for column in needed:
        if column not in header:
            raise bad(table, 1, f"the column {column!r} is missing")


def _long(table: Path, rows: list[_Row]) -> list[Study]:
    header = rows[0][1]
    splits = None if "split" in header else _read_splits(table)
    return [_long_row(table, line, row, splits) for line, row in rows]


def _long_row(
    table: Path, line: int, row: Mapping[str, str], splits: Mapping[str, str] | None
) -> Study:
    path = _path(table, line, row["file"])
    patient = row["patient"].strip()
    group = row.get("split_group", "").strip() or patient
    split = _split(table, line, row["split"]) if "split" in row else None
    if splits is not None:
        split = splits.get(same_patient(group))
        if split is None:
            raise bad(table, line, f"the group {group!r} is not in splits.csv")
    if not patient:
        raise bad(table, line, "no patient")
    prefix, underscore, _ = path.name.partition("_")
    return Study(
        path=path,
        labels=frozenset(t.strip() for t in row.get("labels", "").split("|") if t.strip()),
        patient=patient,
        group=group,
        split=split,
        source=prefix if underscore else "",
        licence=row.get("licence", ""),
        view=row.get("view", ""),
        sex=row.get("sex", ""),
        age=_age(table, line, row.get("age", "")),
        original_size=_size(table, line, row.get("original_size", "")),
    )


def _wide(table: Path, line: int, row: Mapping[str, str]) -> Study:
    patient = row["patient_id"].strip()
    if not patient:
        raise bad(table, line, "no patient")
    stated: dict[bool, set[str]] = {True: set(), False: set()}
    for finding, cell in row.items():
        if finding in ("path", "patient_id", "split") or not cell.strip():
            continue
        if cell.strip() not in _PRESENCE:
            raise bad(table, line, f"the label {finding!r} is {cell[:40]!r}, not 0, 1 or empty")
        stated[_PRESENCE[cell.strip()]].add(finding)
    return Study(
        path=_path(table, line, row["path"]),
        labels=frozenset(stated[True]),
        absent=frozenset(stated[False]),
        patient=patient,
        group=patient,
        split=_split(table, line, row["split"]),
    )


def _read_splits(table: Path) -> dict[str, str] | None:
    """The side of every group; None where there is no splits.csv."""
    places = (table.parent / "splits.csv", table.absolute().parent.parent / "splits.csv")
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        return None
    reader = csv.reader(lines(file, limit=_LINE_BYTES), strict=True)
    sides: dict[str, str] = {}
    try:
        for number, cells in enumerate(reader):
            _check_cells(file, reader.line_num, cells)
            if number == 0:
                if cells != ["split_group", "split"]:
                    raise bad(file, 1, "the columns are not 'split_group' and 'split'")
                continue
            if len(cells) != 2:
                raise bad(file, reader.line_num, f"{len(cells)} fields instead of 2")
            side = _split(file, reader.line_num, cells[1])
            if side is None:
                raise bad(file, reader.line_num, "no split")
            if sides.setdefault(same_patient(cells[0]), side) != side:
                raise PatientLeak(
                    f"{file}: line {reader.line_num}",
                    f"the group {cells[0]!r} is on two sides of the split",
                    "Put each group on one side.",
                )
    except csv.Error as error:
        raise bad(file, reader.line_num, f"not a table: {error}") from None
    return sides


def _refuse_duplicates(table: Path, rows: list[_Row], studies: list[Study]) -> None:
    lines: dict[Path, int] = {}
    for (line, _), study in zip(rows, studies, strict=True):
        first = lines.setdefault(study.path, line)
        if first != line:
            raise bad(table, line, f"{study.path.name} is already in line {first}")


def _path(table: Path, line: int, name: str) -> Path:
    try:
        return table.parent / confined(resolved(table.parent), name)
    except ValueError as reason:
        raise bad(table, line, f"{name[:200]!r}: {reason}") from None


def _split(table: Path, line: int, name: str) -> str | None:
    if not name.strip():
        return None
    if name.strip() not in SPLITS:
        raise bad(table, line, f"the split {name[:40]!r} is not one of {', '.join(SPLITS)}")
    return SPLITS[name.strip()]


def _age(table: Path, line: int, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= 130:
        raise bad(table, line, f"the age {text[:40]!r} is not a number of years from 0 to 130")
    return age


def _size(table: Path, line: int, text: str) -> tuple[int, int] | None:
    if not text.strip():
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text.strip())
    if found is None:
        raise bad(table, line, f"the size {text[:40]!r} is not WIDTHxHEIGHT in pixels")
    return int(found[1]), int(found[2])
