r"""torchvision's networks that begin with patches: ViT, Swin Transformer (v1) and ConvNeXt.

    ViT       conv_proj, class_token, encoder.pos_embedding,
              encoder.layers.encoder_layer_N.{ln_1, self_attention, ln_2, mlp}, encoder.ln, heads
    Swin      features.0.{0, 2}                      patches and their norm
              features.1, 3, 5, 7 .M.{norm1, attn, norm2, mlp}            the stages
              features.2, 4, 6 .{norm, reduction}    merging between them; norm, head
    ConvNeXt  features.0.{0, 1}                      patches and their norm
              features.1, 3, 5, 7 .M.{block.{0, 2, 3, 5}, layer_scale}    the stages
              features.2, 4, 6 .{0, 1}               merging between them; classifier.{0, 2}

The two layers of an MLP are mlp.0 and mlp.3, in ViT files of torchvision before 0.13 mlp.linear_1
and mlp.linear_2. https://github.com/pytorch/vision/tree/v0.20.0/torchvision/models
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cxr_foundation.convert.keymap import (
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Make,
    Shapes,
    layouts,
    strip,
)
from cxr_foundation.convert.swin import COMPUTED_TABLES

if TYPE_CHECKING:
    from torch import Tensor

_SOURCE = "https://github.com/pytorch/vision/blob/v0.20.0/torchvision/models"
_WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "module.", "backbone.")
_MLP = (
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


def _flat(scale: Tensor) -> Tensor:
    """(C, 1, 1) → (C,)."""
    return scale.flatten()


def _holding(*marks: str) -> Callable[[Shapes], bool]:
    return lambda shapes: {strip(n, _WRAPPERS) for n in shapes} >= set(marks)


def _layout(
    name: str,
    title: str,
    file: str,
    *,
    marks: tuple[str, ...],
    rename: Iterable[tuple[str, str]],
    classifier: str,
    drop: tuple[Drop, ...] = (),
    make: tuple[Make, ...] = (),
) -> None:
    keymap = KeyMap(
        wrappers=_WRAPPERS, drop=(TRAINING_STATE, *drop), rename=tuple(rename), make=make
    )
    layouts.register(name)(
        Layout(
            name=name,
            title=title,
            source=f"{_SOURCE}/{file}",
            proof="torchvision",
            rule="the only encoder in the file",
            takes="encoder",
            encoders=lambda names: ("encoder",),
            recognises=_holding(*marks),
            keymap=lambda takes: keymap,
            classifier=classifier,
        )
    )


def _stages(prefix: str) -> list[tuple[str, str]]:
    """Torchvision's features.1, 3, 5, 7 are the stages."""
    return [(rf"^features\.{2 * n + 1}\.", f"{prefix}.{n}.blocks.") for n in range(4)]


def _merging(prefix: str) -> list[tuple[str, str]]:
    """Its features.2, 4, 6 stand before the stages 1, 2, 3."""
    return [(rf"^features\.{2 * n}\.", f"{prefix}.{n}.downsample.") for n in range(1, 4)]


_layout(
    "torchvision_vit",
    "ViT of torchvision",
    "vision_transformer.py",
    marks=("conv_proj.weight", "class_token", "encoder.pos_embedding"),
    rename=(
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_", "blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        *_MLP,
        (r"^heads\.head\.", "head."),
    ),
    classifier=r"head\.(weight|bias)",
)
_layout(
    "torchvision_swin",
    "Swin Transformer of torchvision",
    "swin_transformer.py",
    # Swin v2 has no table.
    marks=("features.0.0.weight", "features.1.0.attn.relative_position_bias_table"),
    rename=(
        (r"^features\.0\.0\.", "patch_embed.proj."),
        (r"^features\.0\.2\.", "patch_embed.norm."),
        *_stages("layers"),
        *_merging("layers"),
        *_MLP,
        (r"^head\.", "head.fc."),
    ),
    classifier=r"head\.fc\.(weight|bias)",
    drop=(COMPUTED_TABLES,),
)
_layout(
    "torchvision_convnext",
    "ConvNeXt of torchvision",
    "convnext.py",
    marks=("features.0.0.weight", "features.1.0.block.0.weight", "features.1.0.layer_scale"),
    rename=(
        (r"^features\.0\.", "stem."),
        *_stages("stages"),
        *_merging("stages"),
        (r"\.block\.0\.", ".conv_dw."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".mlp.fc1."),
        (r"\.block\.5\.", ".mlp.fc2."),
        (r"^classifier\.0\.", "head.norm."),
        (r"^classifier\.2\.", "head.fc."),
    ),
    classifier=r"head\.fc\.(weight|bias)",
    make=(Make(parts=(r"(.+)\.layer_scale",), gives={r"\1.gamma": _flat}),),
)
