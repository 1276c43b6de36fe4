r"""DINOv2 as transformers saves it: RAD-DINO, CXformer.

    embeddings.{cls_token,mask_token,position_embeddings,register_tokens}
    embeddings.patch_embeddings.projection
    encoder.layer.N.{norm1,layer_scale1.lambda1,norm2,mlp.fc1,mlp.fc2,layer_scale2.lambda1}
    encoder.layer.N.attention.attention.{query,key,value}, attention.output.dense   in files
    encoder.layer.N.attention.{q,k,v,o}_proj            in the state of a model of transformers 5
    layernorm
    dinov2.* or dinov2_with_registers.*, classifier.*   with a classification head

The classifier takes the class token beside the mean of the patches, which no stock network does:
it is dropped.
https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/dinov2/modeling_dinov2.py
"""

from __future__ import annotations

from collections.abc import Iterable

from cxr_foundation.convert.dinov2 import REGISTERS
from cxr_foundation.convert.keymap import (
    FUSED_QKV,
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Shapes,
    layouts,
    strip,
)

__all__ = ["ATTENTION", "EMBEDDINGS"]

_WRAPPERS = ("state_dict.", "model.", "module.", "dinov2.", "dinov2_with_registers.")
_MARKS = {
    "embeddings.cls_token",
    "embeddings.patch_embeddings.projection.weight",
    "encoder.layer.0.layer_scale1.lambda1",
}
# What all of transformers' vision transformers share.
EMBEDDINGS = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"^layernorm\.", "norm."),
)
ATTENTION = (
    (r"\.attention\.(attention\.query|q_proj)\.", ".attn.query."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attn.key."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attn.value."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
)


def _bare(names: Iterable[str]) -> set[str]:
    return {strip(n, _WRAPPERS) for n in names}


def _recognises(shapes: Shapes) -> bool:
    return _bare(shapes) >= _MARKS


layouts.register("dinov2_hf")(
    Layout(
        name="dinov2_hf",
        title="DINOv2 of transformers (RAD-DINO, CXformer)",
        source=(
            "https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/"
            "dinov2/modeling_dinov2.py"
        ),
        proof="transformers",
        rule="the only encoder",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(
                TRAINING_STATE,
                Drop("mask token", r"embeddings\.mask_token"),
                Drop("classification head", r"classifier\.(weight|bias)"),
            ),
            rename=(
                *EMBEDDINGS,
                *ATTENTION,
                (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            ),
            make=(FUSED_QKV, REGISTERS),
        ),
    )
)
