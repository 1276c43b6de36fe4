r"""CLIP by OpenAI's names, with a ViT as image tower: OpenAI's files, CheXzero.

    flat, or {epoch, name, state_dict, optimizer} with module.*
    visual.conv1.weight, visual.class_embedding, visual.positional_embedding,
    visual.ln_pre, visual.transformer.resblocks.N.{ln_1,attn,ln_2,mlp}, visual.ln_post
    visual.proj                  projection to the common space
    transformer.*, token_embedding, positional_embedding, ln_final, text_projection
    logit_scale; input_resolution, context_length, vocab_size

By rule these names mean OpenAI's network, with QuickGELU. open_clip trains networks with the same
names and the ordinary GELU, and nothing in a file tells which; such a file has to be claimed:
`architecture="vit_base_patch32_clip_224"`. OpenAI:
https://github.com/openai/CLIP/blob/main/clip/model.py. CheXzero:
https://github.com/rajpurkarlab/CheXzero/blob/main/model.py. Tests write it with open_clip's class,
which loads OpenAI's files as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from cxr_foundation.convert.networks import network_of
from cxr_foundation.convert.open_clip import TEXT, WRAPPERS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["as_batch", "as_token"]

_MARKS = {
    "visual.conv1.weight",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.transformer.resblocks.0.attn.in_proj_weight",
}


def as_token(embedding: Tensor) -> Tensor:
    """(D,) → (1, 1, D)."""
    return embedding.reshape(1, 1, -1)


def as_batch(positions: Tensor) -> Tensor:
    """(N, D) → (1, N, D)."""
    return positions[None]


def _recognises(shapes: Shapes) -> bool:
    return {strip(n, WRAPPERS) for n in shapes} >= _MARKS


def _network(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    found = network_of(shapes)
    return found and (found[0].replace("_clip_", "_clip_quickgelu_"), found[1])


layouts.register("clip")(
    Layout(
        name="clip",
        title="CLIP (CheXzero)",
        source="https://github.com/openai/CLIP/blob/main/clip/model.py",
        proof="open_clip_torch",
        rule="the image tower, with OpenAI's QuickGELU",
        takes="visual",
        encoders=lambda names: ("visual",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=WRAPPERS,
            drop=(
                TRAINING_STATE,
                *TEXT,
                Drop("image projection", r"visual\.proj"),
                Drop("sizes", r"input_resolution|context_length|vocab_size"),
            ),
            select="visual.",
            rename=(
                (r"^conv1\.", "patch_embed.proj."),
                (r"^ln_pre\.", "norm_pre."),
                (r"^ln_post\.", "norm."),
                (r"^transformer\.resblocks\.", "blocks."),
                (r"\.ln_([12])\.", r".norm\1."),
                (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
                (r"\.attn\.out_proj\.", ".attn.proj."),
                (r"\.mlp\.c_fc\.", ".mlp.fc1."),
                (r"\.mlp\.c_proj\.", ".mlp.fc2."),
            ),
            make=(
                Make(parts=("class_embedding",), gives={"cls_token": as_token}),
                Make(parts=("positional_embedding",), gives={"pos_embed": as_batch}),
            ),
        ),
        network=_network,
    )
)
