r"""Ark and Ark+: a student and a teacher with one head for each data set.

    {epoch, lossMIN, state_dict, teacher, optimizer, scheduler}    while training; with several
                               GPUs each name of the two sets begins with module.
    a flat dictionary          what the authors give away: the teacher

    patch_embed, layers.N.*, norm      the encoder: a Swin Transformer by the names of timm 0.5.4
    layers.N.blocks.M.attn_mask        its size tells the image's: 768 pixels in Ark+
    head                               classes of ImageNet, never trained
    projector.* or projector.0, .2     from features to 1,376 numbers
    omni_heads.N                       one for each data set

The encoder's features are those before the projector (`generate_embeddings(after_proj=False)`);
the authors' own default is after it. Definition of the network:
https://github.com/jlianglab/Ark/blob/0207467791aff44ea42ae2040eb063c6ebc644d5/Ark_Plus/Pretraining/models.py,
of the file: `engine.py` beside it. Written from these sources; unproven on the authors' files.
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
from cxr_foundation.convert.swin import (
    COMPUTED_TABLES,
    MERGING_AT_THE_BEGINNING,
    network_with_image_size,
)

_SETS = {"teacher": "teacher.", "student": "state_dict."}


def _encoders(names: Collection[str]) -> tuple[str, ...]:
    held = tuple(e for e, p in _SETS.items() if any(n.startswith(p) for n in names))
    # A flat file is the teacher: the authors give away nothing else.
    return held or ("teacher",)


def _recognises(shapes: Shapes) -> bool:
    bare = {strip(n, (*_SETS.values(), "module.")) for n in shapes}
    swin = {"patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"}
    return swin <= bare and any(n.startswith(("omni_heads.", "projector.")) for n in bare)


def _keymap(takes: str) -> KeyMap:
    other = "student" if takes == "teacher" else "teacher"
    return KeyMap(
        wrappers=(_SETS[takes], "module."),
        drop=(
            Drop(other, rf"{_SETS[other]}.+"),
            TRAINING_STATE,
            Drop("projector", r"projector\.(\d\.)?(weight|bias)"),
            Drop("task heads", r"omni_heads\.\d+\.(weight|bias)"),
            Drop("ImageNet head", r"(head|head_dist)\.(weight|bias)"),
            COMPUTED_TABLES,
        ),
        make=(MERGING_AT_THE_BEGINNING,),
    )


layouts.register("ark")(
    Layout(
        name="ark",
        title="Ark and Ark+",
        source="https://github.com/jlianglab/Ark/blob/0207467791aff44ea42ae2040eb063c6ebc644d5/"
        "Ark_Plus/Pretraining/models.py",
        proof=None,
        rule="the teacher, which the authors give away and evaluate",
        takes="teacher",
        encoders=_encoders,
        recognises=_recognises,
        keymap=_keymap,
        network=network_with_image_size,
    )
)
