"""Where a network's weights come from: a card's file or one that the caller names, as a local file.

A card's wild file is fetched, checked and converted once; the converted file stays in the cache
under the name of what it was made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from timm.models import PretrainedCfg
from torch import Tensor

from cxr_foundation import catalog, hub
from cxr_foundation.catalog import Checkpoint, Source
from cxr_foundation.convert import convert
from cxr_foundation.errors import UnknownLayout
from cxr_foundation.files import atomic_write, sha256_of
from cxr_foundation.hub.cache import difference, output_failed
from cxr_foundation.models import published

__all__ = ["Origin", "address", "converted_path", "locate", "weights_path"]

# Rises when a conversion gives other tensors than before, so that old caches are left alone.
_CONVERSION = 1
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The stock network that a card's file is converted for.

    Attributes:
        stock: timm's name.
        model_args: Its arguments, `in_chans` and any image size among them.
    """

    stock: str
    model_args: Mapping[str, Any]


def address(checkpoint: Checkpoint) -> str | None:
    """Where a card's file is, for timm's `pretrained_cfg`; None if nothing can be loaded from it.

    It also marks the card in a `pretrained_cfg`: whoever names another source overrides it.
    """
    source = checkpoint.source
    if not checkpoint.loadable:
        return None
    if source.kind == "bundled":
        return f"package:cxr_foundation/weights/{source.path}"
    if source.kind == "hub":
        revision, filename = source.revision or "main", source.filename or "model.safetensors"
        return f"https://huggingface.co/{source.repo}/resolve/{revision}/{filename}"
    if source.kind == "google_drive":
        return f"https://drive.google.com/file/d/{source.file_id}/view"
    return source.url


def locate(
    name: str,
    cfg: PretrainedCfg,
    origin: Origin,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path | Mapping[str, Tensor]:
    """The weights that a `pretrained_cfg` names, by timm's order of precedence.

    Args:
        name: "<architecture>" or "<architecture>.<weights>".
        cfg: As timm resolved it, overlay included.
        origin: What a wild file of the card is converted for.
        cache_dir: As in huggingface_hub.

    Returns:
        A local file, or the tensors themselves where the caller passed them.

    Raises:
        UnknownName: Nothing is named, and no card either.
        SourceError: The file cannot be had.
        CheckpointError: The file cannot be converted.
    """
    if cfg.source == "local-dir" and cfg.file:
        return Path(cfg.file) / "model.safetensors"
    if cfg.source != "hf-hub":
        if cfg.state_dict:
            return cfg.state_dict
        if cfg.file:
            return Path(cfg.file)
    if cfg.hf_hub_id:
        repo, _, revision = cfg.hf_hub_id.partition("@")
        filename = cfg.hf_hub_filename or "model.safetensors"
        named = Source(kind="hub", repo=repo, revision=revision or None, filename=filename)
        return hub.fetch(named, name=name, cache_dir=cache_dir)
    record = catalog.checkpoint(name)
    if cfg.url and cfg.url != address(record):
        url = cfg.url if isinstance(cfg.url, str) else cfg.url[0]
        return hub.fetch(Source(kind="url", url=url), name=name, cache_dir=cache_dir)
    return weights_path(record, origin, cache_dir=cache_dir)


def weights_path(
    checkpoint: Checkpoint,
    origin: Origin,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The verified safetensors file of a card: bare timm names, nothing but the encoder.

    A published folder's file is returned as it is. A wild file is fetched, held to its sha256 and
    converted; that is done once, also by several processes at the same time.

    Args:
        checkpoint: The card.
        origin: What a wild file is converted for.
        revision: Of a Hub repository, instead of the card's.
        token: As in huggingface_hub.
        cache_dir: As in huggingface_hub.
        local_files_only: Open no socket.

    Raises:
        UnknownLayout: No converter knows the file.
        SourceError: The file cannot be had.
        CheckpointError: The file is not what the card says.
        OutputFailed: The cache cannot be written.
    """

    def fetch() -> Path:
        return hub.fetch(
            checkpoint.source,
            name=checkpoint.name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

    if checkpoint.source.published or checkpoint.source.kind == "ask":
        return fetch()
    if checkpoint.conversion.layout is None:
        reason = "no converter knows its file"
        why = checkpoint.unknown.get("conversion.layout")
        raise UnknownLayout(
            checkpoint.name, f"{reason} ({why})" if why else reason, "See `cxr show NAME`."
        )
    raw = None
    if not _is_pinned(checkpoint.source, revision):
        raw = fetch()
    folder = _folder(checkpoint, revision, raw, cache_dir)
    if (held := _held(folder)) is not None:
        return held
    raw = raw or fetch()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise output_failed(folder, error) from error
    try:
        return _held(folder) or _convert(raw, checkpoint, origin, folder)
    finally:
        lock.release()


def converted_path(
    checkpoint: Checkpoint,
    raw: Path | None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path | None:
    """The converted file of a card, where the cache has it with the bytes that were written.

    Args:
        checkpoint: The card.
        raw: The authors' file, where the cache has it.
        cache_dir: As in huggingface_hub.
    """
    if raw is None and not _is_pinned(checkpoint.source, None):
        return None
    return _held(_folder(checkpoint, None, raw, cache_dir))


def _is_pinned(source: Source, revision: str | None) -> bool:
    """Whether the card alone says which bytes are meant: a branch of the Hub may move on."""
    return source.kind != "hub" or _COMMIT.fullmatch(revision or source.revision or "") is not None


def _folder(
    checkpoint: Checkpoint,
    revision: str | None,
    raw: Path | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Path:
    """Where a conversion is kept, named by all that it is made from."""
    source = checkpoint.source
    pin = revision or source.revision
    if raw is not None and not _is_pinned(source, revision):
        # Below the Hub's cache the file's own folder tells the commit that it stands at.
        pin = raw.parents[(source.filename or "").count("/")].name
    made_from = {
        "conversion": _CONVERSION,
        "source": {**dataclasses.asdict(checkpoint.source), "revision": pin},
        "layout": checkpoint.conversion.layout,
        "takes": checkpoint.conversion.takes,
        "contract": checkpoint.contract.to_dict(),
    }
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    return hub.cache_root(cache_dir) / "converted" / checkpoint.name / key


def _note_of(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _held(folder: Path) -> Path | None:
    """The converted file, if it is there with the bytes that were written."""
    weights = folder / "model.safetensors"
    try:
        sha256 = json.loads(_note_of(folder).read_text())["sha256"]
        return weights if difference(weights, sha256=sha256, size=None) is None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _convert(raw: Path, checkpoint: Checkpoint, origin: Origin, folder: Path) -> Path:
    converted = convert(
        raw,
        architecture=origin.stock,
        model_args=origin.model_args,
        layout=checkpoint.conversion.layout,
        takes=checkpoint.conversion.takes,
    )
    shutil.rmtree(folder, ignore_errors=True)  # what a crash or a bad disk left there
    published.write(
        folder,
        state=converted.state,
        architecture=converted.architecture,
        model_args=converted.model_args,
        contract=checkpoint.contract,
        card_text=published.card_text(checkpoint),
        tag=checkpoint.name.partition(".")[2],
    )
    weights = folder / "model.safetensors"
    sha256 = sha256_of(weights)
    with atomic_write(_note_of(folder)) as path:
        path.write_text(json.dumps({"sha256": sha256, "report": converted.report.to_dict()}))
    hub.stamp(weights, sha256)
    return weights
