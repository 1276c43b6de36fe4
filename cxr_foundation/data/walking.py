"""`walk`: the files of a data set that has no table, each inside its folder; `small_text`."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from cxr_foundation.data.folder import confined
from cxr_foundation.errors import BadIndex

__all__ = ["PICTURES", "small_text", "walk"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".mha"})
"""Suffixes of files that `images.read_image` takes, in small letters."""

_TEXT_BYTES = 1 << 26


def walk(folder: Path, under: str = ".", suffixes: Collection[str] = PICTURES) -> list[Path]:
    """Every file with one of these suffixes, sorted by path; pictures are not opened.

    Hidden files and folders, and links to folders, are passed over.

    Args:
        folder: The data set's folder.
        under: The part of it that is searched, relative to it.
        suffixes: In small letters, with their dots.

    Returns:
        Paths that begin with `folder`.

    Raises:
        BadIndex: A folder cannot be read, or a file lies outside through a link.
    """

    def refuse(error: OSError) -> None:
        raise BadIndex(error.filename or folder, "the folder cannot be read") from error

    root = folder.resolve()
    found = []
    for parent, folders, files in os.walk(root / under, onerror=refuse):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        for file in files:
            if not file.startswith(".") and Path(file).suffix.lower() in suffixes:
                found.append(Path(parent, file).relative_to(root).as_posix())
    paths = []
    for name in sorted(found):
        try:
            paths.append(folder / confined(root, name))
        except ValueError as reason:
            raise BadIndex(folder / name, str(reason), "Mend or remove this file.") from None
    return paths


def small_text(file: Path, encoding: str = "utf-8") -> str:
    """A whole text file of at most 64 MiB.

    Raises:
        BadIndex: Not a regular file, too large, cannot be read, or not in that encoding.
    """
    if not file.is_file():
        raise BadIndex(file, "not a regular file" if file.exists() else "does not exist")
    try:
        with open(file, "rb") as opened:
            data = opened.read(_TEXT_BYTES + 1)
        if len(data) > _TEXT_BYTES:
            raise BadIndex(file, f"longer than {_TEXT_BYTES:,} bytes")
        return data.decode(encoding)
    except OSError as error:
        raise BadIndex(file, "cannot be read") from error
    except UnicodeDecodeError:
        raise BadIndex(file, f"not {encoding.upper()}") from None
