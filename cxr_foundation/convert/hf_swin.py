r"""Swin Transformers as transformers saves them: SwinModel and what is built on it.

    embeddings.patch_embeddings.projection, embeddings.norm
    encoder.layers.N.blocks.M.layernorm_before, attention.self.{query, key, value,
        relative_position_bias_table, relative_position_index}, attention.output.dense,
        layernorm_after, intermediate.dense, output.dense
    encoder.layers.N.downsample.{norm, reduction}, layernorm

all below `swin.` if there is a classifier or a decoder of masked images. Files written by hand
with transformers 5 (`torch.save(model.state_dict())`) have its names in memory: attention.q_proj,
k_proj, v_proj, o_proj, relative_position_bias.relative_position_bias_table, mlp.fc1, mlp.fc2.
https://github.com/huggingface/transformers/tree/main/src/transformers/models/swin. The image size
is in config.json alone: the network's own is taken.
"""

from __future__ import annotations

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
from cxr_foundation.convert.swin import COMPUTED_TABLES, MERGING_AT_THE_BEGINNING

_WRAPPERS = ("state_dict.", "model.", "module.", "swin.")
_ATTENTION = "encoder.layers.0.blocks.0.attention"


def _recognises(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    # Swin v2 has the same names but no table.
    tables = {f"{_ATTENTION}.{by}.relative_position_bias_table" for by in _HOLDERS}
    return "embeddings.patch_embeddings.projection.weight" in bare and bool(tables & bare)


_HOLDERS = ("self", "relative_position_bias")

layouts.register("hf_swin")(
    Layout(
        name="hf_swin",
        title="Swin Transformer of transformers",
        source="https://github.com/huggingface/transformers/blob/main/src/transformers/models/"
        "swin/modeling_swin.py",
        proof="transformers",
        rule="the only encoder in the file",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(
                TRAINING_STATE,
                COMPUTED_TABLES,
                Drop("mask token", r"embeddings\.mask_token"),
                Drop("decoder of masked images", r"decoder\.0\.(weight|bias)"),
            ),
            rename=(
                (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
                (r"^embeddings\.norm\.", "patch_embed.norm."),
                (r"^encoder\.", ""),
                (r"^layernorm\.", "norm."),
                (r"^classifier\.", "head.fc."),
                (r"\.layernorm_before\.", ".norm1."),
                (r"\.layernorm_after\.", ".norm2."),
                (r"\.attention\.(self\.query|q_proj)\.", ".attn.query."),
                (r"\.attention\.(self\.key|k_proj)\.", ".attn.key."),
                (r"\.attention\.(self\.value|v_proj)\.", ".attn.value."),
                (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
                (rf"\.attention\.({'|'.join(_HOLDERS)})\.(?=relative_position_bias)", ".attn."),
                (r"\.intermediate\.dense\.", ".mlp.fc1."),
                (r"\.output\.dense\.", ".mlp.fc2."),
            ),
            make=(FUSED_QKV, MERGING_AT_THE_BEGINNING),
        ),
        classifier=r"head\.fc\.(weight|bias)",
    )
)
