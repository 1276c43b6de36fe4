"""One model card: file ↔ record. Its schema and every rule that a card has to keep.

The front matter mirrors the records of `records.py`: the Hub's own keys at the top level, all else
under `cxr_foundation`. Evidence is one line, "page 2026-11-21 https://…"; an embedding is base64 of
little-endian float32. Keys that a source does not use are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr_foundation.catalog import frontmatter, rules, scalars
from cxr_foundation.catalog.records import (
    Checkpoint,
    Conversion,
    Golden,
    HubCard,
    Licences,
    Result,
    Source,
    SourceKind,
    Training,
)
from cxr_foundation.contract import InputContract
from cxr_foundation.errors import CardError, ContractError
from cxr_foundation.registry import closest

__all__ = ["body_of", "hub_keys_of", "read_card", "read_record", "render_card", "to_dict"]

_OURS = "cxr_foundation"


def read_card(path: str | Path) -> Checkpoint | HubCard:
    """Read any model card, trusted or not.

    Args:
        path: A card, or a folder with a `README.md`.

    Returns:
        The record of a card of the catalogue; for a card without `cxr_foundation` what the Hub's
        own keys say.

    Raises:
        CardError: Not a card, without a licence key, or against the schema; names file and key.
    """
    file, values, _ = _load(path)
    if _OURS in values:
        return _checkpoint(values, file)
    license, tags = values.get("license"), values.get("tags")
    if not isinstance(license, str) or not license:
        raise CardError(f"{file}: license", "missing: a card without a licence allows nothing")
    return HubCard(
        license=license,
        license_name=_text_or_none(values.get("license_name")),
        license_link=_text_or_none(values.get("license_link")),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        path=file,
    )


def read_record(path: str | Path) -> Checkpoint:
    """Read a card that has to be one of the catalogue's.

    Raises:
        CardError: As `read_card`, and for a card without `cxr_foundation`.
    """
    card = read_card(path)
    if isinstance(card, HubCard):
        raise CardError(f"{card.path}: {_OURS}", "missing: this card states no facts for loading")
    return card


def render_card(checkpoint: Checkpoint, *, body: str, hub_keys: Mapping[str, Any]) -> str:
    """Write a card; `read_card` gives an equal record back.

    Args:
        checkpoint: The facts.
        body: Markdown below the front matter.
        hub_keys: The Hub's top-level keys; `license` may be left out where the weights' licence is
            known by a Hub id.

    Raises:
        CardError: The facts break a rule of the schema.
    """
    facts = to_dict(checkpoint)
    values = {"license": checkpoint.licences.weights, **hub_keys, _OURS: facts}
    text = f"---\n{frontmatter.dump(values)}---\n\n{body.strip()}\n"
    file = Path(f"{checkpoint.name}.md")
    again = _checkpoint(frontmatter.parse(frontmatter.split(text, file)[0], file), file)
    for field in dataclasses.fields(Checkpoint):
        if field.compare and getattr(again, field.name) != getattr(checkpoint, field.name):
            raise CardError(f"{file}: {field.name}", "does not read back as it was written")
    return text


def body_of(path: str | Path) -> str:
    """The Markdown below a card's front matter; control characters are replaced by "?"."""
    return frontmatter.printable(_load(path)[2].strip()) + "\n"


def hub_keys_of(path: str | Path) -> dict[str, Any]:
    """The top-level keys of a card that belong to the Hub."""
    return {key: value for key, value in _load(path)[1].items() if key != _OURS}


def to_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """A record as JSON types, laid out as in a card; what is None without meaning is left out."""
    facts = {
        field.name: _plain(getattr(checkpoint, field.name))
        for field in dataclasses.fields(checkpoint)
        if field.name != "path"
    }
    source = checkpoint.source
    facts["source"] = {
        key: value
        for key, value in facts["source"].items()
        if value is not None or key in rules.SOURCE_FIELDS[source.kind]
    }
    facts["contract"] = checkpoint.contract.to_dict()
    for key in rules.EMPTY_MEANS_UNKNOWN:
        if f"training.{key}" in checkpoint.unknown:
            facts["training"][key] = None
    facts["evidence"] = {
        key: f"{e.verified} {e.date} {e.source}" for key, e in checkpoint.evidence.items()
    }
    if checkpoint.golden is not None:
        facts["golden"]["embedding"] = scalars.encode(checkpoint.golden.embedding)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return dict(value) if isinstance(value, Mapping) else value


def _load(path: str | Path) -> tuple[Path, dict[str, Any], str]:
    file = Path(path)
    if file.suffix != ".md" and file.is_dir():
        file = file / "README.md"
    head, body = frontmatter.split(frontmatter.read_text(file), file)
    return file, frontmatter.parse(head, file), body


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


_architecture = scalars.shape(r"[a-z0-9]+(_[a-z0-9]+)*", "an architecture such as cxr_resnet50")

_HUB: dict[str, scalars.Check] = {
    "license": scalars.maybe(scalars.text),
    "license_name": scalars.text,
    "license_link": scalars.text,
    "library_name": scalars.text,
    "pipeline_tag": scalars.text,
    "tags": scalars.texts,
    "datasets": scalars.texts,
    "model-index": scalars.as_it_is,
    _OURS: scalars.as_it_is,
}
_CARD: dict[str, scalars.Check] = {
    "name": scalars.shape(r"[a-z0-9_]+\.[a-z0-9_]+", "<architecture>.<weights> in lower case"),
    "architecture": _architecture,
    "title": scalars.text,
    "default": scalars.flag,
    "num_features": scalars.count,
    "source": scalars.as_it_is,
    "conversion": scalars.as_it_is,
    "contract": scalars.as_it_is,
    "licences": scalars.as_it_is,
    "gating": scalars.maybe(scalars.text),
    "training": scalars.as_it_is,
    "citation": scalars.maybe(scalars.text),
    "results": scalars.as_it_is,
    "golden": scalars.as_it_is,
    "evidence": scalars.as_it_is,
    "unknown": scalars.as_it_is,
}
_SOURCE: dict[str, scalars.Check] = {
    "kind": scalars.one_of(SourceKind),
    "path": scalars.maybe(
        scalars.shape(r"[a-z0-9_][a-z0-9_.]*", "a folder of the package's weights")
    ),
    "repo": scalars.maybe(scalars.shape(r"[\w.-]+/[\w.-]+", "a repository id such as org/name")),
    "revision": scalars.maybe(scalars.shape(r"[0-9a-f]{40}", "a commit of 40 hex digits")),
    "filename": scalars.maybe(scalars.shape(r"\w[\w.+-]*(/\w[\w.+-]*)*", "a relative file name")),
    "url": scalars.maybe(scalars.shape(r"https://[\w.-]+/[^\s@]*", "an https address")),
    "file_id": scalars.maybe(scalars.shape(r"[\w-]{10,}", "a Google Drive id")),
    "sha256": scalars.maybe(scalars.shape(r"[0-9a-f]{64}", "a sha256 of 64 lower-case hex digits")),
    "size_bytes": scalars.maybe(scalars.count),
    "how": scalars.maybe(scalars.text),
}
_UNUSED = {kind: _SOURCE.keys() - used - {"kind"} for kind, used in rules.SOURCE_FIELDS.items()}
_CONVERSION: dict[str, scalars.Check] = {
    "layout": scalars.maybe(scalars.text),
    "takes": scalars.maybe(scalars.text),
    "ran_on_authors_file": scalars.flag,
}
_LICENCES: dict[str, scalars.Check] = dict.fromkeys(
    ("code", "weights", "data"), scalars.maybe(scalars.text)
)
_TRAINING: dict[str, scalars.Check] = {
    "method": scalars.text,
    "recipe": scalars.maybe(scalars.text),
    "images": scalars.maybe(scalars.count),
    "data": scalars.texts_or_unknown,
    "overlaps": scalars.texts_or_unknown,
    "labels_used_for_selection": scalars.maybe(scalars.flag),
}
_RESULT: dict[str, scalars.Check] = {
    **dict.fromkeys(("task", "dataset", "setting", "metric"), scalars.text),
    "value": scalars.number,
    "interval": scalars.maybe(scalars.interval),
    "command": scalars.text,
}
_GOLDEN: dict[str, scalars.Check] = {"phantom": scalars.text, "embedding": scalars.embedding}
_MAY_BE_LEFT_OUT = {"default", "gating", "citation", "results", "golden", "unknown"}
_CONTRACT: dict[str, scalars.Check] = {
    "channels": scalars.count,
    "size": scalars.counts,
    "resize": scalars.maybe(scalars.count),
    **dict.fromkeys(("aspect", "intensity", "interpolation", "polarity"), scalars.text),
    **dict.fromkeys(("percentile", "mean", "std"), scalars.maybe(scalars.numbers)),
    "normalise_first": scalars.flag,
}


def _checkpoint(values: dict[str, Any], file: Path) -> Checkpoint:
    """Validate parsed front matter into a record."""
    try:
        hub = _fields("", values, _HUB, left_out=set(_HUB) - {"license"})
        raw = _fields(_OURS, values[_OURS], _CARD, left_out=_MAY_BE_LEFT_OUT)
        checkpoint = _record(raw, file)
        rules.check(checkpoint, hub)
    except rules.Broken as broken:
        remedy = f"{broken.hint} {CardError.remedy}".strip()
        raise CardError(f"{file}: {broken.key}", broken.reason, remedy) from None
    return checkpoint


def _record(raw: dict[str, Any], file: Path) -> Checkpoint:
    def part(
        name: str, schema: Mapping[str, scalars.Check], *may_be_left_out: str
    ) -> dict[str, Any]:
        return _fields(f"{_OURS}.{name}", raw[name], schema, left_out=may_be_left_out)

    golden = raw.get("golden")
    return Checkpoint(
        name=raw["name"],
        architecture=raw["architecture"],
        title=raw["title"],
        default=raw.get("default", False),
        num_features=raw["num_features"],
        source=Source(**part("source", _SOURCE, *_unused(raw["source"]))),
        conversion=Conversion(**{"takes": None, **part("conversion", _CONVERSION, "takes")}),
        contract=_contract(raw["contract"]),
        licences=Licences(**part("licences", _LICENCES)),
        gating=raw.get("gating"),
        training=Training(**{"recipe": None, **part("training", _TRAINING, "recipe")}),
        citation=raw.get("citation"),
        results=_results(raw.get("results", [])),
        golden=None if golden is None else Golden(**part("golden", _GOLDEN)),
        evidence=_mapping(raw["evidence"], f"{_OURS}.evidence", scalars.evidence),
        unknown=_mapping(raw.get("unknown") or {}, f"{_OURS}.unknown", scalars.text),
        path=file,
    )


def _unused(source: Any) -> Iterable[str]:
    """The fields of a source that its kind does not use."""
    kind = source.get("kind") if type(source) is dict else None
    return _UNUSED.get(kind, ()) if type(kind) is str else ()


def _fields(
    key: str, raw: Any, checks: Mapping[str, scalars.Check], *, left_out: Iterable[str] = ()
) -> dict[str, Any]:
    """scalars.Check one mapping against its schema; unknown keys and missing ones break it."""
    dot = f"{key}." if key else ""
    if type(raw) is not dict:
        raise rules.Broken(key, "is not a mapping of keys")
    values = {}
    for name, value in raw.items():
        check = checks.get(name)
        if check is None:
            raise rules.Broken(f"{dot}{name}", "unknown key", closest(name, checks))
        try:
            values[name] = check(value)
        except ValueError as error:
            raise rules.Broken(f"{dot}{name}", str(error)) from None
    if len(values) < len(checks):
        for name in checks:
            if name not in values and name not in left_out:
                raise rules.Broken(f"{dot}{name}", "missing")
    return values


def _mapping(raw: Any, key: str, check: scalars.Check) -> dict[str, Any]:
    if type(raw) is not dict:
        raise rules.Broken(key, "is not a mapping of keys")
    values, name = {}, ""
    try:
        for name, value in raw.items():
            values[name] = check(value)
    except ValueError as error:
        raise rules.Broken(f"{key}.{name}", str(error)) from None
    return values


def _results(raw: Any) -> tuple[Result, ...]:
    key = f"{_OURS}.results"
    if type(raw) is not list:
        raise rules.Broken(key, "is not a list")
    return tuple(
        Result(**{"interval": None, **_fields(f"{key}[{i}]", r, _RESULT, left_out=("interval",))})
        for i, r in enumerate(raw)
    )


def _contract(raw: Any) -> InputContract:
    """The contract; what changes every pixel has no silent default in a card."""
    key = f"{_OURS}.contract"
    rare = ("resize", "percentile", "normalise_first", "polarity")
    values = _fields(key, raw, _CONTRACT, left_out=rare)
    try:
        # The schema above is that of `InputContract.from_dict`; ranges are checked by the contract.
        return InputContract(**values)
    except ContractError as error:
        name = error.subject.removeprefix("contract: ")
        raise rules.Broken(f"{key}.{name}", error.reason) from None
