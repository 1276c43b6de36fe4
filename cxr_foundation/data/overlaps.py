"""Which public data sets share radiographs: one table, and the questions that are asked of it.

`DATA_SETS` is the table. `identify` finds a set in it by any of its names, `relation` says what two
sets have to do with each other, `table` prints it. A set that draws on another is never external to
it, nor are two sets that draw on a third: RSNA and SIIM were both chosen from ChestX-ray14.

That two sets are not related here means that nobody has recorded it. `cxr audit` compares pictures.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

__all__ = [
    "DATA_SETS",
    "DataSet",
    "Draw",
    "Relation",
    "identify",
    "relation",
    "table",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """One set takes radiographs from another.

    Attributes:
        source: Name of the set that they are taken from.
        share: "all": every radiograph is from there; "some": others come from elsewhere.
        evidence: Address of a page that says so, or "secondhand" where none was read.
    """

    source: str
    share: Literal["all", "some"]
    evidence: str


@dataclasses.dataclass(frozen=True, slots=True)
class DataSet:
    """A public data set.

    Attributes:
        name: Short name, as in `Study.source`.
        title: Name in full, for people.
        aliases: Other names, as cards and papers write them.
        draws: The sets that it takes radiographs from; empty if it collected its own.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    draws: tuple[Draw, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """What two sets have to do with each other.

    Attributes:
        kind: "same"; "within": every radiograph of one set is from the other; "shares": some are;
            "common": both draw on a third set, so they may share some.
        reason: In words, with the names of both.
    """

    kind: Literal["same", "within", "shares", "common"]
    reason: str


_COVIDX = "https://github.com/lindawangg/COVID-Net/blob/0107ac9be7aa05daed51e893e721945501b1cc84/docs/COVIDx.md"
_NODE21 = "https://zenodo.org/record/4725881"
_CHEXMASK = "https://huggingface.co/papers/2307.03293"
_RADIOGRAPHY = (
    "https://huggingface.co/spaces/dgrant6/Clinical-Demo/blob/main/data/"
    "COVID-19_Radiography_Dataset/README.md.txt"
)
_SECONDHAND = "secondhand"

DATA_SETS: tuple[DataSet, ...] = (
    DataSet("nih", "NIH ChestX-ray14", ("NIH-CXR", "NIH", "ChestX-ray14", "ChestX-ray8", "CXR14")),
    DataSet("chexpert", "CheXpert", ("CheXpert Plus", "CheX")),
    DataSet("mimic_cxr", "MIMIC-CXR", ("MIMIC", "MIMIC-CXR-JPG")),
    DataSet("padchest", "PadChest", ("PC",)),
    DataSet("vindr_cxr", "VinDr-CXR", ("VinBigData", "VinDr")),
    DataSet("vindr_pcxr", "VinDr-PCXR"),
    DataSet("brax", "BRAX"),
    DataSet("candid_ptx", "CANDID-PTX"),
    DataSet("openi", "Open-i", ("Indiana University", "IU X-Ray", "Indiana")),
    DataSet("kermany", "Kermany 2018", ("Kermany", "chest-xray-pneumonia", "Guangzhou")),
    DataSet("shenzhen", "NLM Shenzhen", ("Shenzhen", "ChinaSet")),
    DataSet("montgomery", "NLM Montgomery", ("Montgomery", "MontgomerySet")),
    DataSet("jsrt", "JSRT"),
    # Its folder imgs/extra holds other sets. Its own 11,200 radiographs are none of theirs, and its
    # reader leaves the folder out; who trains on the whole download does not. The owners' page
    # (https://github.com/yun-liu/Tuberculosis at 1f39a536) lists both sets and says nothing of it.
    DataSet(
        "tbx11k",
        "TBX11K",
        draws=tuple(Draw(s, "some", _SECONDHAND) for s in ("montgomery", "shenzhen")),
    ),
    DataSet("bimcv_covid", "BIMCV-COVID19", ("BIMCV", "BIMCV-COVID19+", "BIMCV-COVID19-")),
    DataSet("ricord", "MIDRC-RICORD-1c", ("RICORD", "MIDRC-RICORD")),
    DataSet("covid_ny_sbu", "COVID-19-NY-SBU", ("Stony Brook COVID-19",)),
    DataSet(
        "cohen", "covid-chestxray-dataset", ("covid-chestxray", "COVID-19 Image Data Collection")
    ),
    DataSet("figure1", "Figure 1 COVID-19 chest X-ray dataset", ("Figure1",)),
    DataSet("actualmed", "Actualmed COVID-19 chest X-ray dataset", ("Actualmed",)),
    DataSet(
        "rsna",
        "RSNA pneumonia detection challenge",
        ("RSNA", "RSNA pneumonia"),
        (Draw("nih", "all", _COVIDX),),
    ),
    DataSet(
        "siim",
        "SIIM-ACR pneumothorax segmentation",
        ("SIIM", "SIIM pneumothorax", "SIIM-ACR", "SIIM-ACR pneumothorax"),
        (Draw("nih", "all", _SECONDHAND),),
    ),
    DataSet("ranzcr", "RANZCR CLiP", ("RANZCR", "RANZCR-CLiP"), (Draw("nih", "all", _SECONDHAND),)),
    DataSet(
        "chestx_det",
        "ChestX-Det",
        ("ChestX-Det10", "ChestXDet"),
        (Draw("nih", "all", _SECONDHAND),),
    ),
    DataSet("ms_cxr", "MS-CXR", draws=(Draw("mimic_cxr", "all", _SECONDHAND),)),
    DataSet("cxr_lt", "CXR-LT", draws=(Draw("mimic_cxr", "all", _SECONDHAND),)),
    DataSet("chexlocalize", "CheXlocalize", draws=(Draw("chexpert", "all", _SECONDHAND),)),
    DataSet("bse_jsrt", "BSE-JSRT", draws=(Draw("jsrt", "all", _SECONDHAND),)),
    DataSet(
        "vindr_ribcxr",
        "VinDr-RibCXR",
        draws=(Draw("vindr_cxr", "all", "https://vindr.ai/datasets/ribcxr"),),
    ),
    DataSet(
        "node21",
        "NODE21",
        draws=tuple(Draw(s, "some", _NODE21) for s in ("jsrt", "padchest", "nih", "openi")),
    ),
    DataSet(
        "chexmask",
        "CheXmask",
        draws=tuple(
            Draw(s, "some", _CHEXMASK)
            for s in ("candid_ptx", "nih", "chexpert", "mimic_cxr", "padchest", "vindr_cxr")
        ),
    ),
    DataSet(
        "covid_radiography",
        "COVID-19 Radiography Database",
        ("COVID-19 Radiography",),
        (
            Draw("rsna", "some", _RADIOGRAPHY),
            Draw("padchest", "some", _RADIOGRAPHY),
            Draw("bimcv_covid", "some", _SECONDHAND),
            Draw("kermany", "some", _SECONDHAND),
            Draw("cohen", "some", _SECONDHAND),
        ),
    ),
    DataSet(
        "covidx",
        "COVIDx",
        ("COVIDx CXR-3", "COVIDx CXR-4", "COVIDx CXR-2", "CovidX"),
        tuple(
            Draw(s, "some", _COVIDX)
            for s in (
                "cohen",
                "figure1",
                "actualmed",
                "covid_radiography",
                "rsna",
                "ricord",
                "covid_ny_sbu",
                "bimcv_covid",
            )
        ),
    ),
)
"""All sets that a relation is recorded of, and those that cards and readers name."""

_BY_NAME = {data_set.name: data_set for data_set in DATA_SETS}


def identify(name: str) -> DataSet | None:
    """The data set that a name means, or None if the table has none.

    Letter case, spaces, hyphens and underscores do not count, nor does what follows a comma, a
    bracket or "et al." ("NIH ChestX-ray14, Wang et al. 2017").
    """
    names = _names()
    for part in (name, re.split(r"[,(\[]| et al", name)[0]):
        found = names.get(_plain(part))
        if found is not None:
            return found
    return None


def relation(one: DataSet, other: DataSet) -> Relation | None:
    """Why radiographs of one set may be in the other, or None if nothing is recorded.

    The order of the two does not matter.
    """
    if one == other:
        return Relation("same", f"both are {one.title}")
    for part, whole in ((one, other), (other, one)):
        chain = _drawn(part).get(whole.name)
        if chain is not None:
            share = "all" if chain == "all" else "some"
            reason = f"{share} of {part.title}'s radiographs are taken from {whole.title}"
            return Relation("within" if chain == "all" else "shares", reason)
    both = sorted(set(_drawn(one)) & set(_drawn(other)))
    if both:
        third = " and ".join(_BY_NAME[name].title for name in both)
        return Relation("common", f"{one.title} and {other.title} both draw on {third}")
    return None


def table() -> Iterator[str]:
    """The relations as lines of a Markdown table, in the order of `DATA_SETS`."""
    yield "| data set | takes | from | evidence |"
    yield "|---|---|---|---|"
    for data_set in DATA_SETS:
        for draw in data_set.draws:
            source = _BY_NAME[draw.source].title
            yield f"| {data_set.title} | {draw.share} | {source} | {draw.evidence} |"


def _drawn(data_set: DataSet) -> dict[str, str]:
    """The sets that one draws on, directly or through others: name → "all" or "some"."""
    found: dict[str, str] = {}
    for draw in data_set.draws:
        steps = {draw.source: draw.share, **dict(_drawn(_BY_NAME[draw.source]).items())}
        for name, share in steps.items():
            whole = draw.share == "all" and share == "all"
            found[name] = "all" if whole or found.get(name) == "all" else "some"
    return found


def _plain(name: str) -> str:
    # A plus or minus at the end is a part of the name: BIMCV-COVID19+ holds other patients.
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _names() -> dict[str, DataSet]:
    return {
        _plain(name): data_set
        for data_set in DATA_SETS
        for name in (data_set.name, data_set.title, *data_set.aliases)
    }
