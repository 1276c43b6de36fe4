r"""DINO (version 1), as it is while it trains.

    {student, teacher, optimizer, epoch, args, dino_loss, fp16_scaler}
    student: module.backbone.*, module.head.*                   DistributedDataParallel
    teacher: backbone.*, head.* of a ViT; module.… of networks with batch norm
    head.mlp.0/2/4, head.last_layer.weight_g, weight_v          projection head

The encoder is a ViT by timm's names or a ResNet by torchvision's. What the authors released as
"backbone only" has those names alone and is the layout "timm" or "torchvision".
https://github.com/facebookresearch/dino/blob/main/main_dino.py. Written from this source;
unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert import student_teacher
from cxr_foundation.convert.keymap import Drop, Layout, Shapes, layouts

_WRAPPERS = ("state_dict.", "model.", "module.")
_STEMS = {"backbone.patch_embed.proj.weight", "backbone.conv1.weight"}


def _recognises(shapes: Shapes) -> bool:
    bare = student_teacher.bare(shapes, _WRAPPERS)
    return any(n.startswith("head.last_layer.") for n in bare) and bool(_STEMS & bare)


layouts.register("dino")(
    Layout(
        name="dino",
        title="DINO",
        source="https://github.com/facebookresearch/dino/blob/main/main_dino.py",
        proof=None,
        rule=student_teacher.RULE,
        takes="teacher",
        encoders=lambda names: student_teacher.encoders(names, _WRAPPERS),
        recognises=_recognises,
        keymap=lambda takes: student_teacher.keymap(
            takes,
            wrappers=_WRAPPERS,
            drop=(
                Drop("projection head", r"head\.(mlp|last_layer)\..+"),
                Drop("centre of the teacher's outputs", r"dino_loss\.center"),
            ),
            select="backbone.",
        ),
    )
)
