"""Open-i: Indiana University's chest radiographs and reports, frontal and lateral.

Release: https://openi.nlm.nih.gov/faq (NLMCXR_png.tgz, NLMCXR_reports.tgz): ecgen-radiology/1.xml …
with an indexer's headings (MeSH, «Cardiomegaly/mild») and the names of the report's pictures,
CXR1_1_IM-0001-3001.png. Article: https://doi.org/10.1093/jamia/ocv080. The copy on Kaggle
(https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university) has indiana_reports.csv and
indiana_projections.csv, which says what is frontal, and images/images_normalized.

Of a report only its headings are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cxr_foundation.data.documents import xml_document
from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, columns_of, rows
from cxr_foundation.data.walking import walk
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_REPORTS = "ecgen-radiology"
_TABLES = ("indiana_reports.csv", "indiana_projections.csv")
_PROJECTIONS = {"Frontal": True, "Lateral": False}
# Headings that say something about the indexing or the picture, not about the patient.
_NO_FINDING = {"no indexing", "technical quality of image unsatisfactory"}


def _xml_folder(folder: Path) -> Path | None:
    places = (folder / _REPORTS, folder / "NLMCXR_reports" / _REPORTS)
    return next((p for p in places if next(p.glob("[0-9]*.xml"), None) is not None), None)


def _is_openi(folder: Path) -> bool:
    return _is_copy(folder) or _xml_folder(folder) is not None


def _is_copy(folder: Path) -> bool:
    return {"uid", "filename", "projection"} <= set(columns_of(folder / _TABLES[1]))


@reader("openi", title="Open-i (Indiana University)", recognises=_is_openi)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Open-i, one study per picture, the labels those of its report.

    A label is an indexer's heading without its qualifiers: «Cardiomegaly/mild» is "cardiomegaly".
    Findings that are not named are not stated as absent. Each report is taken as a patient. The
    view is only known from the copy's table of projections.

    Args:
        folder: Where the reports and pictures lie; pictures are found by their names.
        missing: "refuse" or "skip" pictures that are named and not there.

    Raises:
        BadIndex: A report or table that cannot be taken at its word.
    """
    pictures = Pictures(folder, missing=missing)
    named = _from_tables(folder) if _is_copy(folder) else _from_reports(folder)
    studies = []
    for row, report, headings, name, frontal in named:
        path = pictures.named(row, name)
        if path is None:
            continue
        patient = pseudonym("openi", report)
        studies.append(
            Study(
                path=path,
                labels=_labels(headings),
                patient=patient,
                group=patient,
                study=pseudonym("openi study", report),
                source="openi",
                view="LATERAL" if frontal is False else "",
                frontal=frontal,
            )
        )
    return studies


_Named = tuple[Row, str, list[str], str, bool | None]


def _from_reports(folder: Path) -> Iterator[_Named]:
    place = _xml_folder(folder)
    if place is None:
        raise BadIndex(folder, f"holds no {_REPORTS}/*.xml and no {_TABLES[1]}")
    for file in walk(folder, place.relative_to(folder).as_posix(), {".xml"}):
        root = xml_document(file)
        headings = [node.text or "" for node in root.findall(".//MeSH/major")]
        identifier = root.find("uId")
        report = file.stem if identifier is None else identifier.get("id", "") or file.stem
        for line, picture in enumerate(root.iter("parentImage"), start=1):
            row = Row(file, line, {})
            name = picture.get("id", "")
            if not name:
                raise row.bad("a picture without a name")
            yield row, report.removeprefix("CXR"), headings, f"{name}.png", None


def _from_tables(folder: Path) -> Iterator[_Named]:
    reports = {row["uid"]: row["MeSH"] for row in rows(folder / _TABLES[0], ("uid", "MeSH"))}
    for row in rows(folder / _TABLES[1], ("uid", "filename", "projection")):
        if row["uid"] not in reports:
            raise row.bad(f"the report {row['uid'][:20]!r} is not in {_TABLES[0]}")
        if row["projection"] not in _PROJECTIONS:
            raise row.bad(f"the projection {row['projection'][:20]!r} is not Frontal or Lateral")
        headings = reports[row["uid"]].split(";")
        yield row, row["uid"], headings, row["filename"], _PROJECTIONS[row["projection"]]


def _labels(headings: Iterable[str]) -> frozenset[str]:
    words = {" ".join(heading.partition("/")[0].split()) for heading in headings} - {""}
    labels = {harmonise(word, "openi") for word in words if word.casefold() not in _NO_FINDING}
    return frozenset(labels or {"unlabelled"})
