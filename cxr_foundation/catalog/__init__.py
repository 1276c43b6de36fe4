"""The catalogue: model cards, parsed into frozen records. No torch.

A card is a Markdown file whose YAML front matter is the only place where a checkpoint's facts
live. Hugging Face's own keys stay at its top level (`license`, `license_name`, `license_link`,
`library_name`, `pipeline_tag`, `tags`, `datasets`, `model-index`); all else is under
`cxr_foundation`. Every fact has evidence (`cxr_foundation.evidence`, by key or by its part:
"contract", "contract.mean"), and every fact that is null has a reason (`cxr_foundation.unknown`,
by key): validation checks both.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cxr_foundation.catalog import frontmatter
from cxr_foundation.catalog.cards import (
    body_of,
    hub_keys_of,
    read_card,
    read_record,
    render_card,
    to_dict,
)
from cxr_foundation.catalog.records import (
    Checkpoint,
    Conversion,
    Evidence,
    Golden,
    HubCard,
    Licences,
    Result,
    Source,
    SourceKind,
    Training,
    Verified,
)
from cxr_foundation.errors import CardError, UnknownName
from cxr_foundation.registry import closest

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

__all__ = [
    "Checkpoint",
    "Conversion",
    "Evidence",
    "Golden",
    "HubCard",
    "Licences",
    "Result",
    "Source",
    "SourceKind",
    "Training",
    "Verified",
    "body_of",
    "by_sha256",
    "card",
    "cards_folder",
    "checkpoint",
    "checkpoints",
    "describe",
    "hub_keys_of",
    "list_models",
    "read_card",
    "read_folder",
    "read_record",
    "render_card",
    "summary",
    "table",
]


def cards_folder() -> Path:
    """The folder of the shipped cards: inside the installed package, else that of the checkout."""
    # Not importlib.resources: it imports zipfile, for a quarter of the time of reading all cards.
    spec = importlib.util.find_spec("cxr_foundation.model_cards")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    # A default editable install does not map the folder into the package.
    return Path(__file__).resolve().parents[2] / "model_cards"


def read_folder(folder: Path) -> dict[str, Checkpoint]:
    """Read all cards of a folder, by name.

    Raises:
        CardError: A card breaks the schema or is of a network that is not ours, or an architecture
            has no default card or several.
    """
    cards = {path.stem: read_record(path) for path in sorted(folder.glob("*.md"))}
    for name, c in cards.items():
        if not c.architecture.startswith("cxr_"):
            reason = f"{c.architecture!r} is not one of ours, such as cxr_resnet50"
            raise CardError(f"{folder / name}.md: cxr_foundation.architecture", reason)
    defaults: dict[str, list[str]] = {c.architecture: [] for c in cards.values()}
    for c in cards.values():
        if c.default:
            defaults[c.architecture].append(c.name)
    for architecture, names in defaults.items():
        if len(names) != 1:
            found = f"{len(names)} of its cards ({', '.join(names)})" if names else "none"
            reason = f"exactly one card of {architecture} has 'default: true', but {found} has"
            raise CardError(f"{folder}: cxr_foundation.default", reason)
    return cards


@functools.cache
def checkpoints() -> Mapping[str, Checkpoint]:
    """All shipped cards by name, read once.

    Raises:
        CardError: A shipped card breaks the schema.
    """
    return MappingProxyType(read_folder(cards_folder()))


def checkpoint(name: str) -> Checkpoint:
    """The record of "<architecture>.<weights>", or of an architecture's default card.

    Raises:
        UnknownName: There is no such card; the message names the closest ones.
    """
    cards = checkpoints()
    if name in cards:
        return cards[name]
    for record in cards.values():
        if record.architecture == name and record.default:
            return record
    raise _unknown(name, cards.values())


def by_sha256(sha256: str) -> Checkpoint | None:
    """The record whose file has this sha256 (64 lower-case hex digits), or None."""
    return next((c for c in checkpoints().values() if c.source.sha256 == sha256), None)


def card(name: str) -> ModelCard:
    """The model card of a checkpoint as huggingface_hub has it.

    Raises:
        UnknownName: There is no such card.
    """
    from huggingface_hub import ModelCard

    file = cards_folder() / f"{checkpoint(name).name}.md"
    return ModelCard(frontmatter.read_text(file))


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[Checkpoint]:
    """The checkpoints whose name or architecture matches a shell pattern, sorted by name.

    Args:
        pattern: Such as "*vit*" or "cxr_resnet50.*".
        pretrained: Only those that `create_model(..., pretrained=True)` can fetch and load: not
            those that are only had by asking, nor those whose layout no converter knows yet.
    """
    return [
        c
        for name, c in sorted(checkpoints().items())
        if (fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(c.architecture, pattern))
        and (c.loadable or not pretrained)
    ]


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """A record as JSON types, laid out as in its card."""
    return to_dict(checkpoint)


def summary(checkpoint: Checkpoint) -> str:
    """A record as the lines that `cxr show` prints above the card's text."""
    c, contract = checkpoint, checkpoint.contract
    channels = "one channel" if contract.channels == 1 else f"{contract.channels} channels"
    lines = {
        "name": c.name + (f" (what {c.architecture} loads)" if c.default else ""),
        "title": c.title,
        "features": str(c.num_features),
        "source": _where(c),
        "converter": c.conversion.layout
        or ("none needed" if c.source.published else c.unknown["conversion.layout"]),
        "run here": "yes" if c.conversion.ran_on_authors_file else "never on the authors' file",
        "input": f"{channels}, {contract.size[0]} x {contract.size[1]}, {contract.aspect}, "
        f"{contract.intensity}, mean {contract.mean}, std {contract.std}",
        "licences": ", ".join(
            f"{part} {licence or 'unknown'}"
            for part, licence in dataclasses.asdict(c.licences).items()
        ),
        "gating": c.gating or "none",
        "training": f"{c.training.method} on {', '.join(c.training.data) or 'unknown data'}",
        "citation": c.citation or "none",
    }
    return "\n".join(f"{key:10} {value}" for key, value in lines.items())


def table(records: Iterable[Checkpoint]) -> list[str]:
    """Records as the lines that `cxr list` prints; "*" marks an architecture's default."""
    rows = [
        (
            "*" if c.default else " ",
            c.name,
            c.source.kind,
            "x".join(map(str, (c.contract.channels, *c.contract.size))),
            c.licences.weights or "licence unknown",
            c.title,
        )
        for c in records
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _where(checkpoint: Checkpoint) -> str:
    source = checkpoint.source
    place = source.path or source.repo or source.url or source.file_id or source.how or ""
    at = f" at {source.revision}" if source.revision else ""
    return f"{source.kind}: {place}{at}"


def _unknown(name: str, cards: Iterable[Checkpoint]) -> UnknownName:
    by_architecture: dict[str, list[str]] = {}
    for c in cards:
        by_architecture.setdefault(c.architecture, []).append(c.name)
    architecture = name.partition(".")[0]
    if architecture in by_architecture:
        known = by_architecture[architecture]
        hint = closest(name, known) or f"It has {', '.join(known)}."
        return UnknownName(name, f"{architecture} has no weights of this name", _see(hint))
    names = [n for names in by_architecture.values() for n in names]
    hint = closest(name, [*names, *by_architecture])
    return UnknownName(name, "no model card has this name", _see(hint))


def _see(hint: str) -> str:
    return f"{hint} {UnknownName.remedy}".strip()
