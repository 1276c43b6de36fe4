"""Data sets of the Hugging Face Hub, in the form that the library `datasets` reads.

A folder that `Dataset.save_to_disk` wrote, or a downloaded repository («hf download --repo-type
dataset org/name --revision … --local-dir DIR»; tables of parquet, or ImageFolder with or without
metadata.csv). Loading scripts are not run: `datasets` 4 and later have none. Who has a data set
loaded already gives it to `studies_of`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxr_foundation.data.folder import confined
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadIndex, MissingExtra
from cxr_foundation.files import atomic_write

__all__ = ["read", "studies_of"]

_SPLIT = re.compile(r"\w[\w.-]*")
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif"}


def _is_saved(folder: Path) -> bool:
    one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


@reader("hub", title="a data set of the Hugging Face Hub", recognises=_is_saved)
def read(
    folder: Path, *, into: str | Path = "", image: str = "", label: str = "", patient: str = ""
) -> list[Study]:
    """A data set on disk that `datasets` reads; options as for `studies_of`.

    Raises:
        MissingExtra: `datasets` is not installed.
        BadIndex: `datasets` cannot read the folder, and as for `studies_of`.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra(
            "datasets", "is not installed", "pip install 'cxr-foundation-hub[data]'"
        ) from None
    try:
        if _is_saved(folder):
            loaded = datasets.load_from_disk(str(folder))
        else:
            cache = str(Path(into) / ".datasets") if into else None
            loaded = datasets.load_dataset(str(folder), cache_dir=cache)
    except Exception as error:
        # Its errors are of a dozen libraries, and quote what they read.
        raise BadIndex(folder, f"`datasets` cannot read it ({type(error).__name__})") from None
    return studies_of(loaded, folder=folder, into=into, image=image, label=label, patient=patient)


def studies_of(
    loaded: Any,
    *,
    folder: Path | None = None,
    into: str | Path = "",
    image: str = "",
    label: str = "",
    patient: str = "",
) -> list[Study]:
    """One study per row of a `datasets.Dataset`, or of each split of a `DatasetDict`.

    Args:
        loaded: The data set; its pictures are not decoded.
        folder: Where pictures that are files of their own may lie; None if nowhere.
        into: A folder to which pictures are written that the tables themselves hold, under names
            of split, row and digest; those that are there are not written again.
        image: The column of pictures; the only one of that type if it is not named.
        label: The column of labels: class labels or text, one or a list a row. "label" or
            "labels" if it is not named and there is one.
        patient: The column of patients. Without it each row counts as a patient of its own.

    Raises:
        BadIndex: A column that is not there or of another type, a picture outside `folder`, or
            pictures to write and no `into`.
    """
    splits = loaded if isinstance(loaded, dict) else {None: loaded}
    studies: list[Study] = []
    for split, rows in splits.items():
        name = str(split) if split is not None else None
        if name is not None and not _SPLIT.fullmatch(name):
            # Pictures are written under this name.
            raise BadIndex(f"split {name[:60]!r}", "is no name of a part", "")
        studies += _rows(rows, name, folder, str(into), image, label, patient)
    return studies


def _rows(
    rows: Any,
    split: str | None,
    folder: Path | None,
    into: str,
    image: str,
    label: str,
    patient: str,
) -> Iterator[Study]:
    import datasets

    features = rows.features
    pictures = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    if not image and len(pictures) != 1:
        found = ", ".join(pictures) or "none"
        raise BadIndex("the data set", f"has several or no columns of pictures: {found}", "")
    image = image or pictures[0]
    label = label or next((n for n in ("label", "labels") if n in features), "")
    for column in filter(None, (image, label, patient)):
        if column not in features:
            raise BadIndex(f"column {column!r}", "is not in the data set", f"It has {[*features]}.")
    undecoded = rows.cast_column(image, datasets.Image(decode=False))
    for number, row in enumerate(_read(undecoded)):
        if patient and row[patient] in (None, ""):
            raise BadIndex(f"row {number}", f"no patient in column {patient!r}")
        who = pseudonym("hub", str(row[patient]) if patient else f"{split}/{number}")
        yield Study(
            path=_path(row[image], f"{split or 'all'}-{number:07d}", folder, into),
            labels=_labels(label, features.get(label), row.get(label)),
            patient=who,
            group=who,
            split=split,
            source="hub",
        )


def _read(rows: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:
        raise BadIndex(
            "the data set", f"its rows cannot be read ({type(error).__name__})"
        ) from None


def _path(picture: Any, name: str, folder: Path | None, into: str) -> Path:
    """The picture's own file, or the one that it is written to."""
    if not picture:
        raise BadIndex(name, "has no picture")
    data = picture.get("bytes")
    if not data:
        file = Path(picture.get("path") or "")
        try:
            if folder is None:
                raise ValueError("it lies outside of the data set")
            inside = file.resolve().relative_to(folder.resolve()).as_posix()
            return folder / confined(folder.resolve(), inside)
        except ValueError:
            raise BadIndex(name, "its picture lies outside of the data set's folder", "") from None
    if not into:
        raise BadIndex(name, "its picture is in a table", "Name a folder to write to: into=…")
    suffix = next((s for magic, s in _SUFFIXES.items() if data.startswith(magic)), "")
    target = Path(into) / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as partial:
            partial.write_bytes(data)
    return target


def _labels(column: str, feature: Any, value: Any) -> frozenset[str]:
    if not column or value is None:
        return frozenset({"unlabelled"})
    inner = getattr(feature, "feature", feature)
    many = value if isinstance(value, list) else [value]
    if hasattr(inner, "int2str"):
        # -1 is what `datasets` itself writes for rows of an unlabelled part.
        try:
            many = [inner.int2str(v) for v in many if v is not None and v >= 0]
        except (ValueError, IndexError, TypeError):
            raise BadIndex(f"column {column!r}", "has a class that it does not name", "") from None
    elif not all(isinstance(v, str) for v in many):
        reason = "holds neither class labels nor text"
        raise BadIndex(f"column {column!r}", reason, "Cast it to datasets.ClassLabel.")
    words = frozenset(v.strip() for v in many if v.strip())
    return words or frozenset({"unlabelled"})
