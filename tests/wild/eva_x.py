"""EVA-X: names from EVA-02's definition, values from timm's EVA-02, which EVA-X itself uses."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from wild import Case, Features, filled, pooled, read_keys, standin
from wild.timm_vit import network_of

_ARGS = {"in_chans": 3, "patch_size": 16, "ref_feat_shape": (14, 14)}
_CASES = tuple(Case(f"eva02_{size}_patch14_224", _ARGS, 224) for size in ("tiny", "small", "base"))
# A checkpoint of DeepSpeed has weights of 16 bits beside the optimiser's state of 32.
_OPTIMISER = {
    "cur_scale": 65536.0,
    "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(8)}}, "param_groups": []},
    "fp32_groups_flat": [torch.zeros(8)],
}


def _state(case: Case) -> tuple[dict[str, Tensor], Features]:
    """A state of 16 bits and the features of its values."""
    network = network_of(case)
    # Not network.half(): that would round the rotary tables too, which are computed anew.
    held = {name: tensor.half().float() for name, tensor in network.state_dict().items()}
    network.load_state_dict(held)
    keys = read_keys(f"eva_x_{case.network.split('_')[1]}")
    # Beside three projections, EVA has two of their biases as parameters before them.
    apart = {
        rf"blocks\.\d+\.attn\.{letter}_bias": {
            n: t for n, t in held.items() if n.endswith(f"{letter}_proj.bias")
        }
        for letter in "qv"
    }
    fused = not apart[r"blocks\.\d+\.attn\.q_bias"]
    biases = r"attn\.[qv]_bias" if not fused else "none"
    rest = rf"(?!mask_token|lm_head|rope)(?!.*(rope\.|{biases})).+"
    own = {n: t for n, t in held.items() if not n.endswith(("q_proj.bias", "v_proj.bias"))}
    state = filled(keys, {rest: own} if fused else {rest: own, **apart})
    return {name: tensor.half() for name, tensor in state.items()}, pooled(network)


@standin(layout="eva_x", truth="keys/eva_x_tiny.txt", cases=_CASES)
def eva_x(path: Path, case: Case) -> Features:
    """{module, optimizer, …} of masked image modelling."""
    state, features = _state(case)
    saved = {
        "module": state,
        "optimizer": _OPTIMISER,
        "lr_scheduler": None,
        "global_steps": 1000,
        "epoch": 900,
        "args": Namespace(model="eva02", input_size=224),
    }
    torch.save(saved, path)
    return features


@standin(layout="eva_x", truth="keys/eva_x_tiny.txt", cases=(_CASES[0], _CASES[2]))
def eva_x_finetuned(path: Path, case: Case) -> Features:
    """{model, optimizer, epoch, scaler, args} of a classifier: fc_norm and head."""
    state, features = _state(case)
    gone = ("mask_token", "lm_head.weight", "lm_head.bias")
    model = {
        f"fc_{name}" if name.startswith("norm.") else name: tensor.float()
        for name, tensor in state.items()
        if name not in gone
    }
    width = model["cls_token"].shape[-1]
    model |= {"head.weight": torch.randn(14, width), "head.bias": torch.randn(14)}
    torch.save({"model": model, "epoch": 9, "args": Namespace(nb_classes=14)}, path)
    return features
