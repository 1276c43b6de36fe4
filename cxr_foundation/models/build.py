"""A network with its weights: from the tensors of a file to a model, none of them left random.

The fast way builds the network on the meta device, which costs neither memory nor random numbers,
and gives it the file's own memory-mapped tensors. What has to be fitted to another network (image
size, feature maps) goes through timm's own loader, strictly.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import (
    PretrainedCfg,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    model_entrypoint,
)
from torch import Tensor, nn

from cxr_foundation import catalog
from cxr_foundation.convert import convert, read
from cxr_foundation.convert.report import listed
from cxr_foundation.errors import KeyMismatch
from cxr_foundation.models.channels import Stem, adapt_channels
from cxr_foundation.models.meta import on_meta
from cxr_foundation.models.sources import Origin, locate

__all__ = ["assemble", "build", "origin_of", "without_weights"]

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Arguments that decide what tensors a network has, so that a file can be held to it.
_SHAPING = {"patch_size", "ref_feat_shape", "embed_dim", "depth", "num_heads", "mlp_ratio"}
_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source")


def without_weights(stock: PretrainedCfg | None, *, num_classes: int = 0) -> PretrainedCfg:
    """What timm says about a network itself, and nothing of the weights that timm has for it."""
    stock = stock or PretrainedCfg()
    return PretrainedCfg(
        input_size=stock.input_size,
        fixed_input_size=stock.fixed_input_size,
        min_input_size=stock.min_input_size,
        mean=None,  # type: ignore[arg-type]
        std=None,  # type: ignore[arg-type]
        num_classes=num_classes,
        pool_size=stock.pool_size,
        first_conv=stock.first_conv,
        classifier=stock.classifier,
    )


def origin_of(stock: str, model_args: Mapping[str, Any], cfg: PretrainedCfg) -> Origin:
    """The network that a card's own file fits: its channels, and its size where that is fixed."""
    channels, *size = cfg.input_size
    args = {**model_args, "in_chans": channels}
    if cfg.fixed_input_size:
        args["img_size"] = tuple(size)
    return Origin(stock, args)


def build(
    name: str,
    stock: str,
    model_args: Mapping[str, Any],
    *,
    pretrained: bool,
    pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """What every entry point of `architectures` does.

    Args:
        name: "cxr_*", without weights.
        stock: timm's name of the network.
        model_args: Arguments of that network beyond timm's own.
        pretrained: Load the weights that the configuration names.
        pretrained_cfg: Name of the weights, or a whole configuration; None: the default card.
        pretrained_cfg_overlay: As in timm; `file`, `hf_hub_id`, `state_dict` and `url` replace the
            card's file.
        cache_dir: As in huggingface_hub.
        **kwargs: As timm's own entry point takes them.

    Raises:
        UnknownName: There are no weights of this name.
        SourceError: The file cannot be had.
        CheckpointError: The file does not set every tensor of the encoder.
    """
    cfg = _resolved(name, pretrained_cfg, pretrained_cfg_overlay or {})
    # Weights in memory belong to this call, not to what the model says about itself.
    said = dataclasses.replace(cfg, state_dict=None)
    make = functools.partial(
        model_entrypoint(stock), pretrained_cfg=said, **{**model_args, **kwargs}
    )
    if not pretrained:
        model: nn.Module = make(pretrained=False)
        return model
    full = f"{name}.{cfg.tag}" if cfg.tag else name
    weights = locate(full, cfg, origin_of(stock, model_args, cfg), cache_dir=cache_dir)
    return assemble(make, weights, stock=stock, cfg=said, subject=full)


def assemble(
    make: functools.partial[nn.Module],
    weights: Path | Mapping[str, Tensor],
    *,
    stock: str,
    cfg: PretrainedCfg,
    subject: str,
    exact: bool = False,
) -> nn.Module:
    """The network that `make` makes, with every tensor of its encoder from `weights`.

    A head of the asked number of classes is taken from the file if it is there; any other head of
    the file is dropped by name, and a new one is initialised. Parameters are float32 unless `make`
    asks for a dtype. Channels turn from one into three and back by `adapt_channels`.

    Args:
        make: timm's entry point with all arguments.
        weights: A checkpoint, or its tensors.
        stock: timm's name of the network.
        cfg: The configuration that `make` has.
        subject: What errors call the weights.
        exact: Refuse weights that would have to be fitted, such as another image size.

    Raises:
        CheckpointError: The file is damaged, or does not set every tensor of the encoder.
    """
    asked = dict(make.keywords)
    classes = asked.get("num_classes", max(cfg.num_classes or 0, 0))
    channels = asked.get("in_chans", cfg.input_size[0])
    heads = _listed(cfg.classifier)
    raw, held = (read(weights), {}) if isinstance(weights, Path) else (None, weights)
    shapes = raw.tensors.shapes if raw else {k: tuple(v.shape) for k, v in held.items()}
    kept = classes > 0 and classes in (shapes.get(f"{h}.weight", (0,))[0] for h in heads)
    make = functools.partial(make, num_classes=classes if kept else 0)
    with on_meta():
        empty: nn.Module = make(pretrained=False)
    padded = _pads(empty)

    def prepared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = {k: v for k, v in state.items() if kept or k.rpartition(".")[0] not in heads}
        return _with_channels(state, cfg, channels, padded=padded)

    if raw is None:
        state = prepared(held)
    elif raw.container == "safetensors":
        state = prepared(load_file(raw.path))
    else:
        state = prepared(_converted(raw.path, stock, make, cfg, classes if kept else None))
    _check_values(state, subject)
    difference = _difference(empty, state)
    if difference is None:
        model = _filled(empty, state)
    elif exact:
        raise KeyMismatch(subject, f"does not fit {stock}: {difference}")
    else:
        model = None
    if model is None:
        if raw is not None and raw.container == "safetensors":
            state = prepared(_converted(raw.path, stock, make, cfg, classes if kept else None))
        model = _fitted(make, state, cfg, channels, subject)
        model.pretrained_cfg = model.default_cfg = empty.pretrained_cfg
    _tell_input(model, cfg, channels)
    if classes and not kept and not asked.get("features_only"):
        model.reset_classifier(classes)  # type: ignore[operator]
    return model


def _converted(
    path: Path,
    stock: str,
    make: functools.partial[nn.Module],
    cfg: PretrainedCfg,
    classes: int | None,
) -> dict[str, Tensor]:
    """The tensors of any checkpoint of the network that `cfg` describes, strictly."""
    claims = {k: v for k, v in make.keywords.items() if k in _SHAPING}
    if cfg.fixed_input_size:
        claims["img_size"] = tuple(cfg.input_size[1:])
    return convert(path, architecture=stock, model_args=claims, num_classes=classes).state


def _pads(network: nn.Module) -> bool:
    """Whether a network's first layer pads its input."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return first is not None and first.padding not in ("valid", 0, (0, 0))


def _with_channels(
    state: Mapping[str, Tensor], cfg: PretrainedCfg, channels: int, *, padded: bool
) -> dict[str, Tensor]:
    adapted = dict(state)
    for stem in _listed(cfg.first_conv):
        weight, bias = state.get(f"{stem}.weight"), state.get(f"{stem}.bias")
        if weight is None or weight.ndim != 4 or weight.shape[1] == channels:
            continue
        bias = None if bias is None else bias.float()
        mean, std = _normalisation(cfg, weight.shape[1])
        held = Stem(weight=weight.float(), bias=bias, mean=mean, std=std, padded=padded)
        made = adapt_channels(held, channels)
        adapted[f"{stem}.weight"] = made.weight
        if made.bias is not None:
            adapted[f"{stem}.bias"] = made.bias
    return adapted


def _normalisation(
    cfg: PretrainedCfg, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation of so many channels; None where the weights' are not known."""
    found = []
    for values in (cfg.mean, cfg.std):
        values = tuple(values or ())
        found.append(values * channels if len(values) == 1 else values)
    known = all(len(values) == channels for values in found)
    return (found[0], found[1]) if known else (None, None)


def _tell_input(model: nn.Module, cfg: PretrainedCfg, channels: int) -> None:
    """Write into a model what its input has to be, where its channels were adapted."""
    held = cfg.input_size[0]
    told = getattr(model, "pretrained_cfg", None)
    if channels == held or not isinstance(told, dict):
        return
    mean, std = _normalisation(cfg, held)
    sizes = torch.empty(1, held, 1, 1)
    stem = adapt_channels(Stem(weight=sizes, bias=sizes[:, 0, 0, 0], mean=mean, std=std), channels)
    size = (channels, *cfg.input_size[1:])
    adapted = {**told, "input_size": size, "mean": stem.mean, "std": stem.std}
    model.pretrained_cfg = model.default_cfg = adapted  # type: ignore[assignment]


def _check_values(state: Mapping[str, Tensor], subject: str) -> None:
    """Refuse weights that are not finite, and matrices of zeros only. One pass over each tensor."""
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            continue
        # A sum is finite and not zero for almost every sound tensor; only then look closer.
        total = tensor.sum(dtype=torch.float64 if tensor.ndim < 2 else torch.float32)
        if not torch.isfinite(total) and not torch.isfinite(tensor).all():
            raise KeyMismatch(subject, f"{name} has NaN or infinite values", "The file is damaged.")
        if total == 0 and tensor.ndim >= 2 and name.endswith("weight") and not tensor.any():
            raise KeyMismatch(subject, f"{name} is nothing but zeros", "It was never trained.")


def _difference(empty: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """How the tensors of a file differ from those of a network; None if they are the same."""
    own = empty.state_dict()
    parts = {
        "missing": tuple(own.keys() - state.keys()),
        "unexpected": tuple(state.keys() - own.keys()),
        "of another size or type": tuple(
            name
            for name in own.keys() & state.keys()
            if own[name].shape != state[name].shape
            or own[name].is_floating_point() != (state[name].dtype in _FLOATS)
        ),
    }
    found = [f"{len(names)} {what} ({listed(names)})" for what, names in parts.items() if names]
    return ", ".join(found) or None


def _filled(empty: nn.Module, state: Mapping[str, Tensor]) -> nn.Module | None:
    """The network with the file's own memory as its tensors; None where it cannot be had so."""
    own = empty.state_dict()
    if not all(tensor.is_meta for tensor in own.values()):
        return None  # a device was asked for
    empty.load_state_dict({k: state[k].to(own[k].dtype) for k in own}, assign=True)
    for module in empty.modules():
        buffers = {n: b for n, b in module.named_buffers(recurse=False) if b.is_meta}
        if buffers and hasattr(module, "init_non_persistent_buffers"):
            # Tables that are computed from the network's sizes and are in no file.
            for name, buffer in buffers.items():
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
            getattr(module, "init_non_persistent_buffers")()  # noqa: B009  (of timm's modules)
    everything = (*empty.parameters(), *empty.buffers())
    return None if any(tensor.is_meta for tensor in everything) else empty


def _fitted(
    make: functools.partial[nn.Module],
    state: Mapping[str, Tensor],
    cfg: PretrainedCfg,
    channels: int,
    subject: str,
) -> nn.Module:
    """The network through timm's own loader, which resamples what depends on the image size.

    timm is strict as long as the number of classes is the one that the configuration names.
    """
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    changes: dict[str, Any] = {
        **dict.fromkeys(_SOURCES),
        "state_dict": floats,
        "num_classes": make.keywords["num_classes"],
        "input_size": (channels, *cfg.input_size[1:]),
    }
    told = dataclasses.replace(cfg, **changes)
    try:
        return make(pretrained=True, pretrained_cfg=told)
    except RuntimeError as error:
        reason = "timm cannot fit these weights to the network that was asked for"
        raise KeyMismatch(subject, f"{reason}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _resolved(
    name: str,
    cfg: str | Mapping[str, Any] | PretrainedCfg | None,
    overlay: Mapping[str, Any],
) -> PretrainedCfg:
    if cfg is None or isinstance(cfg, str):
        full = f"{name}.{cfg}" if cfg else name
        if cfg and full not in get_arch_pretrained_cfgs(name):
            catalog.checkpoint(full)  # raises, and says which names there are
        cfg = get_pretrained_cfg(full) or PretrainedCfg()
    elif isinstance(cfg, Mapping):
        cfg = PretrainedCfg(**cfg)
    return dataclasses.replace(cfg, **{"architecture": name, **overlay})
