"""ViT as transformers saves it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from wild import Case, Features, randomise, standin
from wild.dinov2 import class_token_of, save_as_transformers

_SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
_CASES = tuple(
    Case(f"vit_{size}_patch16_224", {"in_chans": channels}, 224)
    for size, channels in (("tiny", 3), ("small", 1), ("base", 3))
)


def _config(case: Case) -> ViTConfig:
    width, heads = _SIZES[case.network.split("_")[1]]
    return ViTConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=12,
        intermediate_size=4 * width,
        image_size=case.size,
        num_channels=case.args["in_chans"],
        num_labels=14,
    )


def vit_of_transformers(case: Case) -> nn.Module:
    """A classifier with random weights."""
    return randomise(ViTForImageClassification(_config(case)))


@standin(layout="hf_vit", truth="transformers: ViTModel", cases=_CASES)
def hf_vit(path: Path, case: Case) -> Features:
    """save_pretrained of the bare model, with its pooler."""
    network = randomise(ViTModel(_config(case)))
    save_as_transformers(network, path)
    return class_token_of(network)


@standin(layout="hf_vit", truth="transformers: ViTForImageClassification", cases=_CASES[:1])
def hf_vit_classifier(path: Path, case: Case) -> Features:
    """A Trainer's state of a classifier: `vit.`, and the names of transformers 5."""
    network = vit_of_transformers(case)
    torch.save(network.state_dict(), path)
    return class_token_of(network.vit)
