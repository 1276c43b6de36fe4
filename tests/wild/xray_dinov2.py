"""Stanford AIMI's XrayDINOv2: transformers' DINOv2 with the positions of 224 pixels."""

from __future__ import annotations

from pathlib import Path

from transformers import Dinov2Config, Dinov2Model

from wild import Case, Features, randomise, standin
from wild.dinov2 import class_token_of, save_as_transformers


@standin(
    layout="dinov2_hf",
    truth="transformers: Dinov2Model",
    cases=(Case("vit_base_patch14_dinov2", {"in_chans": 3, "img_size": 224}, 224),),
)
def xray_dinov2(path: Path, case: Case) -> Features:
    """save_pretrained of the bare model."""
    config = Dinov2Config(
        hidden_size=768,
        num_attention_heads=12,
        num_hidden_layers=12,
        image_size=case.size,
        patch_size=14,
    )
    network = randomise(Dinov2Model(config))
    save_as_transformers(network, path)
    return class_token_of(network)
