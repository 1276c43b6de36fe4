r"""EVA-02 by its own names, so EVA-X.

    {module, optimizer, …}     masked image modelling, DeepSpeed: mask_token, lm_head, norm
    {model, optimizer, epoch, scaler, args}     fine-tuned: fc_norm, head
    cls_token, pos_embed, patch_embed.proj, blocks.N.{norm1,attn,norm2,mlp}
    attn.{q_bias,v_bias,qkv,proj}, mlp.{w12,w3}                          tiny and small
    attn.{q_bias,v_bias,q_proj,k_proj,v_proj,proj}, mlp.{w1,w2,ffn_ln,w3}     base
    rope.freqs_cos, rope.freqs_sin, attn.rope.*     tables, computed from the sizes

The last norm of pretraining becomes the norm behind the mean of the patches, as the authors' own
loader has it. Tiny and small keep the first layer of their SwiGLU in one piece (xformers'
`SwiGLU`), base in two (their own `SwiGLU`). EVA-X:
https://github.com/hustvl/EVA-X/blob/main/eva_x.py and
https://github.com/hustvl/EVA-X/blob/main/classification/models/models_eva.py. Pretraining:
https://github.com/baaivision/EVA/blob/master/EVA-02/asuka/modeling_pretrain.py. Written from these
sources; unproven on the authors' files.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict.", "module.", "model.")
_GATED = {"blocks.0.mlp.w12.weight", "blocks.0.mlp.w1.weight"}


def _weight(weight: Tensor, q: Tensor, v: Tensor) -> Tensor:
    return weight


def _q(weight: Tensor, q: Tensor, v: Tensor) -> Tensor:
    return q


def _v(weight: Tensor, q: Tensor, v: Tensor) -> Tensor:
    return v


# Beside a fused `qkv`, timm names the two biases as EVA does; beside three layers, as theirs.
_BIASES = Make(
    parts=(r"(.+\.attn)\.q_proj\.weight", r"\1.q_bias", r"\1.v_bias"),
    gives={r"\1.q_proj.weight": _weight, r"\1.q_proj.bias": _q, r"\1.v_proj.bias": _v},
)


def _recognises(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    return {"patch_embed.proj.weight", "blocks.0.attn.q_bias"} <= bare and bool(bare & _GATED)


layouts.register("eva_x")(
    Layout(
        name="eva_x",
        title="EVA-02 (EVA-X)",
        source="https://github.com/hustvl/EVA-X/blob/main/eva_x.py",
        proof=None,
        rule="the only encoder",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(
                TRAINING_STATE,
                Drop("mask token", r"mask_token"),
                Drop("pretraining head", r"lm_head\.(weight|bias)"),
                Drop("rotary tables", r"(blocks\.\d+\.attn\.)?rope\.freqs_(cos|sin)"),
            ),
            rename=(
                (r"^norm\.", "fc_norm."),
                (r"\.mlp\.w12\.", ".mlp.fc1."),
                (r"\.mlp\.w1\.", ".mlp.fc1_g."),
                (r"\.mlp\.w2\.", ".mlp.fc1_x."),
                (r"\.mlp\.w3\.", ".mlp.fc2."),
                (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
            ),
            make=(_BIASES,),
        ),
        classifier=r"head\.(weight|bias)",
    )
)
