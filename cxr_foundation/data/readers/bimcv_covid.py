"""BIMCV-COVID19+ and BIMCV-COVID19- (de la Iglesia Vayá et al., https://arxiv.org/abs/2006.01174).

Layout, one folder per arm ("covid19_posi", "covid19_neg"): `participants.tsv`, a table of labels
below `derivatives/labels` (its name differs between iterations) whose `ReportID` is a session,
and 16-bit PNG in `sub-S…/ses-E…/mod-rx/…_vp-pa_dx.png`. CT volumes are left out.

Labels are mined from a session's report. In the arm of patients who tested positive, COVID-19 is
a label only where the report says so; in the other it is absent. The arms share patients under
different numbers, and without the owners' list of these nobody can tell which: never put one arm
into training and the other into testing. Results of laboratory tests are not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.listing import Pictures
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.readers.padchest import terms
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Study
from cxr_foundation.data.tables import Row, columns_of, rows, sex
from cxr_foundation.errors import BadIndex

__all__ = ["read"]

_ARMS = {"posi": "positive", "nega": "negative", "neg": "negative"}
_FRONTAL = {"pa": True, "ap": True, "lateral": False, "ll": False, "lat": False}


def _labels_of(folder: Path) -> tuple[Path, str] | None:
    """The table of labels and the arm that its name states."""
    for table in sorted((folder / "derivatives" / "labels").glob("*.tsv")):
        words = re.split(r"[^a-z]+", table.stem.casefold())
        arm = next((_ARMS[w] for w in words if w in _ARMS), None)
        if arm and {"ReportID", "Labels"} <= set(columns_of(table, delimiter="\t")):
            return table, arm
    return None


@reader(
    "bimcv_covid",
    title="BIMCV-COVID19+/-",
    recognises=lambda folder: _labels_of(folder) is not None,
)
def read(folder: Path, *, missing: str = "refuse") -> list[Study]:
    """Read one arm of BIMCV-COVID19; pictures in the order of their paths.

    Args:
        folder: One arm's folder.
        missing: Without effect: the pictures that are there are listed, not a table's.

    Raises:
        BadIndex: A table cannot be taken at its word.
    """
    found = _labels_of(folder)
    if found is None:
        raise BadIndex(folder, "holds no table of labels of an arm in derivatives/labels")
    table, arm = found
    sessions = {
        row["ReportID"]: terms(row["Labels"])
        for row in rows(table, ("ReportID", "Labels"), delimiter="\t")
    }
    people = _people(folder / "participants.tsv")
    pictures = Pictures(folder, missing=missing)
    studies = []
    for inside in _files(folder):
        subject, session, _, name = inside.split("/")
        path = pictures.at(Row(table, 1, {}), inside)
        if path is None:
            continue
        view = found_view[1] if (found_view := re.search(r"_vp-([a-z]+)", name)) else ""
        words = sessions.get(session)
        labels = {harmonise(w, "bimcv_covid") for w in words or ()}
        doubtful = {"covid"} if "covid_19_uncertain" in labels else set()
        labels -= {"covid_19_uncertain", "unchanged", "exclude", "suboptimal_study"}
        patient = pseudonym(f"bimcv_covid {arm}", subject)
        who, age = people.get(subject, ("", None))
        studies.append(
            Study(
                path=path,
                labels=frozenset(labels or {"unlabelled"}),
                absent=frozenset({"covid"} - labels if arm == "negative" else ()),
                uncertain=frozenset(doubtful - labels),
                patient=patient,
                group=patient,
                study=pseudonym(f"bimcv_covid {arm} session", session),
                source="bimcv_covid",
                origin=arm,
                view=view.upper(),
                frontal=_FRONTAL.get(view),
                sex=who,
                age=age,
            )
        )
    return studies


def _files(folder: Path) -> Iterator[str]:
    """Radiographs, as paths relative to the arm's folder, sorted."""
    for subject in _below(folder, "sub-"):
        for session in _below(folder / subject, "ses-"):
            inside = f"{subject}/{session}/mod-rx"
            if not (folder / inside).is_dir():
                continue
            for name in sorted(os.listdir(folder / inside)):
                if name.endswith(".png"):
                    yield f"{inside}/{name}"


def _below(folder: Path, prefix: str) -> list[str]:
    entries = os.scandir(folder)
    return sorted(e.name for e in entries if e.name.startswith(prefix) and e.is_dir())


def _people(table: Path) -> dict[str, tuple[str, float | None]]:
    """Sex and age by subject. An age over several sessions ("[71, 72]") is the youngest."""
    if not table.is_file():
        return {}
    people = {}
    columns = ("participant", "age", "gender")
    for row in rows(table, columns, delimiter="\t"):
        ages = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", row["age"])]
        age = min(ages) if ages and 0 <= min(ages) <= 130 else None
        people[row["participant"]] = (sex(row, "gender"), age)
    return people
