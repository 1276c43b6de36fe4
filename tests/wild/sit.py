"""SiT, SPCXR and GMML: names from their definitions, values from timm's ViT, which they share."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from wild import Case, Features, filled, pooled, read_keys, standin
from wild.timm_vit import network_of

_BACKBONE = r"module\.backbone\..+"
_REST = {
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 5e-4}]},
    "epoch": 100,
    "args": Namespace(model="vit_small", drop_perc=0.7, drop_replace=0.3),
    "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0},
}


@standin(
    layout="sit",
    truth="keys/sit_vit_small.txt",
    cases=(Case("vit_small_patch16_224", {"in_chans": 3}, 224),),
)
def sit(path: Path, case: Case) -> Features:
    """{student, teacher, optimizer, epoch, args, fp16_scaler}, both DistributedDataParallel."""
    teacher, student = network_of(case, 0), network_of(case, 1)
    saved = filled(read_keys("sit_vit_small"), {_BACKBONE: teacher.state_dict()})
    below = [name for name in saved if name.startswith("module.backbone.")]
    # The heads are the same bytes twice, which keeps the file small.
    other = {**saved, **dict(zip(below, student.state_dict().values(), strict=True))}
    torch.save({"student": other, "teacher": saved, **_REST}, path)
    return pooled(teacher)


@standin(
    layout="sit",
    truth="keys/gmml_vit_tiny.txt",
    cases=(Case("vit_tiny_patch16_224", {"in_chans": 3}, 224),),
)
def gmml(path: Path, case: Case) -> Features:
    """{SiT_model, optimizer, epoch, args, fp16_scaler}."""
    network = network_of(case)
    state = filled(read_keys("gmml_vit_tiny"), {_BACKBONE: network.state_dict()})
    torch.save({"SiT_model": state, **_REST}, path)
    return pooled(network)
