"""MoCo v1 and v2, with torchvision's ResNet and DenseNet as their builder makes them."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn

from wild import Case, Features, pooled, randomise, standin

_CASES = tuple(
    Case(name, {"in_chans": channels}, 64)
    for name, channels in (
        ("resnet18", 3),
        ("resnet50", 1),  # CheSS
        ("resnet50", 3),
        ("densenet121", 3),
    )
)


def network_of(name: str, channels: int, seed: int = 0) -> nn.Module:
    """torchvision's own network, with a first layer of so many channels."""
    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    if channels != 3 and name.startswith("resnet"):
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    elif channels != 3:
        network.features.conv0 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return randomise(network, seed)


def headless(network: nn.Module) -> Features:
    """torchvision's own pooled features: the input of its classifier. Changes the network."""
    setattr(network, "fc" if hasattr(network, "fc") else "classifier", nn.Identity())
    return pooled(network)


def moco_state(case: Case, prefix: str, *, layers: int) -> tuple[dict[str, object], Features]:
    """Both encoders with heads of one or two layers, and the queue."""
    query, key = (network_of(case.network, case.args["in_chans"], seed) for seed in (0, 1))
    state: dict[str, object] = {}
    for encoder, network in (("encoder_q", query), ("encoder_k", key)):
        for name, tensor in network.state_dict().items():
            head, _, leaf = name.partition(".")
            if head in ("fc", "classifier") and layers == 2:
                state[f"{prefix}{encoder}.{head}.0.{leaf}"] = tensor.clone()
                state[f"{prefix}{encoder}.{head}.2.{leaf}"] = tensor.clone()
            else:
                state[f"{prefix}{encoder}.{name}"] = tensor
    state[f"{prefix}queue"] = torch.randn(128, 64)
    state[f"{prefix}queue_ptr"] = torch.zeros(1, dtype=torch.int64)
    return state, headless(query)


@standin(layout="moco", truth="torchvision: ResNet, DenseNet", cases=_CASES)
def moco(path: Path, case: Case) -> Features:
    """{epoch, arch, state_dict, optimizer}, heads of two layers, DistributedDataParallel."""
    state, features = moco_state(case, "module.", layers=2)
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []}
    saved = {"epoch": 200, "arch": case.network, "state_dict": state, "optimizer": momentum}
    torch.save(saved, path)
    return features


@standin(
    layout="moco",
    truth="torchvision: DenseNet",
    cases=tuple(Case("densenet121", {"in_chans": c}, 64) for c in (3, 1)),
)
def covid_prognosis(path: Path, case: Case) -> Features:
    """A Lightning file whose module holds the network as `model`, heads of one layer.

    https://github.com/facebookresearch/CovidPrognosis, cp_examples/moco_pretrain/moco_module.py
    """
    state, features = moco_state(case, "model.", layers=1)
    saved = {
        "epoch": 100,
        "pytorch-lightning_version": "1.0.2",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(2)}}}],
        "hyper_parameters": {"arch": case.network, "feature_dim": 128},
    }
    torch.save(saved, path)
    return features
