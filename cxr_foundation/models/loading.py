"""The doors: a model by its name, a model from a file or folder, and what prepares its input."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# First of all: whoever imports timm registers the architectures.
import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg, model_entrypoint
from torch import nn

from cxr_foundation import catalog
from cxr_foundation.catalog import Checkpoint
from cxr_foundation.contract import InputContract
from cxr_foundation.convert import Report, convert, read
from cxr_foundation.errors import (
    ContractError,
    HashMismatch,
    KeyMismatch,
    UnknownName,
    UnreadableCheckpoint,
)
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import published, sources
from cxr_foundation.models.architectures import STOCK, cfg_of
from cxr_foundation.models.build import assemble, origin_of, without_weights
from cxr_foundation.models.config import PublishedConfig, read_config, weights_of
from cxr_foundation.registry import closest

# What timm raises for arguments that its networks do not take, or take only in other numbers.
_CANNOT_BUILD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

__all__ = [
    "contract_of",
    "convert_to_folder",
    "create_model",
    "load",
    "processor",
    "weights_path",
]


def create_model(
    name: str,
    *,
    pretrained: bool = True,
    in_chans: int | None = None,
    num_classes: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **timm_kwargs: Any,
) -> nn.Module:
    """A model by its name: `timm.create_model` with huggingface_hub's arguments.

    Args:
        name: "cxr_resnet50", which means its default card, or "cxr_resnet50.chess".
        pretrained: Without it, random weights.
        in_chans: Channels; None: those that the weights were trained with.
        num_classes: Classes of a new head; None or 0: the encoder, which gives pooled features.
        revision: Of a Hub repository, instead of the card's.
        token: As in huggingface_hub.
        cache_dir: As in huggingface_hub.
        local_files_only: Open no socket.
        **timm_kwargs: As in `timm.create_model`: `img_size`, `features_only`, `drop_path_rate`, …

    Returns:
        The model in training mode, as timm gives it; parameters are float32.

    Raises:
        UnknownName: No such architecture or weights; the message names the closest ones.
        SourceError: The weights cannot be had.
        CheckpointError: The weights do not set every tensor of the encoder.
    """
    architecture, _, tag = name.partition(".")
    if architecture not in STOCK:
        hint = closest(architecture, STOCK) or f"There are {', '.join(STOCK)}."
        raise UnknownName(name, f"no architecture is called {architecture!r}", hint)
    if tag:
        catalog.checkpoint(name)
    overlay = dict(timm_kwargs.pop("pretrained_cfg_overlay", None) or {})
    if pretrained and not _names_source(overlay, timm_kwargs.get("pretrained_cfg")):
        overlay["file"] = os.fspath(
            weights_path(
                catalog.checkpoint(name),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )
    # The token stays here: timm writes what it is given into the model's description.
    model: nn.Module = timm.create_model(
        name,
        pretrained=pretrained,
        pretrained_cfg_overlay=overlay or None,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        in_chans=in_chans,
        num_classes=num_classes,
        **timm_kwargs,
    )
    return model


def _names_source(overlay: Mapping[str, Any], cfg: object) -> bool:
    return cfg is not None or any(
        overlay.get(key) for key in ("file", "state_dict", "hf_hub_id", "url")
    )


def load(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    in_chans: int | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """The encoder of a published folder, or of a checkpoint of any known layout.

    Args:
        path: A folder with `config.json` and `model.safetensors`, or a checkpoint file.
        architecture: "cxr_*" or stock timm name that it is claimed to be, and is held to; None:
            as the folder says, or as the shapes tell.
        in_chans: Channels. A checkpoint is held to them; the encoder of a folder is adapted.
        num_classes: None or 0: the encoder, without any head. A number keeps the head and requires
            that it has so many classes.

    Returns:
        The model in eval mode, with float32 parameters, every one of them from the file.

    Raises:
        CheckpointError: Not a checkpoint, a damaged one, one that names code, or one that does not
            set every tensor of the network.
        UnknownName: No such architecture.
        ContractError: The folder's input contract is invalid.
    """
    if Path(path).is_dir():
        return _load_folder(Path(path), architecture, in_chans, num_classes or 0).eval()
    stock, args = _stock(architecture)
    if in_chans is not None:
        args["in_chans"] = in_chans
    converted = convert(path, architecture=stock, model_args=args, num_classes=num_classes or None)
    args = dict(converted.model_args)
    cfg = without_weights(get_pretrained_cfg(converted.architecture))
    return _exactly(
        converted.architecture, args, cfg, converted.state, converted.num_classes, os.fspath(path)
    ).eval()


def convert_to_folder(
    file: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    architecture: str | None = None,
    layout: str | None = None,
    takes: str | None = None,
    dtype: str | torch.dtype | None = "float32",
) -> Report:
    """A checkpoint from the wild as a published folder.

    Args:
        file: A checkpoint of any known layout.
        out_dir: Must not exist, or be empty.
        name: Card that the file belongs to: it gives layout, contract and `README.md`, and the
            file is held to its sha256. Without it the contract is unknown, and says so.
        architecture: "cxr_*" or stock timm name that it is claimed to be; None: as the shapes tell.
        layout: Name in `convert.layouts`; None: by the card or by keys.
        takes: Which encoder of several; None: by the card or by the layout's rule.
        dtype: Type of floating-point tensors in the folder; None keeps the file's. Loaders give
            float32 parameters from each of them.

    Returns:
        What became of every tensor of the file.

    Raises:
        CheckpointError: The file is not a checkpoint, names code, or does not set every tensor.
        HashMismatch: It is not the file of the card.
        UnknownName: No such card, architecture, layout or encoder.
        OutputError: The folder is there, or cannot be written.
    """
    card = None if name is None else catalog.checkpoint(name)
    if card is not None:
        layout, takes = layout or card.conversion.layout, takes or card.conversion.takes
    stock, args = _stock(architecture)
    converted = convert(
        file, architecture=stock, model_args=args, layout=layout, takes=takes, dtype=dtype
    )
    sha256 = converted.report.sha256
    if card is not None and card.source.sha256 not in (None, sha256):
        reason = f"its sha256 is {sha256} where the card of {card.name} gives {card.source.sha256}"
        raise HashMismatch(file, reason, "Leave out the name, or get the file of the card.")
    if card is not None:
        contract, text, tag = card.contract, published.card_text(card), card.name.partition(".")[2]
        if contract.channels != converted.model_args["in_chans"]:
            channels = converted.model_args["in_chans"]
            reason = f"takes {channels} channels where the card says {contract.channels}"
            raise KeyMismatch(file, reason)
    else:
        contract, tag = _unknown_contract(converted.architecture, converted.model_args), "converted"
        text = _plain_card(Path(file).name, converted.architecture, sha256)
    published.write(
        out_dir,
        state=converted.state,
        architecture=converted.architecture,
        model_args=converted.model_args,
        contract=contract,
        card_text=text,
        tag=tag,
    )
    return converted.report


def _unknown_contract(architecture: str, args: Mapping[str, Any]) -> InputContract:
    """Channels and size are in the network; how pixels were prepared is not, and is not guessed."""
    stock = get_pretrained_cfg(architecture)
    size = args.get("img_size") or (stock.input_size[1:] if stock else (224, 224))
    height, width = (size, size) if isinstance(size, int) else size
    return InputContract(
        channels=args["in_chans"],
        size=(height, width),
        intensity="unknown",
        mean=None,
        std=None,
    )


def _plain_card(file: str, architecture: str, sha256: str | None) -> str:
    shown = re.sub(r"[^\w. -]", "?", file)
    return f"""---
license: unknown
library_name: timm
pipeline_tag: image-feature-extraction
tags: [chest-x-ray]
---

# {architecture} from {shown}

Converted by `cxr convert`; sha256 of the file: `{sha256}`.

Nobody has said yet how its input was prepared, what it was trained on and what its licence allows.
Until this card says so, `cxr push` refuses the folder and no processor can be built for it.
"""


def _load_folder(
    folder: Path, architecture: str | None, in_chans: int | None, num_classes: int
) -> nn.Module:
    config, weights = read_config(folder), weights_of(folder)
    claimed, _ = _stock(architecture)
    stock, _ = _stock(config.architecture)
    if claimed not in (None, stock):
        raise KeyMismatch(folder, f"is {config.architecture}, not {architecture}")
    if num_classes not in (0, config.num_classes):
        reason = f"its head has {config.num_classes} classes, not {num_classes}"
        raise KeyMismatch(folder, reason, "Use num_classes=0 and a new head.")
    cfg = _cfg_of(config)
    held = _head_classes(weights, cfg)
    if held != config.num_classes:
        reason = f"its head has {held} classes where config.json says {config.num_classes}"
        raise KeyMismatch(folder, reason)
    args = {**config.model_args, **({} if in_chans is None else {"in_chans": in_chans})}
    return _exactly(config.architecture, args, cfg, weights, num_classes, os.fspath(folder))


def _exactly(
    architecture: str,
    args: Mapping[str, Any],
    cfg: PretrainedCfg,
    weights: Any,
    num_classes: int,
    subject: str,
) -> nn.Module:
    """A stock network with these tensors and no others; nothing is resampled."""
    stock, own = _stock(architecture)
    assert stock is not None
    cfg = dataclasses.replace(cfg, architecture=architecture)
    make = functools.partial(
        model_entrypoint(stock), pretrained_cfg=cfg, **{**own, **args, "num_classes": num_classes}
    )
    try:
        model = assemble(make, weights, stock=stock, cfg=cfg, subject=subject, exact=True)
    except _CANNOT_BUILD as error:
        reason = f"timm cannot build {architecture} with its model_args ({type(error).__name__})"
        raise KeyMismatch(subject, reason) from error
    model._model_args = {**own, **args}  # type: ignore[assignment]
    return model


def _stock(architecture: str | None) -> tuple[str | None, dict[str, Any]]:
    """Timm's own name of an architecture, and the arguments that a `cxr_*` name stands for."""
    if architecture is None or architecture not in STOCK:
        return architecture, {}
    stock, args = STOCK[architecture]
    return stock, dict(args)


def _cfg_of(config: PublishedConfig) -> PretrainedCfg:
    own, _ = _stock(config.architecture)
    stock = without_weights(get_pretrained_cfg(own or config.architecture))
    return dataclasses.replace(stock, **config.pretrained_cfg, num_classes=config.num_classes)


def _head_classes(weights: Path, cfg: PretrainedCfg) -> int:
    shapes = read(weights).tensors.shapes
    heads = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
    return next((shapes[n][0] for h in heads if shapes.get(n := f"{h}.weight")), 0)


def weights_path(
    checkpoint: Checkpoint,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The verified safetensors file of a card; see `sources.weights_path`."""
    return sources.weights_path(
        checkpoint,
        origin_of(*STOCK[checkpoint.architecture], cfg_of(checkpoint)),
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )


def contract_of(name_or_dir: str | os.PathLike[str]) -> InputContract:
    """The input contract of a card or of a published folder.

    Raises:
        UnknownName: No such card.
        ContractError: The folder has none.
        CheckpointError: The folder's `config.json` is not sound.
    """
    folder = Path(name_or_dir)
    if not folder.is_dir():
        if len(folder.parts) > 1:
            raise UnreadableCheckpoint(folder, "no such folder", "Name a model or a folder.")
        return catalog.checkpoint(os.fspath(name_or_dir)).contract
    contract = read_config(folder).contract
    if contract is None:
        reason = "its config.json has no input contract"
        raise ContractError(folder, reason, "It is not a folder of this package; see its card.")
    return contract


def processor(name_or_dir: str | os.PathLike[str]) -> Processor:
    """What turns radiographs into the tensor that a checkpoint was trained on.

    Raises:
        UnknownName: No such card.
        ContractError: The contract is missing, invalid or incomplete.
    """
    return Processor(contract_of(name_or_dir))
