"""Every `cxr_*` name, over timm's own networks.

A name costs three lines and a row of `STOCK`; its weights are the cards of the catalogue. This
module is imported by `registration`, right after timm.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

from timm.models import DefaultCfg, PretrainedCfg, get_pretrained_cfg, register_model
from torch import nn

from cxr_foundation import catalog
from cxr_foundation.convert.hf_clip import SIGLIP_GELU
from cxr_foundation.models.build import build, without_weights
from cxr_foundation.models.sources import address

__all__ = ["STOCK", "cfg_of", "default_cfgs"]

# EVA-X is EVA-02 with patches of 16 pixels, so 14 x 14 of them: arXiv 2405.05237, section 3.
_EVA_X = {"patch_size": 16, "ref_feat_shape": (14, 14)}
# A hidden layer of 2736, two thirds of four times the width and rounded up to a multiple of 8, and
# its gate: https://github.com/facebookresearch/dinov2/blob/main/dinov2/layers/swiglu_ffn.py.
_CHEXFOUND = {
    "patch_size": 16,
    "img_size": 512,
    "embed_dim": 1024,
    "depth": 24,
    "num_heads": 16,
    "mlp_ratio": 2 * 2736 / 1024,
}

STOCK: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cxr_vit_ti": ("vit_tiny_patch16_224", {}),
    "cxr_vit_s": ("vit_small_patch16_224", {}),
    "cxr_vit_b": ("vit_base_patch16_224", {}),
    "cxr_vit_l": ("vit_large_patch16_224", {}),
    "cxr_vit_s14": ("vit_small_patch14_dinov2", {}),
    "cxr_vit_b14": ("vit_base_patch14_dinov2", {}),
    "cxr_vit_l14": ("vit_large_patch14_dinov2", {}),
    # With four registers: CXformer (https://huggingface.co/m42-health/CXformer-base).
    "cxr_vit_s14_reg4": ("vit_small_patch14_reg4_dinov2", {}),
    "cxr_vit_b14_reg4": ("vit_base_patch14_reg4_dinov2", {}),
    # DINOv2 with patches of 16 pixels at 512: CheXFound, https://arxiv.org/abs/2502.05142.
    "cxr_vit_l16": ("vit_large_patch14_dinov2", {"patch_size": 16, "img_size": 512}),
    # The same with four registers, and SwiGLU as DINOv2's giant has it: the released CheXFound.
    "cxr_vit_l16_reg4": ("vit_giant_patch14_reg4_dinov2", _CHEXFOUND),
    # CLIP as LAION trained it, with the ordinary GELU, and SigLIP with Google's approximate one,
    # both at 512 pixels: XrayCLIP and XraySigLIP, https://arxiv.org/abs/2401.12208.
    "cxr_vit_b16_clip": ("vit_base_patch16_clip_224", {"img_size": 512}),
    "cxr_vit_b16_siglip": ("vit_base_patch16_siglip_512", SIGLIP_GELU),
    "cxr_vit_l16_siglip": ("vit_large_patch16_siglip_512", SIGLIP_GELU),
    # CLIP as OpenAI trained it, with its approximate GELU; CheXzero goes on from there.
    "cxr_vit_b32": ("vit_base_patch32_clip_quickgelu_224", {}),
    "cxr_resnet18": ("resnet18", {}),
    "cxr_resnet50": ("resnet50", {}),
    "cxr_resnet101": ("resnet101", {}),
    "cxr_densenet121": ("densenet121", {}),
    "cxr_swin_b": ("swin_base_patch4_window7_224", {}),
    # The large Swin of radiography is the one with windows of 12 (Ark+: arXiv 2310.09507).
    "cxr_swin_l": ("swin_large_patch4_window12_384", {}),
    "cxr_eva_x_ti": ("eva02_tiny_patch14_224", _EVA_X),
    "cxr_eva_x_s": ("eva02_small_patch14_224", _EVA_X),
    "cxr_eva_x_b": ("eva02_base_patch14_224", _EVA_X),
    "cxr_convnext_ti": ("convnext_tiny", {}),
    "cxr_convnext_b": ("convnext_base", {}),
}
"""Name → timm's name and the arguments that are not its own."""


def cfg_of(checkpoint: catalog.Checkpoint) -> PretrainedCfg:
    """A card in timm's words; what the contract does not know stays unknown."""
    return dataclasses.replace(
        _bare(checkpoint.architecture),
        url=address(checkpoint) or "",
        license=checkpoint.licences.weights,
        description=checkpoint.title,
        **checkpoint.contract.to_timm(),
    )


def _bare(name: str) -> PretrainedCfg:
    """What timm says about a network, and the image size of ours where that is another."""
    stock, args = STOCK[name]
    cfg = without_weights(get_pretrained_cfg(stock))
    size = args.get("img_size")
    return cfg if size is None else dataclasses.replace(cfg, input_size=(3, size, size))


def _default_cfgs() -> dict[str, DefaultCfg]:
    """One entry for each architecture, as timm's `register_model` looks it up; default card first.

    An architecture without cards has no weights, and timm's input size for it.
    """
    cfgs: dict[str, DefaultCfg] = {}
    cards = sorted(catalog.checkpoints().values(), key=lambda c: not c.default)
    for name in STOCK:
        tagged = {c.name.partition(".")[2]: cfg_of(c) for c in cards if c.architecture == name}
        tagged = tagged or {"": _bare(name)}
        cfgs[name] = DefaultCfg(
            tags=deque(tagged), cfgs=tagged, is_pretrained=any(c.url for c in tagged.values())
        )
    return cfgs


default_cfgs = _default_cfgs()


@register_model
def cxr_vit_ti(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Ti/16 at 224 pixels: 192 features."""
    return build("cxr_vit_ti", *STOCK["cxr_vit_ti"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/16 at 224 pixels: 384 features."""
    return build("cxr_vit_s", *STOCK["cxr_vit_s"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 at 224 pixels: 768 features."""
    return build("cxr_vit_b", *STOCK["cxr_vit_b"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_l(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-L/16 at 224 pixels: 1024 features."""
    return build("cxr_vit_l", *STOCK["cxr_vit_l"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_s14(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/14 of DINOv2 at 518 pixels: 384 features."""
    return build("cxr_vit_s14", *STOCK["cxr_vit_s14"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_b14(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/14 of DINOv2 at 518 pixels: 768 features."""
    return build("cxr_vit_b14", *STOCK["cxr_vit_b14"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_l14(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-L/14 of DINOv2 at 518 pixels: 1024 features."""
    return build("cxr_vit_l14", *STOCK["cxr_vit_l14"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_s14_reg4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/14 of DINOv2 with four registers at 518 pixels: 384 features."""
    return build("cxr_vit_s14_reg4", *STOCK["cxr_vit_s14_reg4"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_b14_reg4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/14 of DINOv2 with four registers at 518 pixels: 768 features."""
    return build("cxr_vit_b14_reg4", *STOCK["cxr_vit_b14_reg4"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_l16(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-L/16 of DINOv2 at 512 pixels: 1024 features."""
    return build("cxr_vit_l16", *STOCK["cxr_vit_l16"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_l16_reg4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-L/16 of DINOv2 with SwiGLU and four registers at 512 pixels: 1024 features."""
    return build("cxr_vit_l16_reg4", *STOCK["cxr_vit_l16_reg4"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_b16_clip(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 of CLIP at 512 pixels: 768 features."""
    return build("cxr_vit_b16_clip", *STOCK["cxr_vit_b16_clip"], pretrained=pretrained, **kwargs)


@register_model
def cxr_vit_b16_siglip(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 of SigLIP at 512 pixels, pooled by attention: 768 features."""
    return build(
        "cxr_vit_b16_siglip", *STOCK["cxr_vit_b16_siglip"], pretrained=pretrained, **kwargs
    )


@register_model
def cxr_vit_l16_siglip(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-L/16 of SigLIP at 512 pixels, pooled by attention: 1024 features."""
    return build(
        "cxr_vit_l16_siglip", *STOCK["cxr_vit_l16_siglip"], pretrained=pretrained, **kwargs
    )


@register_model
def cxr_vit_b32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/32 of CLIP at 224 pixels: 768 features."""
    return build("cxr_vit_b32", *STOCK["cxr_vit_b32"], pretrained=pretrained, **kwargs)


@register_model
def cxr_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18: 512 features."""
    return build("cxr_resnet18", *STOCK["cxr_resnet18"], pretrained=pretrained, **kwargs)


@register_model
def cxr_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50: 2048 features."""
    return build("cxr_resnet50", *STOCK["cxr_resnet50"], pretrained=pretrained, **kwargs)


@register_model
def cxr_resnet101(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-101: 2048 features."""
    return build("cxr_resnet101", *STOCK["cxr_resnet101"], pretrained=pretrained, **kwargs)


@register_model
def cxr_densenet121(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DenseNet-121: 1024 features."""
    return build("cxr_densenet121", *STOCK["cxr_densenet121"], pretrained=pretrained, **kwargs)


@register_model
def cxr_swin_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin-B with windows of 7 at 224 pixels: 1024 features."""
    return build("cxr_swin_b", *STOCK["cxr_swin_b"], pretrained=pretrained, **kwargs)


@register_model
def cxr_swin_l(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin-L with windows of 12 at 384 pixels: 1536 features."""
    return build("cxr_swin_l", *STOCK["cxr_swin_l"], pretrained=pretrained, **kwargs)


@register_model
def cxr_eva_x_ti(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EVA-X-Ti/16 at 224 pixels: 192 features."""
    return build("cxr_eva_x_ti", *STOCK["cxr_eva_x_ti"], pretrained=pretrained, **kwargs)


@register_model
def cxr_eva_x_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EVA-X-S/16 at 224 pixels: 384 features."""
    return build("cxr_eva_x_s", *STOCK["cxr_eva_x_s"], pretrained=pretrained, **kwargs)


@register_model
def cxr_eva_x_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EVA-X-B/16 at 224 pixels: 768 features."""
    return build("cxr_eva_x_b", *STOCK["cxr_eva_x_b"], pretrained=pretrained, **kwargs)


@register_model
def cxr_convnext_ti(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvNeXt-T: 768 features."""
    return build("cxr_convnext_ti", *STOCK["cxr_convnext_ti"], pretrained=pretrained, **kwargs)


@register_model
def cxr_convnext_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvNeXt-B: 1024 features."""
    return build("cxr_convnext_b", *STOCK["cxr_convnext_b"], pretrained=pretrained, **kwargs)
