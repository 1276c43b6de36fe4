"""`open_data`: whatever holds radiographs, as studies; `fingerprint`: whether they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cxr_foundation.data.folder import read_folder
from cxr_foundation.data.index import read_index
from cxr_foundation.data.reading import read, recognise
from cxr_foundation.data.sample import Sample
from cxr_foundation.data.shards import Shards, is_sharded
from cxr_foundation.data.study import Study

__all__ = ["fingerprint", "open_data"]


def open_data(
    path: str | os.PathLike[str], name: str | None = None, *, disjoint: bool = True
) -> Sequence[Study]:
    """The studies of a folder of shards, an index.csv, a published data set, or a plain folder.

    A DICOM of a plain folder whose header cannot be read is among them: one damaged file must
    not keep the others from being read, and is refused by name where its pixels are.

    Args:
        path: A folder, or an index file.
        name: Which published data set it is, one of `data_sets()`; None to recognise it.
        disjoint: Refuse an index in which a patient is on two sides of the split.

    Raises:
        DataError: Nothing is there, or it cannot be taken at its word.
        UnknownName: No data set is called `name`.
    """
    path = Path(path)
    if name is not None:
        return read(path, name)
    if is_sharded(path):
        return Shards(path)
    if not path.is_dir() or (path / "index.csv").exists():
        return read_index(path, disjoint=disjoint)
    if recognise(path):
        return read(path)
    return read_folder(path, keep_unreadable=True)


def fingerprint(studies: Iterable[Study]) -> str:
    """A digest of files' names, sizes, times and labels, by which a run knows its data again.

    Not of their content: reading everything once more would take hours.
    """
    digest = hashlib.sha256()
    for study in studies:
        seen: tuple[object, ...] = (-1,)
        if isinstance(study, Sample):
            seen = (study.offset, study.size, study.sha256)
        elif study.path.exists():
            status = study.path.stat()
            seen = (status.st_size, status.st_mtime_ns)
        labels = sorted(study.labels), sorted(study.absent), sorted(study.uncertain), study.split
        digest.update(repr((str(study.path), *seen, *labels)).encode())
    return digest.hexdigest()
