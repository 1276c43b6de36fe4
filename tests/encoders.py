"""Tiny encoders for tests: random weights, published folders, cards that are only in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import timm
import torch
from cards import make_checkpoint
from timm.models import _registry
from torch import nn

from cxr_foundation import catalog, hub
from cxr_foundation.catalog import Checkpoint
from cxr_foundation.contract import InputContract
from cxr_foundation.models import architectures, published

# What makes a network of each family tiny; every other argument stays timm's own.
SMALL: dict[str, dict[str, Any]] = {
    "cxr_vit": {"depth": 4, "embed_dim": 24, "num_heads": 2},
    "cxr_eva": {"depth": 4, "embed_dim": 24, "num_heads": 2},
    "cxr_resnet": {"layers": [1, 1, 1, 1]},
    "cxr_densenet": {"block_config": (1, 1, 1, 1), "growth_rate": 8},
    "cxr_swin": {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)},
    "cxr_convnext": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
}


def small(name: str) -> dict[str, Any]:
    """Arguments that shrink the network of a `cxr_*` name."""
    return next(args for family, args in SMALL.items() if name.startswith(family))


def random_encoder(architecture: str, *, seed: int = 0, **args: Any) -> nn.Module:
    """A network whose every parameter and statistic is random, so that a wrong one shows."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(
        architecture, pretrained=False, **{"num_classes": 0, **args}
    )
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                torch.nn.init.normal_(tensor, mean=1.0 if tensor.ndim == 1 else 0.0, std=0.05)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def contract(channels: int = 1, size: int = 64, **overrides: Any) -> InputContract:
    """A complete contract of this many channels and pixels."""
    known = {"mean": (0.5,) * channels, "std": (0.25,) * channels, **overrides}
    return InputContract(channels=channels, size=(size, size), **known)


def publish(
    folder: Path,
    architecture: str,
    *,
    dtype: torch.dtype = torch.float32,
    made: InputContract | None = None,
    **args: Any,
) -> Path:
    """A published folder with random weights."""
    made = made or contract()
    labels = tuple(f"finding {n}" for n in range(args.pop("num_classes", 0)))
    args = {"in_chans": made.channels, **args}
    state = random_encoder(architecture, num_classes=len(labels), **args).state_dict()
    return published.write(
        folder,
        state={k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()},
        architecture=architecture,
        model_args=args,
        contract=made,
        card_text="---\nlicense: mit\nlibrary_name: timm\n---\n\n# Made up\n",
        tag="made_up",
        label_names=labels,
    )


def install(monkeypatch: Any, file: Path, **facts: Any) -> Checkpoint:
    """A card in the catalogue and in timm, whose file is had without a network.

    Its file is counted: `fetched` on the returned record's name is in `FETCHES`.
    """
    card = file.with_name("card.md")
    card.write_text("---\nlicense: apache-2.0\n---\n")
    record = make_checkpoint(path=card, **facts)
    cards = {**catalog.checkpoints(), record.name: record}
    monkeypatch.setattr(catalog, "checkpoints", lambda: cards)
    monkeypatch.setattr(hub, "fetch", lambda source, **options: FETCHES.append(options) or file)
    FETCHES.clear()
    architecture, _, tag = record.name.partition(".")
    cfg = dataclasses.replace(architectures.cfg_of(record), architecture=architecture, tag=tag)
    tags = [record.name, *_registry._model_with_tags[architecture]]
    monkeypatch.setitem(_registry._model_pretrained_cfgs, record.name, cfg)
    monkeypatch.setitem(_registry._model_with_tags, architecture, tags)
    return record


FETCHES: list[dict[str, Any]] = []
"""Options of each fetch since the last `install`."""


def largest_difference(first: Any, second: Any) -> float:
    """Maximal absolute difference of two tensors, or of two lists of them."""
    pairs = zip(first, second, strict=True) if isinstance(first, list) else [(first, second)]
    return max(float((a - b).abs().max()) for a, b in pairs)
