"""Image–text models with open_clip's own classes."""

from __future__ import annotations

from pathlib import Path

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn
from transformers import BertConfig

from wild import Case, Features, pooled, randomise, standin

# A small text tower: what is dropped has the names of the whole, whatever its size.
_TEXT = {"context_length": 16, "vocab_size": 64, "width": 64, "heads": 2, "layers": 2}


@standin(
    layout="open_clip",
    truth="open_clip_torch: CustomTextCLIP",
    cases=(
        Case("vit_tiny_patch16_224", {"in_chans": 3}, 224),
        Case("vit_base_patch16_224", {"in_chans": 3}, 224),  # BiomedCLIP
    ),
)
def biomed_clip(path: Path, case: Case) -> Features:
    """open_clip_pytorch_model.bin: flat, a trunk of timm beside a text tower of transformers."""
    vision = {"timm_model_name": case.network, "timm_pool": "", "timm_proj": "linear"}
    network = CustomTextCLIP(512, {**vision, "image_size": 224}, _TEXT)
    bert = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=64)
    network.text = HFTextEncoder(
        "", 512, config=bert, pooler_type="cls_last_hidden_state_pooler", proj_type="mlp"
    )
    torch.save(randomise(network).state_dict(), path)
    return pooled(network.visual.trunk)


@standin(
    layout="open_clip",
    truth="open_clip_torch: CLIP",
    cases=(
        Case("convnext_tiny", {"in_chans": 3}, 64),
        Case("vit_base_patch16_siglip_224", {"in_chans": 3}, 224),
    ),
)
def open_clip_training(path: Path, case: Case) -> Features:
    """{epoch, name, state_dict, optimizer} of its training, text tower by the older names."""
    pool = ("map", "none") if "siglip" in case.network else ("", "linear")
    vision = dict(zip(("timm_pool", "timm_proj"), pool, strict=True))
    vision["timm_model_name"] = case.network
    network = randomise(CLIP(512, {**vision, "image_size": case.size}, _TEXT))
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "name": "a", "state_dict": state, "optimizer": {"state": {}}}, path)
    return pooled(network.visual.trunk)


def clip_of(case: Case, *, quick_gelu: bool = True) -> nn.Module:
    """open_clip's own CLIP, of the sizes of timm's network of that name."""
    _, size, patch, *_ = case.network.split("_")
    width, layers = {"base": (768, 12), "large": (1024, 24)}[size]
    vision = {
        "image_size": case.size,
        "layers": layers,
        "width": width,
        "patch_size": int(patch.removeprefix("patch")),
    }
    return randomise(CLIP(512, vision, _TEXT, quick_gelu=quick_gelu))


def before_projection(network: nn.Module) -> Features:
    """The class token behind the last norm. Changes the network."""
    network.visual.proj = None

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = network.encode_image(pictures)
        return found

    return features


@standin(
    layout="clip",
    truth="open_clip_torch: CLIP",
    cases=(
        Case("vit_base_patch32_clip_quickgelu_224", {"in_chans": 3}, 224),  # CheXzero
        Case("vit_base_patch16_clip_quickgelu_224", {"in_chans": 3}, 224),
        Case("vit_large_patch14_clip_quickgelu_224", {"in_chans": 3, "img_size": 336}, 336),
    ),
)
def clip(path: Path, case: Case) -> Features:
    """CheXzero's best_…_.pt: the flat state of OpenAI's CLIP."""
    network = clip_of(case)
    torch.save(network.state_dict(), path)
    return before_projection(network)
