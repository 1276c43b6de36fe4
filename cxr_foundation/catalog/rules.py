"""What one card has to keep beyond its schema: every fact has evidence, every gap a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cxr_foundation.catalog.records import Checkpoint, Source
from cxr_foundation.registry import closest

__all__ = ["EMPTY_MEANS_UNKNOWN", "SOURCE_FIELDS", "Broken", "check"]

SOURCE_FIELDS: dict[str, frozenset[str]] = {
    "bundled": frozenset({"path", "sha256", "size_bytes"}),
    "hub": frozenset({"repo", "revision", "filename", "sha256", "size_bytes"}),
    "url": frozenset({"url", "filename", "sha256", "size_bytes"}),
    "google_drive": frozenset({"file_id", "filename", "sha256", "size_bytes"}),
    "ask": frozenset({"how"}),
}
"""Which fields of a source its kind uses, besides `kind` itself and a remark in `how`."""

_IDENTITY = {
    "bundled": "path",
    "hub": "repo",
    "url": "url",
    "google_drive": "file_id",
    "ask": "how",
}

EMPTY_MEANS_UNKNOWN = ("data", "overlaps")
"""Lists of `training` that are null in a card where nothing is known."""

# Null says "there is none" here, which is a fact and not a gap.
_NONE_IS_A_FACT = {
    "source.how",
    "conversion.takes",
    "contract.resize",
    "contract.percentile",
    "gating",
    "training.recipe",
    "citation",
}
_OURS = "cxr_foundation"


class Broken(Exception):
    """A rule that a card breaks: the key, what is wrong there, and perhaps what was meant."""

    def __init__(self, key: str, reason: str, hint: str = "") -> None:
        super().__init__(key, reason)
        self.key, self.reason, self.hint = key, reason, hint


def check(checkpoint: Checkpoint, hub: Mapping[str, Any]) -> None:
    """Check what the keys of a card say together.

    Args:
        checkpoint: The record; its `path` names the file.
        hub: The card's top-level keys.

    Raises:
        Broken: With the first rule that is not kept.
    """
    _check_name(checkpoint)
    _check_source(checkpoint.source)
    _check_licence(checkpoint, hub)
    facts = _facts(checkpoint)
    _check_unknown(checkpoint, facts)
    _check_evidence(checkpoint, facts)
    _check_golden(checkpoint)


def _check_name(checkpoint: Checkpoint) -> None:
    name, path = checkpoint.name, checkpoint.path
    if name.rpartition(".")[0] != checkpoint.architecture:
        raise Broken(f"{_OURS}.name", f"{name!r} does not begin with '{checkpoint.architecture}.'")
    if path is not None and path.name != "README.md" and path.stem != name:
        raise Broken(f"{_OURS}.name", f"{name!r} is not the name of the file")


def _check_source(source: Source) -> None:
    used = SOURCE_FIELDS[source.kind]
    identity = _IDENTITY[source.kind]
    if getattr(source, identity) is None:
        raise Broken(f"{_OURS}.source.{identity}", f"a source of kind '{source.kind}' needs it")
    for name, value in vars(source).items():
        if name in used or name in ("kind", "how"):
            continue
        if value is not None:
            key = f"{_OURS}.source.{name}"
            raise Broken(key, f"a source of kind '{source.kind}' does not use it")


def _check_licence(checkpoint: Checkpoint, hub: Mapping[str, Any]) -> None:
    license, weights = hub["license"], checkpoint.licences.weights
    if license == "other":
        license = hub.get("license_name")
        if license is None:
            raise Broken("license_name", "missing: license is 'other'")
    if license != weights:
        raise Broken("license", f"{license!r} is not {weights!r}, the licence of the weights")


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every fact by its key; None where it is unknown."""
    facts: dict[str, Any] = {
        "architecture": checkpoint.architecture,
        "num_features": checkpoint.num_features,
        "gating": checkpoint.gating,
        "citation": checkpoint.citation,
    }
    for part in ("source", "conversion", "contract", "licences", "training"):
        for name, value in vars(getattr(checkpoint, part)).items():
            facts[f"{part}.{name}"] = value
    for name in facts.keys() & _UNUSED[checkpoint.source.kind]:
        del facts[name]
    if checkpoint.source.published:
        for name in ("conversion.layout", "source.filename"):
            facts.pop(name, None)
    if checkpoint.contract.intensity == "unknown":
        facts["contract.intensity"] = None
    for name in EMPTY_MEANS_UNKNOWN:
        key = f"training.{name}"
        if not facts[key] and (key in checkpoint.unknown or name == "data"):
            facts[key] = None
    return facts


_UNUSED = {
    kind: {f"source.{f.name}" for f in dataclasses.fields(Source)}
    - {f"source.{name}" for name in used | {"kind", "how"}}
    for kind, used in SOURCE_FIELDS.items()
}


def _check_unknown(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
    for key in checkpoint.unknown:
        if key not in facts:
            raise Broken(f"{_OURS}.unknown.{key}", "is no fact of this card", closest(key, facts))
        if facts[key] is not None:
            raise Broken(f"{_OURS}.unknown.{key}", f"the card states it: {facts[key]!r}")
    for key, value in facts.items():
        if value is None and key not in checkpoint.unknown and key not in _NONE_IS_A_FACT:
            raise Broken(f"{_OURS}.{key}", "is null without a reason; say why under 'unknown'")


def _check_evidence(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
    evidence = checkpoint.evidence
    used = {"golden"} if checkpoint.golden is not None else set()
    for key, value in facts.items():
        if value is None:
            if key in _NONE_IS_A_FACT and key not in checkpoint.unknown:
                used.add(key)
            continue
        cover = key if key in evidence else key.partition(".")[0]
        if cover not in evidence:
            raise Broken(f"{_OURS}.{key}", "has no evidence; say where it comes from")
        used.add(cover)
        if key == "source.sha256" and evidence[cover].verified != "bytes":
            raise Broken(f"{_OURS}.{key}", "a hash needs evidence 'bytes': the file was held")
    for key in evidence:
        if key not in used:
            raise Broken(f"{_OURS}.evidence.{key}", "is evidence for nothing in this card")


def _check_golden(checkpoint: Checkpoint) -> None:
    golden = checkpoint.golden
    if golden is None:
        return
    key = f"{_OURS}.golden"
    evidence = checkpoint.evidence.get("golden")
    if evidence is None or evidence.verified != "bytes":
        raise Broken(key, "an embedding needs evidence 'bytes': the weights were run")
    if len(golden.embedding) != checkpoint.num_features:
        raise Broken(
            f"{key}.embedding",
            f"has {len(golden.embedding)} values for {checkpoint.num_features} features",
        )
