"""CLIP and SigLIP as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from wild import Case, Features, randomise, standin
from wild.dinov2 import save_as_transformers

_SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16)}
# A small text tower: what is dropped has the names of the whole, whatever its size.
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _vision(case: Case) -> dict[str, int]:
    _, size, patch, *_ = case.network.split("_")
    width, layers, heads = _SIZES[size]
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": case.size,
        "patch_size": int(patch.removeprefix("patch")),
    }


def pooled_output_of(tower: nn.Module) -> Features:
    """What an image tower of transformers gives to its projection."""

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = tower(pictures).pooler_output
        return found

    return features


def clip_of_transformers(case: Case, *, activation: str = "quick_gelu") -> CLIPModel:
    """Both towers with random weights; the activation is that of the image tower."""
    vision = {**_vision(case), "hidden_act": activation}
    return randomise(CLIPModel(CLIPConfig(text_config=_TEXT, vision_config=vision)))


@standin(
    layout="hf_clip",
    truth="transformers: CLIPModel",
    cases=(
        Case("vit_base_patch32_clip_quickgelu_224", {"in_chans": 3, "img_size": 64}, 64),
        Case("vit_base_patch16_clip_quickgelu_224", {"in_chans": 3}, 224),
        # XrayCLIP's tensors; that it has the ordinary GELU has to be claimed.
        Case("vit_base_patch16_clip_quickgelu_224", {"in_chans": 3, "img_size": 512}, 512),
        Case("vit_large_patch14_clip_quickgelu_224", {"in_chans": 3}, 224),
    ),
)
def hf_clip(path: Path, case: Case) -> Features:
    """save_pretrained of both towers, which was OpenAI's network."""
    network = clip_of_transformers(case)
    save_as_transformers(network, path)
    return pooled_output_of(network.vision_model)


@standin(
    layout="hf_clip",
    truth="transformers: CLIPVisionModel",
    cases=(Case("vit_base_patch32_clip_quickgelu_224", {"in_chans": 3, "img_size": 64}, 64),),
)
def hf_clip_vision(path: Path, case: Case) -> Features:
    """The state of an image tower alone, without a prefix, and a buffer of older versions."""
    network = randomise(CLIPVisionModel(CLIPVisionConfig(**_vision(case))))
    state = network.state_dict()
    torch.save({**state, "embeddings.position_ids": torch.arange(5)[None]}, path)
    return pooled_output_of(network)


@standin(
    layout="hf_siglip",
    truth="transformers: SiglipModel",
    cases=(
        Case("vit_base_patch16_siglip_224", {"in_chans": 3, "act_layer": "gelu_tanh"}, 224),
        Case("vit_base_patch16_siglip_512", {"in_chans": 3, "act_layer": "gelu_tanh"}, 512),
        Case("vit_large_patch16_siglip_512", {"in_chans": 3, "act_layer": "gelu_tanh"}, 512),
    ),
)
def hf_siglip(path: Path, case: Case) -> Features:
    """save_pretrained of both towers."""
    network = SiglipModel(SiglipConfig(text_config=_TEXT, vision_config=_vision(case)))
    save_as_transformers(randomise(network), path)
    return pooled_output_of(network.vision_model)


@standin(
    layout="hf_siglip",
    truth="transformers: SiglipVisionModel",
    cases=(Case("vit_base_patch16_siglip_224", {"in_chans": 3, "act_layer": "gelu_tanh"}, 224),),
)
def hf_siglip_vision(path: Path, case: Case) -> Features:
    """The state of an image tower alone, without a prefix."""
    network = randomise(SiglipVisionModel(SiglipVisionConfig(**_vision(case))))
    torch.save(network.state_dict(), path)
    return pooled_output_of(network)
