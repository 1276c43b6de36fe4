r"""ResNet by the names of transformers, bare (ResNetModel) or below "resnet." with a classifier.

    embedder.embedder.{convolution,normalization}           conv1, bn1
    encoder.stages.S.layers.L.shortcut.{convolution,…}      downsample of layer S + 1, block L
    encoder.stages.S.layers.L.layer.I.{convolution,…}       conv I + 1, bn I + 1 of that block
    classifier.1                                            last layer

https://github.com/huggingface/transformers/blob/v4.50.0/src/transformers/models/resnet/modeling_resnet.py.
Where a bottleneck halves the picture stands in `config.json` alone and changes no size: what comes
out is right where `downsample_in_bottleneck` and `downsample_in_first_stage` are false, as they are
unless it says otherwise.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import TRAINING_STATE, KeyMap, Layout, Shapes, layouts, strip

_WRAPPERS = ("state_dict.", "model.", "module.", "resnet.")
_MARKS = {
    "embedder.embedder.convolution.weight",
    "encoder.stages.0.layers.0.layer.0.convolution.weight",
}
_RENAME = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    # Both count from 0 there and from 1 here.
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    *((rf"^encoder\.stages\.{s}\.layers\.", f"layer{s + 1}.") for s in range(4)),
    (r"^classifier\.1\.", "fc."),
)


def _recognises(shapes: Shapes) -> bool:
    return {strip(n, _WRAPPERS) for n in shapes} >= _MARKS


layouts.register("hf_resnet")(
    Layout(
        name="hf_resnet",
        title="transformers ResNet",
        source="https://github.com/huggingface/transformers/tree/v4.50.0/src/transformers/models/resnet",
        proof="transformers",
        rule="the only encoder",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(wrappers=_WRAPPERS, drop=(TRAINING_STATE,), rename=_RENAME),
        classifier=r"fc\.(weight|bias)",
    )
)
