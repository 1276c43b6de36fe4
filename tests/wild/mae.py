"""MAE while it trains: names from Medical-MAE's definition, blocks from timm's ViT."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from wild import Case, Features, filled, pooled, read_keys, standin
from wild.timm_vit import network_of

_CASES = tuple(Case(f"vit_{size}_patch16_224", {"in_chans": 3}, 224) for size in ("small", "base"))


@standin(layout="mae", truth="keys/mae_vit_small.txt", cases=_CASES)
def mae(path: Path, case: Case) -> Features:
    """{model, optimizer, epoch, scaler, args}, encoder and decoder."""
    network = network_of(case)
    keys = read_keys(f"mae_vit_{case.network.split('_')[1]}")
    encoder = r"cls_token|pos_embed|(patch_embed|blocks|norm)\..+"
    saved = {
        "model": filled(keys, {encoder: network.state_dict()}),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "epoch": 799,
        "scaler": {"scale": 65536.0},
        "args": Namespace(model="mae_vit_small_patch16_dec128d2b", mask_ratio=0.9),
    }
    torch.save(saved, path)
    return pooled(network)
