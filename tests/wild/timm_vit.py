"""Vision transformers by timm's own names: plain files, and masked autoencoders fine-tuned."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from wild import Case, Features, pooled, randomise, standin


def network_of(case: Case, seed: int = 0, **args: object) -> nn.Module:
    """timm's network of a case with random weights, without a head unless `args` say otherwise."""
    network: nn.Module = timm.create_model(case.network, **{"num_classes": 0, **case.args, **args})
    return randomise(network, seed)


def features_of(network: nn.Module) -> Features:
    """What timm's network gives behind its pooling, head or not."""
    network.reset_classifier(0)
    return pooled(network)


@standin(
    layout="timm",
    truth="timm: VisionTransformer",
    cases=(
        Case("vit_tiny_patch16_224", {"in_chans": 3}, 224),
        Case("vit_small_patch16_224", {"in_chans": 1, "img_size": 384}, 384),
        Case("vit_base_patch16_224", {"in_chans": 3}, 224),
        Case("vit_small_patch14_dinov2", {"in_chans": 3, "img_size": 224}, 224),
    ),
)
def timm_vit(path: Path, case: Case) -> Features:
    """Flat safetensors, the head of a classifier with it."""
    network = network_of(case, num_classes=14)
    save_file(dict(network.state_dict()), path, {"format": "pt"})
    return features_of(network)


@standin(
    layout="timm",
    truth="timm: VisionTransformer",
    cases=(
        Case("vit_small_patch16_224", {"in_chans": 3, "global_pool": "avg"}, 224),
        Case("vit_base_patch16_224", {"in_chans": 3, "global_pool": "avg"}, 224),
    ),
)
def mae_finetuned(path: Path, case: Case) -> Features:
    """{model, optimizer, epoch, scaler, args} of MAE's fine-tuning: fc_norm and head, no norm."""
    network = network_of(case, num_classes=14)
    saved = {
        "model": dict(network.state_dict()),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "epoch": 75,
        "scaler": {"scale": 65536.0},
        "args": Namespace(model="vit_base_patch16", global_pool=True),
    }
    torch.save(saved, path)
    return pooled_of_mae(network)


def pooled_of_mae(network: nn.Module) -> Features:
    """The mean of the patches, then the norm, as MAE's models_vit.py has it.

    https://github.com/facebookresearch/mae/blob/main/models_vit.py
    """

    def features(pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            patches = network.forward_features(pictures)[:, 1:]
            found: torch.Tensor = network.fc_norm(patches.mean(dim=1))
        return found

    return features
