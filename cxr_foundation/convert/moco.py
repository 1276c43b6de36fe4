r"""MoCo v1 and v2, so also CheSS and MoCo-CXR.

    {epoch, arch, state_dict, optimizer}
    module.encoder_q.*        the encoder; ResNet (conv1 … layer4) or DenseNet (features.*)
    module.encoder_q.fc.*     head of v1, or of v2: fc.0 and fc.2 (DenseNet: classifier.*)
    module.encoder_k.*        momentum copy
    module.queue, queue_ptr   negatives; val_queue, val_queue_ptr too by Lightning Bolts

Lightning files have state_dict.model. instead of state_dict.module. (FAIR's CovidPrognosis:
DenseNet-121 with a head of one layer or two).
CheSS is a ResNet-50 whose conv1 has one channel: https://github.com/mi2rl/CheSS. MoCo:
https://github.com/facebookresearch/moco/blob/main/moco/builder.py. MoCo-CXR:
https://github.com/stanfordmlgroup/MoCo-CXR; what it saves after fine-tuning is layout
"torchvision". CovidPrognosis: https://github.com/facebookresearch/CovidPrognosis. Written from
these sources; unproven on the authors' files.
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
from cxr_foundation.convert.timm_native import DENSENET_LEGACY

_WRAPPERS = ("state_dict.", "module.", "model.")
_ENCODERS = {"encoder_q": "encoder_k", "encoder_k": "encoder_q"}


def _encoders(names: Collection[str]) -> tuple[str, ...]:
    first = {strip(n, _WRAPPERS).partition(".")[0] for n in names}
    return tuple(e for e in _ENCODERS if e in first)


def _recognises(shapes: Shapes) -> bool:
    return "encoder_q" in _encoders(shapes)


def _keymap(takes: str) -> KeyMap:
    other = "momentum encoder" if takes == "encoder_q" else "query encoder"
    return KeyMap(
        wrappers=_WRAPPERS,
        drop=(
            TRAINING_STATE,
            Drop(other, rf"{_ENCODERS[takes]}\..+"),
            Drop("queue", r"(val_)?queue(_ptr)?"),
            Drop("pretraining head", rf"{takes}\.(fc|classifier)(\.[02])?\.(weight|bias)"),
        ),
        select=f"{takes}.",
        rename=(DENSENET_LEGACY,),
    )


layouts.register("moco")(
    Layout(
        name="moco",
        title="MoCo v1 and v2 (CheSS, MoCo-CXR, CovidPrognosis)",
        source="https://github.com/facebookresearch/moco/blob/main/moco/builder.py",
        proof="torchvision",
        rule="the query encoder (encoder_q), which the gradient trains",
        takes="encoder_q",
        encoders=_encoders,
        recognises=_recognises,
        keymap=_keymap,
    )
)
