r"""ViT as transformers saves it: ViTModel, ViTForImageClassification, ViTMAEForPreTraining.

    embeddings.{cls_token,position_embeddings,mask_token}, embeddings.patch_embeddings.projection
    encoder.layer.N.{layernorm_before,layernorm_after,intermediate.dense,output.dense}
    encoder.layer.N.attention.attention.{query,key,value}, attention.output.dense   in files
    layers.N.{mlp.fc1,mlp.fc2}, layers.N.attention.{q,k,v,o}_proj     in the state of a model of 5
    layernorm
    vit.*, classifier.*                with a classification head, which can be kept
    vit.*, decoder.*                   masked autoencoder
    pooler.dense                       a layer behind the class token, not part of the encoder

transformers divides by a standard deviation with 1e-12 added to the variance, timm with 1e-6.
https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/vit/modeling_vit.py
"""

from __future__ import annotations

from cxr_foundation.convert.dinov2_hf import ATTENTION, EMBEDDINGS
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

_WRAPPERS = ("state_dict.", "model.", "module.", "vit.")
_MARKS = {
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
}
_NORM = {"encoder.layer.0.layernorm_before.weight", "layers.0.layernorm_before.weight"}


def _recognises(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    return bare >= _MARKS and bool(bare & _NORM)


layouts.register("hf_vit")(
    Layout(
        name="hf_vit",
        title="ViT of transformers",
        source=(
            "https://github.com/huggingface/transformers/blob/v4.52.0/src/transformers/models/"
            "vit/modeling_vit.py"
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
                Drop("pooler", r"pooler\.dense\.(weight|bias)"),
                Drop("MAE decoder", r"decoder\..+"),
            ),
            rename=(
                *EMBEDDINGS,
                *ATTENTION,
                (r"\.layernorm_before\.", ".norm1."),
                (r"\.layernorm_after\.", ".norm2."),
                (r"\.intermediate\.dense\.", ".mlp.fc1."),
                (r"\.output\.dense\.", ".mlp.fc2."),
                (r"^classifier\.", "head."),
            ),
            make=(FUSED_QKV,),
        ),
        classifier=r"head\.(weight|bias)",
    )
)
