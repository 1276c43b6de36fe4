r"""SiT and its relatives by group masking: SiT, SPCXR (SS-CXR), GMML.

    {student, teacher, optimizer, epoch, args, fp16_scaler}     SiT, SPCXR
    {SiT_model, optimizer, epoch, args, fp16_scaler}            GMML
    module.backbone.*       the encoder, a ViT by timm's names
    module.head.mlp.N       contrastive head (GMML has none)
    module.head_recons.*    reconstruction head: mlp.0/2/4 and convTrans

SiT: https://github.com/Sara-Ahmed/SiT/blob/main/vision_transformer.py. GMML:
https://github.com/Sara-Ahmed/GMML/blob/main/main.py. SPCXR trains with SiT's programme. Written
from descriptions of these files; unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert import student_teacher
from cxr_foundation.convert.keymap import Drop, Layout, Shapes, layouts

_WRAPPERS = ("SiT_model.", "state_dict.", "model.", "module.")
_RECONSTRUCTION = "head_recons.convTrans.weight"


def _recognises(shapes: Shapes) -> bool:
    bare = student_teacher.bare(shapes, _WRAPPERS)
    return {"backbone.patch_embed.proj.weight", _RECONSTRUCTION} <= bare


layouts.register("sit")(
    Layout(
        name="sit",
        title="SiT, SPCXR and GMML",
        source="https://github.com/Sara-Ahmed/SiT/blob/main/vision_transformer.py",
        proof=None,
        rule=student_teacher.RULE,
        takes="teacher",
        encoders=lambda names: student_teacher.encoders(names, _WRAPPERS),
        recognises=_recognises,
        keymap=lambda takes: student_teacher.keymap(
            takes,
            wrappers=_WRAPPERS,
            drop=(
                Drop("reconstruction head", r"head_recons\..+"),
                Drop("contrastive head", r"head\.mlp\..+"),
            ),
            select="backbone.",
        ),
    )
)
