"""A plain folder of pictures and DICOM files, without an index."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadIndex, NoImages, UnreadableImage

__all__ = ["confined", "read_folder", "resolved"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
DICOMS = frozenset({".dcm", ".dicom"})


def confined(root: Path, name: str) -> Path:
    """The regular file that `name` is inside `root`, relative to it and with links resolved.

    Args:
        root: A folder, resolved.
        name: A relative path with forward slashes, as an index writes it.

    Raises:
        ValueError: The path is absolute, climbs, leaves the folder through a link, or is not a
            regular file. Its message is a reason without the name.
    """
    if name.startswith("/") or "\\" in name or ":" in name.split("/", 1)[0]:
        raise ValueError("the path is not relative to the index")
    if ".." in name.split("/"):
        raise ValueError("the path climbs with '..'")
    path = root / name
    try:
        real = resolved(path.parent) / path.name
        mode = real.lstat().st_mode
        if stat.S_ISLNK(mode):
            real = real.resolve(strict=True)
            mode = real.stat().st_mode
    except (OSError, RuntimeError, ValueError):
        raise ValueError("no such file") from None
    if not real.is_relative_to(root):
        raise ValueError("the path leaves the folder through a link")
    if not stat.S_ISREG(mode):
        raise ValueError("not a regular file")
    return real.relative_to(root)


@lru_cache(maxsize=1024)
def resolved(folder: Path) -> Path:
    """The folder without links; cached, since a table names the same few a million times."""
    return folder.resolve(strict=True)


def read_folder(folder: Path, *, keep_unreadable: bool = False) -> list[Study]:
    """Every picture and DICOM under a folder, sorted by path.

    A file counts by its suffix (PNG, JPEG, TIFF, DICOM), or, without one, by DICOM's magic bytes.
    Hidden files and links to folders are passed over; a file that is there under two names counts
    once. The patient is the file's stem, or, for
    DICOM, a keyed hash of PatientID.

    Args:
        folder: Where to search.
        keep_unreadable: A DICOM whose header cannot be read is its own patient; whoever reads its
            pixels will refuse it by name.

    Raises:
        NoImages: There is none.
        BadIndex: A folder that cannot be read, or a picture that lies outside through a link.
        UnreadableImage: A DICOM whose header cannot be read.
    """
    root = folder.resolve()
    studies: dict[Path, Study] = {}
    for name in _files(root):
        try:
            path = folder / confined(root, name)
        except ValueError as reason:
            raise BadIndex(root / name, str(reason), "Mend or remove this file.") from None
        patient = Path(name).stem
        if path.suffix.lower() not in PICTURES:
            try:
                patient = _hashed_patient(path) or patient
            except UnreadableImage:
                if not keep_unreadable:
                    raise
        studies.setdefault(path, Study(path=path, patient=patient, group=patient))
    if not studies:
        raise NoImages(folder, "holds no DICOM, PNG, JPEG or TIFF file")
    return list(studies.values())


def _files(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise BadIndex(error.filename or root, "the folder cannot be read") from error

    names = []
    for parent, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for file in files:
            path = Path(parent, file)
            suffix = path.suffix.lower()
            if file.startswith("."):
                continue
            if suffix in PICTURES | DICOMS or (not suffix and _has_magic(path)):
                names.append(path.relative_to(root).as_posix())
    return iter(sorted(names))


def _has_magic(path: Path) -> bool:
    # Only regular files are opened: a pipe would block for ever.
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise BadIndex(path, "the file cannot be read") from error


def _hashed_patient(path: Path) -> str | None:
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    from cxr_foundation.images.source import quiet

    try:
        # pydicom's warnings quote header values; none may reach a log.
        with quiet:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            patient = str(header.get("PatientID") or "").strip()
    except (
        InvalidDicomError,
        BytesLengthException,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        NotImplementedError,
        TypeError,
    ):
        raise UnreadableImage(path, "the DICOM header cannot be read") from None
    if not patient:
        return None
    return pseudonym("dicom", patient)
