"""transformers' ResNet: a published folder's safetensors, and the bare encoder's state."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

from wild import Case, Features, randomise, standin

_SIZES = {
    "resnet18": {
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
    },
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3]},
}


def _features(model: ResNetModel) -> Features:
    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(pictures).pooler_output
        return found.flatten(1)

    return features


@standin(
    layout="hf_resnet",
    truth="transformers: ResNetForImageClassification",
    cases=tuple(Case(n, {"in_chans": 3}, 64) for n in ("resnet18", "resnet50")),
)
def hf_resnet(path: Path, case: Case) -> Features:
    """model.safetensors of a classifier."""
    model = ResNetForImageClassification(ResNetConfig(**_SIZES[case.network], num_labels=14))
    randomise(model)
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    return _features(model.resnet)


@standin(
    layout="hf_resnet",
    truth="transformers: ResNetModel",
    cases=(Case("resnet18", {"in_chans": 1}, 64),),
)
def hf_resnet_bare(path: Path, case: Case) -> Features:
    """pytorch_model.bin of an encoder of one channel, without the prefix."""
    model = ResNetModel(ResNetConfig(**_SIZES[case.network], num_channels=1))
    randomise(model)
    torch.save(model.state_dict(), path)
    return _features(model)
