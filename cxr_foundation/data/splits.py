"""Splits: no patient on two sides, and which pictures may be redistributed."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable

from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadIndex, PatientLeak

__all__ = ["SPLITS", "by_split", "check_disjoint", "in_our_parts", "may_ship", "same_patient"]

#: The three parts, and the other names that indices in the wild give them.
SPLITS = {
    "pretrain": "pretrain",
    "train": "pretrain",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}

# What published data sets call their parts.
_OFFICIAL = {
    **SPLITS,
    "validate": "dev",
    "train_val": "pretrain",
    "chexnet_train": "pretrain",
    "chexnet_val": "dev",
    "chexnet_test": "test",
}

# Terms that grant redistribution with attribution, per source, as the index words them; the
# terms of other pictures (non-commercial, share-alike, unversioned, academic) are not among them.
_OPEN_TERMS = {
    "kermany": ("CC BY 4.0",),
    "nih": ("NIH CC: no restrictions on use, cite Wang et al. 2017",),
    "shenzhen": (
        "NLM public release for research/education; cite Jaeger 2014 + Candemir 2014; "
        "lung mask CC BY-NC-SA 4.0",
    ),
    "cohen": ("CC BY 3.0", "CC BY 4.0"),
}


def same_patient(name: str) -> str:
    """The form in which two spellings of one identifier agree.

    Case, surrounding space and Unicode presentation forms are not told apart ("P0 " is "p0");
    numbers are not parsed, so "007" and "7" stay two patients.
    """
    return unicodedata.normalize("NFKC", name).strip().casefold()


def check_disjoint(studies: Iterable[Study]) -> None:
    """Refuse a data set in which a patient or a group is on two sides of the split.

    Raises:
        PatientLeak: The subject is a picture of that patient, the reason names both sides.
    """
    sides: dict[tuple[str, str], Study] = {}
    for study in studies:
        if study.split is None:
            continue
        for kind, name in (("patient", study.patient), ("group", study.group)):
            first = sides.setdefault((kind, same_patient(name)), study)
            if first.split != study.split:
                raise PatientLeak(
                    study.path.name,
                    f"its {kind} is in {study.split!r}, and in {first.split!r} with "
                    f"{first.path.name}",
                )


def by_split(studies: Iterable[Study], split: str) -> list[Study]:
    """The studies of one part ("pretrain", "dev" or "test"), in their order.

    A published data set's own parts ("train_val", "valid") are asked for by their own names.

    Raises:
        BadIndex: No such part, or none of the studies is in it.
    """
    studies = list(studies)
    if split not in SPLITS.values() and all(s.split != split for s in studies):
        raise BadIndex(split, "no split of this name", "Splits are pretrain, dev and test.")
    part = [s for s in studies if s.split == split]
    if not part:
        known = sorted({str(s.split) for s in studies if s.split is not None})
        has = f"only of {', '.join(known)}" if known else "but no split at all"
        raise BadIndex(split, f"the index has {len(studies)} pictures, {has}")
    return part


def in_our_parts(studies: Iterable[Study]) -> list[Study]:
    """The studies with a published data set's parts under our names.

    "train", "train_val" and "chexnet_train" become "pretrain", "val", "valid", "validate" and
    "chexnet_val" become "dev"; studies without a split stay so.

    Raises:
        BadIndex: A part that is none of these.
    """
    renamed = []
    for study in studies:
        if study.split is not None and study.split not in _OFFICIAL:
            known = ", ".join(sorted(_OFFICIAL))
            raise BadIndex(study.split, "no split of this name", f"Known are {known}.")
        split = None if study.split is None else _OFFICIAL[study.split]
        renamed.append(dataclasses.replace(study, split=split))
    return renamed


def may_ship(study: Study) -> bool:
    """Whether the picture, or weights trained on it, may be handed on with attribution.

    The source and the exact wording of its terms must both be known: CC BY 3.0 or 4.0 for the
    covid-chestxray-dataset's rows, and the public terms of Kermany 2018, ChestX-ray14 and the
    Shenzhen set (pictures, not masks).
    """
    return study.licence in _OPEN_TERMS.get(study.source, ())
