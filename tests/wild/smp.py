"""Networks of segmentation_models_pytorch, as Medical-MAE trains them."""

from __future__ import annotations

import argparse
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from wild import Case, Features, randomise, standin


class _MaskedAutoencoderCNN(nn.Module):
    """https://github.com/lambert-x/medical_mae/blob/main/models_mae_cnn.py: only its names."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.model = smp.Unet(encoder, encoder_weights=None, in_channels=3, classes=3)


@standin(
    layout="smp",
    truth="segmentation-models-pytorch: Unet",
    cases=tuple(Case(n, {"in_chans": 3}, 64) for n in ("resnet18", "densenet121")),
)
def medical_mae_cnn(path: Path, case: Case) -> Features:
    """{model, optimizer, epoch, scaler, args}."""
    network = _MaskedAutoencoderCNN(case.network)
    randomise(network)
    saved = {
        "model": network.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "epoch": 799,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="Unet", encoder_name=case.network),
    }
    torch.save(saved, path)

    def features(pictures: Tensor) -> Tensor:
        """Its encoder's last map; pooled as torchvision's DenseNet does where it is one."""
        with torch.no_grad():
            last: Tensor = network.model.encoder(pictures)[-1]
        return last.relu().mean((2, 3))

    return features
