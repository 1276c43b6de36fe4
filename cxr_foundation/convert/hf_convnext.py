r"""ConvNeXt as transformers saves it: ConvNextModel and its classifier.

    embeddings.patch_embeddings, embeddings.layernorm
    encoder.stages.N.downsampling_layer.{0, 1}
    encoder.stages.N.layers.M.{dwconv, layernorm, pwconv1, pwconv2, layer_scale_parameter}
    layernorm

all below `convnext.` if there is a classifier.
https://github.com/huggingface/transformers/tree/main/src/transformers/models/convnext. Its last
normalisation adds `layer_norm_eps` of config.json (by default 1e-12) to the variance, where timm
adds 1e-6.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import TRAINING_STATE, KeyMap, Layout, Shapes, layouts, strip

_WRAPPERS = ("state_dict.", "model.", "module.", "convnext.")
# ConvNeXt v2 has the same names but no layer scale.
_MARKS = {
    "embeddings.patch_embeddings.weight",
    "encoder.stages.0.layers.0.dwconv.weight",
    "encoder.stages.0.layers.0.layer_scale_parameter",
}


def _recognises(shapes: Shapes) -> bool:
    return {strip(n, _WRAPPERS) for n in shapes} >= _MARKS


layouts.register("hf_convnext")(
    Layout(
        name="hf_convnext",
        title="ConvNeXt of transformers",
        source="https://github.com/huggingface/transformers/blob/main/src/transformers/models/"
        "convnext/modeling_convnext.py",
        proof="transformers",
        rule="the only encoder in the file",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(TRAINING_STATE,),
            rename=(
                (r"^embeddings\.patch_embeddings\.", "stem.0."),
                (r"^embeddings\.layernorm\.", "stem.1."),
                (r"^layernorm\.", "head.norm."),
                (r"^classifier\.", "head.fc."),
                (r"^encoder\.", ""),
                (r"\.downsampling_layer\.", ".downsample."),
                (r"^(stages\.\d+)\.layers\.", r"\1.blocks."),
                (r"\.dwconv\.", ".conv_dw."),
                (r"\.layernorm\.", ".norm."),
                (r"\.pwconv([12])\.", r".mlp.fc\1."),
                (r"\.layer_scale_parameter$", ".gamma"),
            ),
        ),
        classifier=r"head\.fc\.(weight|bias)",
    )
)
