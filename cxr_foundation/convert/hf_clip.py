r"""CLIP and SigLIP as transformers saves them: XrayCLIP, XraySigLIP.

    vision_model.embeddings.{class_embedding,patch_embedding,position_embedding}   CLIP
    vision_model.pre_layrnorm                  so spelt
    vision_model.encoder.layers.N.{layer_norm1,self_attn.{q,k,v,out}_proj,layer_norm2,mlp}
    vision_model.post_layernorm
    vision_model.head.{probe,attention.in_proj_weight,layernorm,mlp}               SigLIP
    visual_projection, text_projection, text_model.*, logit_scale, logit_bias
    without `vision_model.`        in the state of an image tower alone, of transformers 5

The features are those before the projection to the common space; SigLIP has none, and its head is
part of the encoder. No file tells the activation, the config beside it does. By rule these names
mean what transformers builds unless told otherwise: OpenAI's QuickGELU for CLIP, the approximate
GELU for SigLIP, which timm's own SigLIP networks do not have. CLIP as LAION trained it has the
ordinary GELU and has to be claimed: `architecture="vit_base_patch16_clip_224"`.
https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/clip/modeling_clip.py
and .../siglip/modeling_siglip.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxr_foundation.convert.clip import as_batch, as_token
from cxr_foundation.convert.keymap import (
    FUSED_QKV,
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Make,
    Shapes,
    layouts,
    strip,
)
from cxr_foundation.convert.networks import network_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SIGLIP_GELU"]

SIGLIP_GELU = {"act_layer": "gelu_tanh"}
"""What SigLIP needs of timm's networks beyond their own arguments."""

_SOURCE = "https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/"
_WRAPPERS = ("state_dict.", "model.", "module.", "vision_model.")
_CLIP = {"embeddings.class_embedding", "embeddings.patch_embedding.weight", "pre_layrnorm.weight"}
_SIGLIP = {"embeddings.patch_embedding.weight", "head.probe", "head.attention.in_proj_weight"}
_DROP = (
    TRAINING_STATE,
    Drop("text tower", r"text_model\..+"),
    Drop("projection", r"(visual|text)_projection\.weight"),
    Drop("temperature", r"logit_scale|logit_bias"),
    Drop("indices of positions", r"embeddings\.position_ids"),
)
_RENAME = (
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.q_proj\.", ".attn.query."),
    (r"\.self_attn\.k_proj\.", ".attn.key."),
    (r"\.self_attn\.v_proj\.", ".attn.value."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
)


def _query(fused: Tensor) -> Tensor:
    """The first of three equal parts (3D, …) → (D, …)."""
    return fused[: len(fused) // 3]


def _key_value(fused: Tensor) -> Tensor:
    """The last two of three equal parts (3D, …) → (2D, …)."""
    return fused[len(fused) // 3 :]


_POSITIONS = Make(parts=(r"embeddings\.position_embedding\.weight",), gives={"pos_embed": as_batch})


def _has(marks: set[str], shapes: Shapes) -> bool:
    return {strip(n, _WRAPPERS) for n in shapes} >= marks


def _clip(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    found = network_of(shapes)
    return found and (found[0].replace("_clip_", "_clip_quickgelu_"), found[1])


def _siglip(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    found = network_of(shapes)
    return found and (found[0], {**found[1], **SIGLIP_GELU})


layouts.register("hf_clip")(
    Layout(
        name="hf_clip",
        title="CLIP of transformers (XrayCLIP)",
        source=f"{_SOURCE}clip/modeling_clip.py",
        proof="transformers",
        rule="the image tower, with OpenAI's QuickGELU",
        takes="vision_model",
        encoders=lambda names: ("vision_model",),
        recognises=lambda shapes: _has(_CLIP, shapes),
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=_DROP,
            rename=_RENAME,
            make=(
                FUSED_QKV,
                _POSITIONS,
                Make(parts=(r"embeddings\.class_embedding",), gives={"cls_token": as_token}),
            ),
        ),
        network=_clip,
    )
)
layouts.register("hf_siglip")(
    Layout(
        name="hf_siglip",
        title="SigLIP of transformers (XraySigLIP)",
        source=f"{_SOURCE}siglip/modeling_siglip.py",
        proof="transformers",
        rule="the image tower with its attention pooling, with the approximate GELU",
        takes="vision_model",
        encoders=lambda names: ("vision_model",),
        recognises=lambda shapes: _has(_SIGLIP, shapes),
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=_DROP,
            rename=(
                *_RENAME,
                (r"^head\.probe$", "attn_pool.latent"),
                (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
                (r"^head\.layernorm\.", "attn_pool.norm."),
                (r"^head\.mlp\.", "attn_pool.mlp."),
            ),
            make=(
                FUSED_QKV,
                _POSITIONS,
                Make(
                    parts=(r"head\.attention\.in_proj_(weight|bias)",),
                    gives={r"attn_pool.q.\1": _query, r"attn_pool.kv.\1": _key_value},
                ),
            ),
        ),
        network=_siglip,
    )
)
