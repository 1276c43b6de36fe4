"""DINOv2 by its own names and as transformers saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from wild import Case, Features, filled, pooled, randomise, read_keys, standin
from wild.timm_vit import network_of

_SIZES = {"small": (384, 6), "base": (768, 12)}


@standin(
    layout="dinov2",
    truth="keys/dinov2_vit_small.txt",
    cases=(Case("vit_small_patch14_dinov2", {"in_chans": 3, "img_size": 224}, 224),),
)
def dinov2(path: Path, case: Case) -> Features:
    """Flat, as it is released."""
    network = network_of(case)
    keys = read_keys("dinov2_vit_small")
    torch.save(filled(keys, {r"(?!mask_token).+": network.state_dict()}), path)
    return pooled(network)


@standin(
    layout="dinov2",
    truth="keys/dinov2_vit_small_reg.txt",
    cases=(Case("vit_small_patch14_reg4_dinov2", {"in_chans": 3, "img_size": 224}, 224),),
)
def dinov2_registers(path: Path, case: Case) -> Features:
    """Flat, with registers: the class token and its position apart, where timm has their sum."""
    network = network_of(case)
    held: Mapping[str, Tensor] = network.state_dict()
    position = 0.1 * torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(3))
    tokens = {
        "cls_token": {"": held["cls_token"] - position},
        "pos_embed": {"": torch.cat([position, held["pos_embed"]], dim=1)},
        "register_tokens": {"": held["reg_token"]},
    }
    rest = {n: t for n, t in held.items() if not n.endswith(("_token", "pos_embed"))}
    keys = read_keys("dinov2_vit_small_reg")
    torch.save(filled(keys, {**tokens, r"(patch_embed|blocks|norm)\..+": rest}), path)
    return pooled(network)


_TRAINING = (
    Case("vit_small_patch14_dinov2", {"in_chans": 3, "patch_size": 16, "img_size": 224}, 224),
    # CheXFound
    Case("vit_large_patch14_dinov2", {"in_chans": 3, "patch_size": 16, "img_size": 512}, 512),
)


@standin(layout="dinov2", truth="keys/dinov2_training_vit_small.txt", cases=_TRAINING)
def dinov2_teacher(path: Path, case: Case) -> Features:
    """{teacher: {backbone, dino_head, ibot_head}}, blocks in chunks: teacher_checkpoint.pth."""
    network = network_of(case)
    keys = read_keys(f"dinov2_training_vit_{case.network.split('_')[1]}")
    state = filled(keys, {r"backbone\.(?!mask_token).+": network.state_dict()})
    torch.save({"teacher": state}, path)
    return pooled(network)


def class_token_of(network: nn.Module) -> Features:
    """The class token behind the last norm, of a model of transformers."""

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = network(pictures).last_hidden_state[:, 0]
        return found

    return features


def _config(case: Case) -> dict[str, int]:
    width, heads = _SIZES[case.network.split("_")[1]]
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": 12,
        "image_size": case.size,
        "patch_size": 14,
    }


def save_as_transformers(network: nn.Module, path: Path) -> None:
    """One file as save_pretrained writes it, whose names are not those of the state."""
    folder = path.with_name(f"{path.name}.folder")
    network.save_pretrained(folder)
    (folder / "model.safetensors").rename(path)
    (folder / "config.json").unlink()
    folder.rmdir()


@standin(
    layout="dinov2_hf",
    truth="transformers: Dinov2Model",
    cases=(
        Case("vit_small_patch14_dinov2", {"in_chans": 3, "img_size": 112}, 112),
        Case("vit_base_patch14_dinov2", {"in_chans": 3}, 518),  # RAD-DINO
    ),
)
def dinov2_of_transformers(path: Path, case: Case) -> Features:
    """save_pretrained of the bare model."""
    network = randomise(Dinov2Model(Dinov2Config(**_config(case))))
    save_as_transformers(network, path)
    return class_token_of(network)


@standin(
    layout="dinov2_hf",
    truth="transformers: Dinov2ForImageClassification",
    cases=(Case("vit_small_patch14_dinov2", {"in_chans": 3, "img_size": 112}, 112),),
)
def dinov2_classifier_of_transformers(path: Path, case: Case) -> Features:
    """The state of a classifier, so with `dinov2.` and the names of transformers 5."""
    network = randomise(Dinov2ForImageClassification(Dinov2Config(**_config(case))))
    save_file(dict(network.state_dict()), path, {"format": "pt"})
    return class_token_of(network.dinov2)


@standin(
    layout="dinov2_hf",
    truth="transformers: Dinov2WithRegistersModel",
    cases=(
        Case("vit_small_patch14_reg4_dinov2", {"in_chans": 3, "img_size": 112}, 112),
        Case("vit_small_patch14_reg4_dinov2", {"in_chans": 3}, 518),  # CXformer
        Case("vit_base_patch14_reg4_dinov2", {"in_chans": 3}, 518),  # CXformer
    ),
)
def dinov2_registers_of_transformers(path: Path, case: Case) -> Features:
    """save_pretrained of the bare model with registers."""
    config = Dinov2WithRegistersConfig(num_register_tokens=4, **_config(case))
    network = randomise(Dinov2WithRegistersModel(config))
    save_as_transformers(network, path)
    return class_token_of(network)
