"""An encoder beside its untrained twins: one pass over the radiographs for all of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from cxr_foundation import catalog
from cxr_foundation.data import Study
from cxr_foundation.errors import CardError, KeyMismatch
from cxr_foundation.evaluate.audit import seen_by
from cxr_foundation.files import sha256_of
from cxr_foundation.models import loading
from cxr_foundation.models.config import read_config, weights_of
from cxr_foundation.models.embed import embed
from cxr_foundation.models.features import POOLED, FeatureKind, FeatureReader

__all__ = ["describe", "embed_with_twins", "seen"]


def embed_with_twins(
    model: str | Path,
    paths: Sequence[Path],
    *,
    seeds: Sequence[int],
    features: FeatureKind = POOLED,
    batch_size: int = 32,
    device: str | None = None,
    progress: bool = False,
) -> npt.NDArray[np.float32]:
    """Features of an encoder and of untrained networks of the same architecture.

    A twin has the initial weights that timm gives the architecture under its seed. It is fed what
    the encoder is fed: each radiograph is read and prepared once, by the encoder's own contract.

    Args:
        model: Name in the catalogue, or a published folder.
        paths: N pictures or DICOM files.
        seeds: One twin for each.
        features: Which features are taken, of the encoder and of its twins alike.
        batch_size: Radiographs per pass.
        device: Where to compute; None takes a GPU if there is one.
        progress: Show a bar.

    Returns:
        float32 (1 + len(seeds), N, D), the encoder first.

    Raises:
        UnknownName: No such model.
        CheckpointError: The weights cannot be loaded.
        SourceError: The weights cannot be fetched.
        ImageError: A picture cannot be read.
        RecipeError: The encoder has no such level.
    """
    encoder, build = _encoder(model)
    networks = [encoder, *(_twin(model, encoder, build, seed) for seed in seeds)]
    together = _SideBySide([FeatureReader(network, features) for network in networks]).eval()
    taken = embed(
        together,
        loading.processor(model),
        paths,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    width = taken.shape[1] // len(networks)
    split = taken.reshape(len(paths), len(networks), width).transpose(1, 0, 2)
    return np.ascontiguousarray(split, dtype=np.float32)


def describe(model: str | Path) -> dict[str, Any]:
    """What a report says about an encoder: name, architecture, contract, digest of its weights.

    Raises:
        UnknownName: No such model.
        ContractError: A folder without an input contract.
        CheckpointError: No such folder, or its config.json is not sound.
    """
    folder = Path(model)
    contract = loading.contract_of(model).to_dict()
    if folder.is_dir():
        return {
            "name": folder.resolve().name,
            "architecture": read_config(folder).architecture,
            "contract": contract,
            "sha256": sha256_of(weights_of(folder)),
            "may_have_seen": None,
        }
    record = catalog.checkpoint(str(model))
    return {
        "name": record.name,
        "architecture": record.architecture,
        "contract": contract,
        "sha256": record.source.sha256,
        "may_have_seen": [*record.training.data, *record.training.overlaps],
    }


def seen(model: str | Path, studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Per source of the pictures, whether the encoder may have been pretrained on them.

    Raises:
        UnknownName: No such model.
    """
    record = None
    path = Path(model) / "README.md"
    if not Path(model).exists():
        record = catalog.checkpoint(str(model))
    elif path.is_file():
        # A README that is no card of the catalogue says nothing of the data; it is no mistake.
        with contextlib.suppress(CardError):
            card = catalog.read_card(path)
            record = card if isinstance(card, catalog.Checkpoint) else None
    name = Path(model).resolve().name if record is None else record.name
    found = seen_by(record, {study.source for study in studies}, name=name)
    return [dataclasses.asdict(verdict) for verdict in found]


class _SideBySide(nn.Module):
    """Several networks on one batch; their features one after another."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, K * D) for K networks of D features."""
        return torch.cat([network(pixel_values) for network in self.networks], dim=1)


def _encoder(model: str | Path) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """The encoder, and what builds an untrained network of its architecture."""
    folder = Path(model)
    if folder.is_dir():
        config = read_config(folder)
        return loading.load(folder), lambda: timm.create_model(
            config.architecture, pretrained=False, num_classes=0, **config.model_args
        )
    record = catalog.checkpoint(str(model))
    channels = record.contract.channels
    return (
        loading.create_model(record.name, num_classes=0, in_chans=channels),
        lambda: loading.create_model(
            record.architecture, pretrained=False, num_classes=0, in_chans=channels
        ),
    )


def _twin(
    model: str | Path, encoder: nn.Module, build: Callable[[], nn.Module], seed: int
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = build()
    shapes = [{k: v.shape for k, v in network.state_dict().items()} for network in (encoder, twin)]
    if shapes[0] != shapes[1]:
        raise KeyMismatch(model, "an untrained network of its architecture has other tensors")
    return twin.eval()
