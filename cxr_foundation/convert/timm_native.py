r"""Plain classifiers and encoders: timm's own names, and torchvision's.

"timm" is every network of timm under its own names. "torchvision" is ResNet and DenseNet, whose
names the two share, with the dialects that are about: DenseNet files of torchvision before 0.3
(`denselayer1.norm.1`, https://github.com/pytorch/vision/blob/v0.20.0/torchvision/models/densenet.py,
`_load_state_dict`), CheXNet's `densenet121.` and `classifier.0`
(https://github.com/arnoweng/CheXNet), torchxrayvision's `op_threshs`
(https://github.com/mlmed/torchxrayvision). The dialects are unproven on the authors' files.
"""

from __future__ import annotations

from collections.abc import Collection

from cxr_foundation.convert.keymap import (
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Shapes,
    layouts,
    strip,
)

__all__ = ["DENSENET_LEGACY"]

DENSENET_LEGACY = (r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)", r"\1\2")
# Top-level names under which training scripts keep whole sets of weights. Two of them in one
# file are different networks, or the same one at different times: the caller has to say which.
_SETS = (
    "state_dict",
    "model",
    "model_state",
    "model_state_dict",
    "net",
    "network",
    "model_ema",
    "state_dict_ema",
    "ema",
    "student",
    "teacher",
    "target",
    "online",
)
_WRAPPERS = ("module.", "model.", "backbone.")
_ONLY = "weights"
_RULE = "the only set of weights in the file; takes= says which if there are several"


def _encoders(names: Collection[str]) -> tuple[str, ...]:
    first = {n.partition(".")[0] for n in names}
    return tuple(s for s in _SETS if s in first) or (_ONLY,)


def _bare(shapes: Shapes) -> set[str]:
    """Names as they would be whichever set is taken."""
    wrappers = (*_WRAPPERS, "densenet121.", *(f"{s}." for s in _SETS))
    return {strip(n, wrappers) for n in shapes}


def _others(takes: str) -> Drop:
    """The sets that were not taken."""
    others = "|".join(s for s in _SETS if s != takes)
    return Drop("another set of weights", rf"({others})\..+")


def _keymap(takes: str, *extra: str, drop: tuple[Drop, ...] = ()) -> KeyMap:
    # Only a set that was taken by name makes the others droppable.
    chosen = () if takes == _ONLY else (_others(takes),)
    return KeyMap(
        wrappers=(f"{takes}.", *_WRAPPERS, *extra),
        drop=(TRAINING_STATE, *drop, *chosen),
        rename=(DENSENET_LEGACY, (r"^classifier\.0\.(weight|bias)$", r"classifier.\1")),
    )


def _is_torchvision(shapes: Shapes) -> bool:
    bare = _bare(shapes)
    resnet = {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"}
    densenet = {"features.conv0.weight", "features.norm5.weight"}
    return resnet <= bare or densenet <= bare


def _is_timm(shapes: Shapes) -> bool:
    bare = _bare(shapes)
    fingerprints = (
        {"patch_embed.proj.weight", "blocks.0.norm1.weight"},
        {"patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"},
        {"stem.0.weight", "stages.0.blocks.0.conv_dw.weight"},
    )
    return "decoder_embed.weight" not in bare and any(f <= bare for f in fingerprints)


# Swin files of older timm carry tables that are computed from the window size.
_COMPUTED = Drop("computed tables", r".+\.(relative_position_index|attn_mask)")

layouts.register("timm")(
    Layout(
        name="timm",
        title="timm",
        source="https://github.com/huggingface/pytorch-image-models/tree/v1.0.20/timm/models",
        rule=_RULE,
        takes=None,
        encoders=_encoders,
        recognises=_is_timm,
        keymap=lambda takes: _keymap(takes, drop=(_COMPUTED,)),
        classifier=r"(head|fc|classifier|head\.fc|head_dist)\.(weight|bias)",
    )
)
layouts.register("torchvision")(
    Layout(
        name="torchvision",
        title="torchvision ResNet and DenseNet (CheXNet, torchxrayvision)",
        source="https://github.com/pytorch/vision/tree/v0.20.0/torchvision/models",
        rule=_RULE,
        takes=None,
        encoders=_encoders,
        recognises=_is_torchvision,
        keymap=lambda takes: _keymap(
            takes, "densenet121.", drop=(Drop("operating thresholds", "op_threshs"),)
        ),
        classifier=r"(fc|classifier)\.(weight|bias)",
    )
)
