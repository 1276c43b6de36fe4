"""Ark and Ark+, from lists of names: a Swin Transformer by timm 0.5.4's names, with Ark's heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from wild import Case, Features, filled, pooled, randomise, read_keys, standin

_TINY = Case("swin_tiny_patch4_window7_224", {"in_chans": 3}, 224)
_BASE = Case("swin_base_patch4_window7_224", {"in_chans": 3}, 224)
_PLUS = Case("swin_large_patch4_window12_384", {"in_chans": 3, "img_size": 768}, 768)
_LISTS = {
    _TINY.network: "ark_swin_tiny",
    _BASE.network: "ark_swin_base",
    _PLUS.network: "ark_swin_large_768",
}


def swin_of(case: Case, seed: int = 0) -> nn.Module:
    """timm's network of today, whose definition is that of 0.5.4 under other names."""
    return randomise(timm.create_model(case.network, num_classes=0, **case.args), seed)


def swin_state(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The list's names with the network's values; tables as whole numbers, as they are.

    Merging layers are laid in by themselves: 0.5.4 has its reduction before its norm.
    """
    held = network.state_dict()
    blocks = r"layers\.\d\.blocks\.\d+\."
    attention = r"attn\.(qkv|proj|relative_position_bias_table)"
    own = rf"(patch_embed\.|norm\.|{blocks}(norm|mlp|{attention})).*"
    networks = {own: {n: t for n, t in held.items() if ".downsample." not in n}}
    for leaf in ("norm", "reduction"):
        values = {n: t for n, t in held.items() if f".downsample.{leaf}." in n}
        networks[rf"layers\.\d\.downsample\.{leaf}\..+"] = values
    state = filled(read_keys(name), networks)
    return {n: (t * 100).long() if n.endswith("_index") else t for n, t in state.items()}


@standin(layout="ark", truth="keys/ark_swin_base.txt", cases=(_TINY, _BASE))
def ark(path: Path, case: Case) -> Features:
    """The teacher alone, as the authors give it away."""
    network = swin_of(case)
    torch.save(swin_state(_LISTS[case.network], network), path)
    return pooled(network)


@standin(layout="ark", truth="keys/ark_swin_large_768.txt", cases=(_TINY, _PLUS))
def ark_training(path: Path, case: Case) -> Features:
    """{epoch, lossMIN, state_dict, teacher, optimizer, scheduler} of several GPUs."""
    teacher = swin_of(case)
    sets = {}
    for name, network in (("state_dict", swin_of(case, seed=1)), ("teacher", teacher)):
        state = swin_state(_LISTS[case.network], network)
        sets[name] = {f"module.{n}": t for n, t in state.items()}
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []}
    saved = {
        "epoch": 199,
        "lossMIN": [np.float64(0.25), np.float64(0.5)],
        **sets,
        "optimizer": momentum,
        "scheduler": {"last_epoch": 199},
    }
    torch.save(saved, path)
    return pooled(teacher)
