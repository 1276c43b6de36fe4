r"""Plain classifiers and encoders: timm's own names, and torchvision's.

"timm" is every network of timm under its own names. "torchvision" is ResNet and DenseNet, whose
names the two share, with the dialects that are about:

    denselayer1.norm.1              DenseNet of torchvision before 0.3, `_load_state_dict` in
                                    https://github.com/pytorch/vision/blob/v0.20.0/torchvision/models/densenet.py
    module.densenet121.*,           CheXNet, https://github.com/arnoweng/CheXNet
    classifier.0
    op_threshs                      torchxrayvision, https://github.com/mlmed/torchxrayvision; its
                                    DenseNets are whole pickled modules, its ResNets flat
    model_state.module.model.*,     MoCo-CXR after fine-tuning; its ResNets are those of
    last_linear, module.fc          pretrainedmodels, https://github.com/stanfordmlgroup/MoCo-CXR

The dialects are unproven on the authors' files. Neither layout claims a file that has the marks of
a family's pretraining beside the network: it is that family's, or nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cxr_foundation.convert.keymap import (
    ONLY,
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Make,
    Shapes,
    layouts,
    strip,
)
from cxr_foundation.convert.swin import (
    COMPUTED_TABLES,
    MERGING_AT_THE_BEGINNING,
    network_with_image_size,
)

__all__ = ["DENSENET_LEGACY", "RESNET_CHILDREN"]

DENSENET_LEGACY = (r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)", r"\1\2")
# `nn.Sequential(*resnet.children())`: 2 and 3 are the activation and the pooling.
RESNET_CHILDREN = (
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{n + 3}\.", f"layer{n}.") for n in (1, 2, 3, 4)),
)
# What only pretraining puts beside an encoder: heads, copies, decoders.
_PRETRAINING = re.compile(
    r"(backbone\.)?(projector|projection_head|prototypes|predictor|prediction_head|omni_heads|"
    r"head_recons|dino_head|ibot_head|momentum_\w+|online_(encoder|network|predictor)|"
    r"head\.(mlp|last_layer)|decoder_\w+|segmentation_head)(\..+)?"
)
# Names that networks of the same blocks have of their own: DINOv2's tokens, EVA-02's SwiGLU, the
# attention between a DenseNet and JF Healthcare's classifiers.
_FOREIGN = re.compile(
    r"(backbone\.)?(mask_token|register_tokens|blocks\.\d+\.mlp\.w(12|[123])\..+)|"
    r"attention_map\..+"
)
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
_RULE = "the only set of weights in the file; takes= says which if there are several"


def _encoders(names: Collection[str]) -> tuple[str, ...]:
    first = {n.partition(".")[0] for n in names}
    return tuple(s for s in _SETS if s in first) or (ONLY,)


def _bare(shapes: Shapes) -> set[str]:
    """Names as they would be whichever set is taken."""
    wrappers = (*_WRAPPERS, "densenet121.", *(f"{s}." for s in _SETS))
    return {strip(n, wrappers) for n in shapes}


def _is_plain(shapes: Shapes) -> bool:
    """Whether no mark of pretraining, and of no other layout, stands beside the network."""
    bare = {strip(n, ("module.", *(f"{s}." for s in _SETS))) for n in shapes}
    # SimCLR's head takes the place of the network's last layer.
    heads = ({f"backbone.{h}.{n}.weight" for n in (0, 2)} for h in ("fc", "classifier"))
    marks = (_PRETRAINING.fullmatch, _FOREIGN.fullmatch)
    return not any(h <= bare for h in heads) and not any(m(n) for m in marks for n in bare)


def _others(takes: str) -> Drop:
    """The sets that were not taken."""
    others = "|".join(s for s in _SETS if s != takes)
    return Drop("another set of weights", rf"({others})\..+")


def _keymap(
    takes: str, *extra: str, drop: tuple[Drop, ...] = (), make: tuple[Make, ...] = ()
) -> KeyMap:
    # Only a set that was taken by name makes the others droppable.
    chosen = () if takes == ONLY else (_others(takes),)
    return KeyMap(
        wrappers=(f"{takes}.", *_WRAPPERS, *extra),
        drop=(TRAINING_STATE, *drop, *chosen),
        rename=(DENSENET_LEGACY, (r"^classifier\.0\.(weight|bias)$", r"classifier.\1")),
        make=make,
    )


def _is_torchvision(shapes: Shapes) -> bool:
    bare = _bare(shapes)
    resnet = {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"}
    densenet = {"features.conv0.weight", "features.norm5.weight"}
    return (resnet <= bare or densenet <= bare) and _is_plain(shapes)


def _is_timm(shapes: Shapes) -> bool:
    bare = _bare(shapes)
    fingerprints = (
        {"patch_embed.proj.weight", "blocks.0.norm1.weight"},
        {"patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"},
        {"stem.0.weight", "stages.0.blocks.0.conv_dw.weight"},
    )
    return any(f <= bare for f in fingerprints) and _is_plain(shapes)


layouts.register("timm")(
    Layout(
        name="timm",
        title="timm",
        source="https://github.com/huggingface/pytorch-image-models/tree/v1.0.20/timm/models",
        proof="timm",
        rule=_RULE,
        takes=None,
        encoders=_encoders,
        recognises=_is_timm,
        keymap=lambda takes: _keymap(
            takes, drop=(COMPUTED_TABLES,), make=(MERGING_AT_THE_BEGINNING,)
        ),
        classifier=r"(head|fc|classifier|head\.fc|head_dist)\.(weight|bias)",
        network=network_with_image_size,
    )
)
layouts.register("torchvision")(
    Layout(
        name="torchvision",
        title="torchvision ResNet and DenseNet (CheXNet, torchxrayvision)",
        source="https://github.com/pytorch/vision/tree/v0.20.0/torchvision/models",
        proof="torchvision",
        rule=_RULE,
        takes=None,
        encoders=_encoders,
        recognises=_is_torchvision,
        keymap=lambda takes: _keymap(
            takes,
            "densenet121.",
            drop=(
                Drop("operating thresholds", "op_threshs"),
                Drop("unused last layer", r"last_linear\.(weight|bias)"),
            ),
        ),
        # A head of several layers is numbered; it can be dropped, but not kept.
        classifier=r"(fc|classifier)(\.\d+)*\.(weight|bias|running_mean|running_var|num_batches_tracked)",
    )
)
