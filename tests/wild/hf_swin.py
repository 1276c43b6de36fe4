"""Swin Transformers of transformers: as a Hub repository has them, and with the names in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    SwinForMaskedImageModeling,
    SwinModel,
)

from wild import Case, Features, randomise, standin

_CASES = (
    Case("swin_tiny_patch4_window7_224", {"in_chans": 3}, 224),
    Case("swin_small_patch4_window7_224", {"in_chans": 1}, 224),
)


def _config(case: Case) -> SwinConfig:
    depths = [2, 2, 6 if "tiny" in case.network else 18, 2]
    return SwinConfig(
        image_size=case.size,
        num_channels=case.args["in_chans"],
        embed_dim=96,
        depths=depths,
        num_heads=[3, 6, 12, 24],
        window_size=7,
        encoder_stride=32,
        num_labels=14,
    )


def pooler_output(model: nn.Module) -> Features:
    """transformers' own pooled features."""

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(pictures).pooler_output
        return found

    return features


def save_pretrained(model: nn.Module, path: Path) -> None:
    """The model.safetensors of `save_pretrained`, under the path's name."""
    folder = path.parent / "pretrained"
    model.save_pretrained(folder)
    (folder / "model.safetensors").rename(path)


@standin(layout="hf_swin", truth="transformers: SwinModel", cases=_CASES)
def hf_swin(path: Path, case: Case) -> Features:
    """SwinModel's model.safetensors: the names of transformers 4."""
    model = randomise(SwinModel(_config(case)))
    save_pretrained(model, path)
    return pooler_output(model)


@standin(layout="hf_swin", truth="transformers: SwinForImageClassification", cases=_CASES[:1])
def hf_swin_classifier(path: Path, case: Case) -> Features:
    """A fine-tuned model, by the names that transformers 5 has in memory."""
    model = randomise(SwinForImageClassification(_config(case)))
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    return pooler_output(model.swin)


@standin(layout="hf_swin", truth="transformers: SwinForMaskedImageModeling", cases=_CASES[:1])
def hf_swin_masked(path: Path, case: Case) -> Features:
    """Masked image modelling: a mask token and a decoder besides."""
    model = randomise(SwinForMaskedImageModeling(_config(case)))
    save_pretrained(model, path)
    swin = model.swin
    swin.pooler = nn.AdaptiveAvgPool1d(1)
    return pooler_output(swin)
