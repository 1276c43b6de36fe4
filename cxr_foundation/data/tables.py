"""`rows`: the columns that are asked for, of a csv table that somebody else wrote.

Columns that nobody asks for are never looked at, so dates and reports do not get further.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import math
import os
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from cxr_foundation.errors import BadIndex, NoImages

__all__ = ["Row", "bad", "columns_of", "lines", "number", "rows", "sex", "table_at", "years"]

# Run lengths of a mask take some 100 kB; a longer line is no table's. Checked before a line is
# decoded, so a bomb costs no memory.
_LINE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        table: The file.
        line: Where the row ends in it, from 1.
        cells: Text by column, without surrounding space; optional columns that are not there
            are "".
    """

    table: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def bad(self, reason: str, remedy: str | None = None) -> BadIndex:
        """The error that names this row."""
        return bad(self.table, self.line, reason, remedy)


def bad(table: Path, line: int, reason: str, remedy: str | None = None) -> BadIndex:
    """The error that names a table's line."""
    return BadIndex(f"{table}: line {line}", reason, remedy)


def rows(
    table: Path,
    needed: Sequence[str],
    *,
    optional: Sequence[str] = (),
    delimiter: str = ",",
) -> Iterator[Row]:
    """The rows of a csv table, or of one compressed by gzip, with a header in its first line.

    Args:
        table: The file; ".gz" at its end means gzip.
        needed: Columns that have to be there.
        optional: Columns that may be there.
        delimiter: Between two cells.

    Yields:
        Each row with the columns asked for, in the file's order.

    Raises:
        NoImages: There is no row.
        BadIndex: A column is missing or there twice, a row is longer or shorter than the header,
            a line is too long, not UTF-8, or a cell that is asked for holds control characters.
    """
    header: list[str] = []
    places: dict[str, int] = {}
    any_row, written = False, 0
    parsed = csv.reader(lines(table, limit=_LINE_BYTES), strict=True, delimiter=delimiter)
    try:
        for cells in parsed:
            if not header:
                header, written = _named(cells), len(cells)
                places = _places(table, header, needed, optional)
                continue
            if not _fits(cells, header, written):
                reason = f"{len(cells)} fields where the header has {len(header)}"
                raise bad(table, parsed.line_num, reason)
            any_row = True
            kept = {column: cells[place].strip() for column, place in places.items()}
            kept.update((column, "") for column in optional if column not in places)
            for column, text in kept.items():
                if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
                    reason = f"the cell of {column!r} holds control characters"
                    raise bad(table, parsed.line_num, reason)
            yield Row(table, parsed.line_num, kept)
    except csv.Error as error:
        raise bad(table, parsed.line_num, f"not a table: {error}") from None
    if not any_row:
        raise NoImages(table, "has no rows")


def columns_of(table: Path, *, delimiter: str = ",") -> list[str]:
    """The names in a table's first line; empty if the file is not there or is no table.

    For recognising a data set: it never raises for a file's content.
    """
    try:
        first = next(lines(table, limit=1 << 16), "")
        return _named(next(csv.reader([first], delimiter=delimiter), []))
    except (BadIndex, csv.Error):
        return []


def table_at(folder: Path, name: str) -> Path | None:
    """The table of this name in a folder, or its gzip; None if neither is a file there."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def lines(table: Path, *, limit: int) -> Iterator[str]:
    """The lines of a text file, decoded one by one; a byte order mark is passed over.

    Raises:
        BadIndex: Not a regular file, cannot be read, a line has more than `limit` bytes or is
            not UTF-8.
    """
    if not table.is_file():
        # A pipe would block for ever, a folder raise an error of the system's.
        raise BadIndex(table, "not a regular file" if table.exists() else "does not exist")
    number = 0
    try:
        with _opened(table) as file:
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise bad(table, number, f"longer than {limit:,} bytes")
                try:
                    # Spreadsheets write a byte order mark in front of the first column's name.
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    remedy = "Save the table as UTF-8."
                    raise bad(table, number, "not UTF-8", remedy) from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadIndex(table, "the table cannot be read to its end") from error


def years(row: Row, column: str) -> float | None:
    """An age in years; None for an empty cell.

    Raises:
        BadIndex: Not a number from 0 to 130.
    """
    age = number(row, column)
    if age is not None and not 0 <= age <= 130:
        raise row.bad(f"the age {row[column][:40]!r} is not a number of years from 0 to 130")
    return age


def number(row: Row, column: str) -> float | None:
    """A finite number; None for an empty cell, and for the "nan" and "None" of pandas.

    Raises:
        BadIndex: Not a number, or not a finite one.
    """
    if row[column].lower() in ("", "nan", "none"):
        return None
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise row.bad(f"{column} is {row[column][:40]!r}, not a number")
    return value


def sex(row: Row, column: str) -> str:
    """The sex "F" or "M", or "" for all else that tables write (unknown, other, nothing)."""
    word = row[column].casefold()
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(word, "")


def _named(cells: list[str]) -> list[str]:
    """A header's names without the empty ones at its end."""
    header = [c.strip() for c in cells]
    while header and not header[-1]:
        header.pop()
    return header


def _fits(cells: list[str], header: list[str], written: int) -> bool:
    """Whether a row has a cell per column.

    Published headers end in empty names; rows then end in as many empty cells, or in none. A row
    that lost a cell in the middle must not pass for one of the second kind.
    """
    if len(cells) == written:
        return not any(cells[len(header) :])
    return len(cells) == len(header) and bool(cells[-1])


def _opened(table: Path) -> BinaryIO:
    if table.suffix == ".gz":
        return cast(BinaryIO, gzip.open(table, "rb"))
    return open(os.fspath(table), "rb")


def _places(
    table: Path, header: list[str], needed: Sequence[str], optional: Sequence[str]
) -> dict[str, int]:
    places = {}
    for column in (*needed, *optional):
        if header.count(column) > 1:
            raise bad(table, 1, f"the column {column!r} is there twice")
        if column in header:
            places[column] = header.index(column)
        elif column in needed:
            raise bad(table, 1, f"the column {column!r} is missing")
    return places
