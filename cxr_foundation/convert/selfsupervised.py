r"""Self-supervised pretraining of any encoder: each family puts it below a prefix of its own.

    simclr        {epoch, arch, state_dict, optimizer}: backbone.*, with the head as its fc.0, fc.2
    byol          online_encoder.net.*, target_encoder.net.*, and the first once more as net.*
    byol_bolts    {state_dict, …}: online_network.encoder.*, target_network.encoder.*
    swav          {state_dict, …} or flat: conv1 … layer4, projection_head.*, prototypes.*
    barlow_twins  {model, …}: backbone.*, projector.*, bn.*
    vicreg        {model, …}: backbone.*, projector.*
    vissl         classy_state_dict.base_model.model: trunk._feature_blocks.*, heads.*
    lightly       backbone.*, projection_head.layers.*; the children of a ResNet may be numbered
    solo_learn    {state_dict, …}: backbone.* (in 1.0.2 encoder.*), projector.*, classifier.*

What SwAV, Barlow Twins and VICReg publish beside their training files is the encoder alone, by
torchvision's names: that is the layout "torchvision". Each row says where its names are from. All
are unproven on authors' files.
"""

from __future__ import annotations

from collections.abc import Collection

from cxr_foundation.convert.keymap import (
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Shapes,
    by_prefix,
    layouts,
    strip,
)
from cxr_foundation.convert.timm_native import DENSENET_LEGACY, RESNET_CHILDREN

_WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "module.")
# What is trained on the encoder's features in passing, to watch the training.
_WATCHED = Drop("online classifier", r"(online_|momentum_)?classifier\..+")
_STEM = r"(conv1|features\.conv0|patch_embed\.proj)\.weight"
_HEAD = "pretraining head"

layouts.register("simclr")(
    by_prefix(
        name="simclr",
        title="SimCLR (sthalles)",
        source="https://github.com/sthalles/SimCLR/blob/master/models/resnet_simclr.py",
        proof=None,
        rule="the only encoder; its fc is the head of pretraining",
        encoders={"backbone": "backbone."},
        # Without a second layer the head could as well be a classifier.
        marks=(
            rf"backbone\.{_STEM}",
            r"backbone\.(fc|classifier)\.0\.weight",
            r"backbone\.(fc|classifier)\.2\.weight",
        ),
        never=(r"projector\..+", r"projection_head\..+", r"momentum_.+"),
        heads=r"(fc|classifier)\.[02]\.(weight|bias)",
        rename=(DENSENET_LEGACY,),
    )
)
layouts.register("byol")(
    by_prefix(
        name="byol",
        title="BYOL (lucidrains)",
        source="https://github.com/lucidrains/byol-pytorch/blob/master/byol_pytorch/byol_pytorch.py",
        proof="byol-pytorch",
        rule="the online encoder, which the gradient trains",
        encoders={"online": "online_encoder.net.", "target": "target_encoder.net."},
        marks=(r"online_encoder\.net\..+",),
        drop=(
            Drop(_HEAD, r"(online|target)_encoder\.projector\..+|online_predictor\..+"),
            # BYOL keeps the network that it was given, which its online encoder trains.
            Drop("the online encoder again", r"net\..+"),
        ),
        rename=(DENSENET_LEGACY,),
    )
)
layouts.register("byol_bolts")(
    by_prefix(
        name="byol_bolts",
        title="BYOL (Lightning Bolts)",
        source="https://github.com/Lightning-Universe/lightning-bolts/blob/0.7.0/src/pl_bolts/models/"
        "self_supervised/byol/models.py",
        proof=None,
        rule="the online encoder, which the gradient trains",
        encoders={"online": "online_network.encoder.", "target": "target_network.encoder."},
        marks=(r"online_network\.encoder\..+",),
        drop=(
            Drop(_HEAD, r"(online|target)_network\.(projector|predictor)\..+|predictor\..+"),
            _WATCHED,
        ),
    )
)
layouts.register("swav")(
    by_prefix(
        name="swav",
        title="SwAV",
        source="https://github.com/facebookresearch/swav/blob/main/src/resnet50.py",
        proof=None,
        rule="the only encoder",
        encoders={"encoder": ""},
        marks=(r"layer1\.0\.conv1\.weight", r"(projection_head|prototypes)\..+"),
        drop=(
            Drop(_HEAD, r"projection_head\..+"),
            Drop("prototypes", r"prototypes\..+"),
        ),
    )
)
layouts.register("barlow_twins")(
    by_prefix(
        name="barlow_twins",
        title="Barlow Twins",
        source="https://github.com/facebookresearch/barlowtwins/blob/main/main.py",
        proof=None,
        rule="the only encoder",
        encoders={"backbone": "backbone."},
        marks=(rf"backbone\.{_STEM}", r"projector\.0\.weight", r"bn\.running_mean"),
        never=(r"classifier\..+",),
        drop=(Drop(_HEAD, r"(projector|bn)\..+"),),
    )
)
layouts.register("vicreg")(
    by_prefix(
        name="vicreg",
        title="VICReg",
        source="https://github.com/facebookresearch/vicreg/blob/main/main_vicreg.py",
        proof=None,
        rule="the only encoder",
        encoders={"backbone": "backbone."},
        marks=(rf"backbone\.{_STEM}", r"projector\.0\.weight"),
        # Each is a mark of a relative: Barlow Twins, solo-learn, and families that are not known.
        never=(r"bn\..+", r"classifier\..+", r"momentum_.+", r"predictor\..+"),
        drop=(Drop(_HEAD, r"projector\..+"),),
    )
)
layouts.register("vissl")(
    by_prefix(
        name="vissl",
        title="VISSL",
        source="https://github.com/facebookresearch/vissl/blob/v0.1.6/vissl/models/trunks/resnext.py",
        proof=None,
        rule="the trunk",
        encoders={"trunk": "_feature_blocks."},
        marks=(r"_feature_blocks\.conv1\.weight",),
        drop=(Drop(_HEAD, r"heads\..+"),),
        wrappers=("classy_state_dict.", "base_model.", "trunk.", *_WRAPPERS),
    )
)
layouts.register("lightly")(
    by_prefix(
        name="lightly",
        title="lightly",
        source="https://github.com/lightly-ai/lightly/tree/v1.5.0/examples/pytorch_lightning",
        proof="lightly",
        rule="the encoder that the gradient trains (backbone), not its momentum copy",
        encoders={"backbone": "backbone.", "backbone_momentum": "backbone_momentum."},
        marks=(
            rf"backbone\.({_STEM}|4\.0\.conv1\.weight)",
            r"projection_head\.layers\.\d+\.weight",
        ),
        drop=(
            Drop(_HEAD, r"(projection|prediction)_head(_momentum)?\..+"),
            Drop("prototypes", r"prototypes\..+"),
            Drop("queue", r"(queues|criterion|memory_bank)\..+"),
            _WATCHED,
        ),
        rename=(*RESNET_CHILDREN, DENSENET_LEGACY),
    )
)

_SOLO = {
    "backbone": ("backbone.", "encoder."),
    "momentum_backbone": ("momentum_backbone.", "momentum_encoder."),
}


def _solo_encoders(names: Collection[str]) -> tuple[str, ...]:
    bare = [strip(n, _WRAPPERS) for n in names]
    return tuple(e for e, prefixes in _SOLO.items() if any(n.startswith(prefixes) for n in bare))


def _is_solo(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    stems = ("conv1", "patch_embed.proj", "stem.0")
    encoder = any(f"{p}{s}.weight" in bare for p in _SOLO["backbone"] for s in stems)
    # The classifier on top tells it from VICReg and Barlow Twins, which have none.
    return encoder and "classifier.weight" in bare and any(n.startswith("projector.") for n in bare)


def _solo_keymap(takes: str) -> KeyMap:
    (other,) = set(_SOLO) - {takes}
    return KeyMap(
        # Either name of the encoder is stripped; nothing else of a file begins with it.
        wrappers=(*_WRAPPERS, *_SOLO[takes]),
        drop=(
            TRAINING_STATE,
            Drop(f"{other} encoder", r"|".join(rf"{p[:-1]}\..+" for p in _SOLO[other])),
            Drop(_HEAD, r"(momentum_)?(projector|predictor)\..+"),
            Drop("prototypes", r"prototypes\..+"),
            Drop("queue", r"queue(_\w+)?"),
            _WATCHED,
        ),
    )


layouts.register("solo_learn")(
    Layout(
        name="solo_learn",
        title="solo-learn",
        source="https://github.com/vturrisi/solo-learn/blob/main/solo/methods/base.py",
        proof=None,
        rule="the encoder that the gradient trains (backbone), not its momentum copy",
        takes="backbone",
        encoders=_solo_encoders,
        recognises=_is_solo,
        keymap=_solo_keymap,
    )
)
