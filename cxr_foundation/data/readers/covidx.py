"""COVIDx CXR-3 and CXR-4 (https://github.com/lindawangg/COVID-Net, docs/COVIDx.md).

Layout of Kaggle's `covidx-cxr2`: `train.txt`, `val.txt` (CXR-4) and `test.txt` with lines of
"patient file class source", pictures in folders of the part's name. The files that the project's
repository keeps are called `train_COVIDx_CXR-3A.txt` (normal, pneumonia, COVID-19) and
`…-3B.txt` (positive, negative).

The set collects others (covid-chestxray, RSNA, BIMCV and more), and its classes hang on where a
picture is from: `Study.origin` says from where. Scores over pooled origins measure the origin.
"""

from __future__ import annotations

from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, lines
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_PARTS = ("train", "val", "test")


def _lists(folder: Path, part: str) -> list[Path]:
    plain = folder / f"{part}.txt"
    return [plain] if plain.is_file() else sorted(folder.glob(f"{part}_COVIDx*.txt"))


def _is_covidx(folder: Path) -> bool:
    listed = [path for part in _PARTS for path in _lists(folder, part)]
    if not any((folder / part).is_dir() for part in _PARTS):
        return False
    try:
        # Four words with a known class as the third: other sets have a train.txt, too.
        return any(_class_of(next(lines(path, limit=4096), "")) for path in listed)
    except BadIndex:
        return False


@reader("covidx", title="COVIDx CXR-3/4", recognises=_is_covidx)
def read(folder: Path, *, variant: str | None = None, missing: str = "refuse") -> list[Study]:
    """Read COVIDx.

    Args:
        folder: Where the lists lie.
        variant: What a list's name ends in ("3A", "3B"), if there are several of one part.
        missing: "refuse" or "skip" pictures that are not there.

    Raises:
        BadIndex: A list cannot be taken at its word, or it is not clear which to read.
    """
    pictures = Pictures(folder, missing=missing)
    studies = []
    for part in _PARTS:
        listed = _lists(folder, part)
        if variant is not None:
            listed = [p for p in listed if p.stem == part or p.stem.endswith(variant)]
        if len(listed) > 1:
            reason = (
                f"{len(listed)} lists of the part {part!r}: {', '.join(p.name for p in listed)}"
            )
            raise BadIndex(folder, reason, "Choose with variant='3A' or variant='3B'.")
        for path in listed:
            studies += _part(path, part, pictures)
    return studies


def _part(table: Path, part: str, pictures: Pictures) -> list[Study]:
    studies = []
    for number, line in enumerate(lines(table, limit=4096), start=1):
        if not line.strip():
            continue
        row = Row(table, number, {})
        words = line.split()
        kind = _class_of(line)
        if kind is None:
            raise row.bad("not a line of patient, file, class and source")
        # A file's name may hold spaces; the words around it do not.
        name, origin = " ".join(words[1:-2]), words[-1]
        path = pictures.at(row, f"{part}/{name}")
        if path is None:
            continue
        finding = None if kind == "negative" else harmonise(kind, "covidx")
        covid = frozenset({"covid"})
        # Patients of a set that has a reader of its own keep its pseudonym, so that the overlap
        # of the two can be seen.
        owner = origin if origin in ("rsna", "cohen") else f"covidx {origin.casefold()}"
        patient = pseudonym(owner, words[0])
        studies.append(
            Study(
                path=path,
                labels=frozenset({finding} if finding else ()),
                absent=frozenset() if finding == "covid" else covid,
                patient=patient,
                group=patient,
                split=part,
                source="covidx",
                origin=origin,
            )
        )
    return studies


def _class_of(line: str) -> str | None:
    words = line.split()
    known = ("normal", "pneumonia", "COVID-19", "positive", "negative")
    return words[-2] if len(words) >= 4 and words[-2] in known else None
