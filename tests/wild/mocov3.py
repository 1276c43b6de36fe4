"""MoCo v3: heads and predictor from its definition, encoders from timm and torchvision."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wild import Case, Features, filled, pooled, read_keys, standin
from wild.moco import headless
from wild.moco import network_of as resnet_of
from wild.timm_vit import network_of


def _save(path: Path, base: dict[str, Tensor], momentum: dict[str, Tensor], arch: str) -> None:
    predictor = filled(read_keys("mocov3_predictor"), {})
    state = {f"module.base_encoder.{name}": tensor for name, tensor in base.items()}
    state |= {f"module.momentum_encoder.{name}": tensor for name, tensor in momentum.items()}
    state |= {f"module.{name}": tensor for name, tensor in predictor.items()}
    saved = {
        "epoch": 300,
        "arch": arch,
        "state_dict": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "scaler": {"scale": 65536.0},
    }
    torch.save(saved, path)


@standin(
    layout="mocov3",
    truth="keys/mocov3_vit_small.txt",
    cases=(Case("vit_small_patch16_224", {"in_chans": 3, "num_heads": 12}, 224),),
)
def mocov3_vit(path: Path, case: Case) -> Features:
    """{epoch, arch, state_dict, optimizer, scaler}; twelve heads, as its definition has them."""
    base, momentum = network_of(case, 0), network_of(case, 1)
    head = filled(read_keys("mocov3_vit_small"), {r"(?!head\.).+": base.state_dict()})
    other = {**head, **momentum.state_dict()}
    _save(path, head, other, "vit_small")
    return pooled(base)


@standin(
    layout="mocov3",
    truth="keys/mocov3_resnet50_head.txt",
    cases=(Case("resnet50", {"in_chans": 3}, 64),),
)
def mocov3_resnet(path: Path, case: Case) -> Features:
    """torchvision's ResNet with an MLP in place of fc."""
    base, momentum = resnet_of("resnet50", 3, 0), resnet_of("resnet50", 3, 1)
    head = filled(read_keys("mocov3_resnet50_head"), {})
    features = headless(base)
    headless(momentum)
    _save(path, {**base.state_dict(), **head}, {**momentum.state_dict(), **head}, "resnet50")
    return features
