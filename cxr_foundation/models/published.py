"""A published folder: `model.safetensors`, `config.json` and the card, for every loader there is.

`config.json` is timm's layout with the stock name of the network, so that timm and transformers
load the folder without this package. What they cannot say, the input contract, is under one key of
our own.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn

from cxr_foundation.catalog import Checkpoint
from cxr_foundation.contract import InputContract
from cxr_foundation.convert.report import listed
from cxr_foundation.errors import KeyMismatch, OutputFailed, UnknownName
from cxr_foundation.files import atomic_folder
from cxr_foundation.models.config import (
    CONFIG,
    OURS,
    WEIGHTS,
    PublishedConfig,
    read_config,
    weights_of,
)
from cxr_foundation.models.meta import on_meta

__all__ = [
    "PublishedConfig",
    "card_text",
    "read_config",
    "weights_of",
    "write",
]

CARD = "README.md"


def write(
    folder: str | os.PathLike[str],
    *,
    state: Mapping[str, Tensor],
    architecture: str,
    model_args: Mapping[str, Any],
    contract: InputContract,
    card_text: str,
    tag: str,
    label_names: tuple[str, ...] | None = None,
) -> Path:
    """Write a published folder, whole or not at all.

    Args:
        folder: Must not exist, or be empty.
        state: Every tensor of the network and no other, by timm's names. Stored in their own type;
            loaders give float32.
        architecture: Stock timm name.
        model_args: Arguments of the network that are not its own; `in_chans` is added.
        contract: What the encoder was fed.
        card_text: The whole `README.md`.
        tag: Name of the weights.
        label_names: Names of the classes; None for an encoder without a head.

    Raises:
        KeyMismatch: The tensors are not those of the network.
        OutputExists: The folder is there.
        OutputFailed: The disk is full or not writable. Nothing partial is left.
    """
    labels = tuple(label_names or ())
    args = {"in_chans": contract.channels, **model_args}
    network = _network(architecture, args, len(labels))
    own = network.state_dict()
    wrong = [n for n in own if n not in state or own[n].shape != state[n].shape]
    wrong += [n for n in state if n not in own]
    if wrong:
        raise KeyMismatch(
            folder, f"these are not the tensors of {architecture}: {listed(tuple(wrong))}"
        )
    config = _config(network, architecture, args, contract, license_of(card_text), tag, labels)
    with atomic_folder(folder) as temporary:
        tensors = {n: state[n].detach().cpu().contiguous() for n in own}
        try:
            # One key of metadata, or the order of keys makes each file another one.
            save_file(_unshared(tensors), temporary / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OutputFailed(folder, f"the weights cannot be written ({error})") from error
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card_text, encoding="utf-8")
    return Path(folder)


def card_text(checkpoint: Checkpoint) -> str:
    """The card of the catalogue, as it stands."""
    if checkpoint.path is None:
        raise UnknownName(checkpoint.name, "this record was read from no file")
    return checkpoint.path.read_text(encoding="utf-8")


def license_of(text: str) -> str | None:
    """The licence in a card's front matter, for `pretrained_cfg`."""
    found = re.search(r"^license:\s*['\"]?([\w.-]+)", text.partition("\n---")[0], re.MULTILINE)
    return found[1] if found else None


def _config(
    network: nn.Module,
    architecture: str,
    args: Mapping[str, Any],
    contract: InputContract,
    license: str | None,
    tag: str,
    labels: tuple[str, ...],
) -> dict[str, Any]:
    """The `config.json`; num_classes stands outside model_args, or transformers passes it twice."""
    stock = get_pretrained_cfg(architecture)
    cfg = {
        "tag": tag,
        **contract.to_timm(),
        "fixed_input_size": bool(stock and stock.fixed_input_size),
        "num_classes": len(labels),
        "pool_size": stock.pool_size if stock else None,
        "first_conv": stock.first_conv if stock else None,
        "classifier": stock.classifier if stock else None,
        **({"license": license} if license else {}),
    }
    pooling = _pooling(network)
    return {
        "architecture": architecture,
        "num_classes": len(labels),
        "num_features": int(getattr(network, "num_features")),  # noqa: B009  (a timm attribute)
        **({"global_pool": pooling} if pooling else {}),
        "dtype": "float32",
        "model_args": _plain(args),
        **({"label_names": list(labels)} if labels else {}),
        "pretrained_cfg": _plain(cfg),
        OURS: {"contract": contract.to_dict()},
    }


def _pooling(network: nn.Module) -> str | None:
    """Timm's name of the pooling: an attribute of the network, or of its pooling layer."""
    for owner in (network, getattr(network, "head", None)):
        pool = getattr(owner, "global_pool", None)
        pool = getattr(pool, "pool_type", pool)
        if isinstance(pool, str) and pool:
            return pool
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with memory of their own: safetensors refuses two names for one memory."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return own


def _network(architecture: str, args: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network without memory.

    Raises:
        KeyMismatch: timm cannot build it.
    """
    make = functools.partial(model_entrypoint(architecture), pretrained=False)
    try:
        with on_meta():
            network: nn.Module = make(num_classes=num_classes, **args)
    except (TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError) as error:
        reason = f"timm cannot build {architecture} with these model_args ({type(error).__name__})"
        raise KeyMismatch(architecture, reason) from error
    return network
