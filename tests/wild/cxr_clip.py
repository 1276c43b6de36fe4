"""CXR-CLIP, from a list of names beside torchvision's own network."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import OmegaConf

from wild import Case, Features, filled, read_keys, standin
from wild.moco import headless
from wild.selfsupervised import below, torchvision_of


@standin(
    layout="cxr_clip",
    truth="keys/cxr_clip.txt",
    cases=(Case("resnet50", {"in_chans": 3}, 64),),
)
def cxr_clip(path: Path, case: Case) -> Features:
    """model-best.tar, with its configuration and the optimiser's state."""
    network = torchvision_of(case)
    saved = {
        "model": below("image_encoder.resnet.", network) | filled(read_keys("cxr_clip"), {}),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "scheduler": {"last_epoch": 3},
        "config": OmegaConf.create({"model": {"image_encoder": {"name": "resnet"}}}),
        "epoch": 4,
        "train_loss": 1.5,
    }
    torch.save(saved, path)
    return headless(network)
