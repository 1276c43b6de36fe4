"""`Pictures`: from the names that a data set's tables give to the files that are there."""

from __future__ import annotations

import os
from pathlib import Path

from cxr_foundation.data.folder import confined, resolved
from cxr_foundation.data.tables import Row
from cxr_foundation.errors import BadIndex

__all__ = ["MISSING", "Pictures"]

#: What to do about a picture that a table names and that is not there.
MISSING = ("refuse", "skip")


class Pictures:
    """The files of one data set; each one that is handed out lies inside its folder.

    Args:
        folder: The data set's folder.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: `missing` is neither.
    """

    def __init__(self, folder: Path, *, missing: str = "refuse"):
        if missing not in MISSING:
            raise BadIndex(f"missing={missing!r}", "is neither 'refuse' nor 'skip'", "")
        self.folder = folder
        self._skip = missing == "skip"
        self._by_name: dict[str, list[str]] | None = None

    def at(self, row: Row, name: str) -> Path | None:
        """The file at a path relative to the folder; None if it is not there and may be skipped.

        Raises:
            BadIndex: The path leaves the folder, or the file is not there; names the row.
        """
        # lexists first: only a file that is not there may be skipped, never one that is refused.
        climbs = name.startswith("/") or ".." in name.split("/")
        if not climbs and not os.path.lexists(self.folder / name):
            self._refuse_absent(row, name)
            return None
        try:
            return self.folder / confined(resolved(self.folder), name)
        except ValueError as reason:
            raise row.bad(f"{name[:200]!r}: {reason}") from None

    def named(self, row: Row, name: str) -> Path | None:
        """The file of this name, wherever it lies in the folder; None as for `at`.

        Raises:
            BadIndex: There are two of this name, or none; names the row.
        """
        found = self._names().get(name, [])
        if len(found) > 1:
            reason = f"{name[:100]!r} is there twice: {found[0]} and {found[1]}"
            raise row.bad(reason, "Keep one of the two files.")
        if not found:
            self._refuse_absent(row, name)
            return None
        return self.at(row, found[0])

    def _refuse_absent(self, row: Row, name: str) -> None:
        if not self._skip:
            remedy = "Complete the download, or read what is there with missing='skip'."
            raise row.bad(f"{name[:200]!r} is not in the folder", remedy)

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for parent, folders, files in os.walk(self.folder):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                inside = Path(parent).relative_to(self.folder)
                for file in files:
                    self._by_name.setdefault(file, []).append((inside / file).as_posix())
        return self._by_name
