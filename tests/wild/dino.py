"""DINO: names from its definition, values from timm's ViT, of which its network is a copy."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from wild import Case, Features, filled, pooled, read_keys, standin
from wild.timm_vit import network_of


@standin(
    layout="dino",
    truth="keys/dino_vit_tiny.txt",
    cases=(Case("vit_tiny_patch16_224", {"in_chans": 3}, 224),),
)
def dino(path: Path, case: Case) -> Features:
    """{student, teacher, optimizer, epoch, args, dino_loss}; only the student has `module.`."""
    teacher, student = network_of(case, 0), network_of(case, 1)
    keys = read_keys("dino_vit_tiny")
    states = [filled(keys, {r"backbone\..+": n.state_dict()}) for n in (teacher, student)]
    saved = {
        "student": {f"module.{name}": tensor for name, tensor in states[1].items()},
        "teacher": states[0],
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "epoch": 100,
        "args": Namespace(arch="vit_tiny", out_dim=4096),
        "dino_loss": {"center": torch.zeros(1, 4096)},
        "fp16_scaler": {"scale": 65536.0},
    }
    torch.save(saved, path)
    return pooled(teacher)
