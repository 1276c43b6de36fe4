r"""Masked autoencoders: MAE and Medical-MAE before fine-tuning.

    {model, optimizer, epoch, scaler, args}
    cls_token, pos_embed, patch_embed.proj, blocks.N.*, norm    the encoder, by timm's names
    mask_token, decoder_embed, decoder_pos_embed,
    decoder_blocks.N.*, decoder_norm, decoder_pred              the decoder

After fine-tuning the names are timm's alone, with fc_norm where it pools: the layout "timm".
MAE: https://github.com/facebookresearch/mae/blob/main/models_mae.py. Medical-MAE:
https://github.com/lambert-x/medical_mae/blob/main/models_mae.py. Written from these sources;
unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import (
    TRAINING_STATE,
    Drop,
    KeyMap,
    Layout,
    Shapes,
    layouts,
    strip,
)

_WRAPPERS = ("model.", "module.")
_DECODER = {"decoder_embed.weight", "decoder_pred.weight", "mask_token"}


def _recognises(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    return bare >= _DECODER | {"patch_embed.proj.weight", "blocks.0.norm1.weight"}


layouts.register("mae")(
    Layout(
        name="mae",
        title="MAE (Medical-MAE)",
        source="https://github.com/facebookresearch/mae/blob/main/models_mae.py",
        proof=None,
        rule="the encoder; the decoder has served its purpose",
        takes="encoder",
        encoders=lambda names: ("encoder",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(TRAINING_STATE, Drop("MAE decoder", r"decoder_.+|mask_token")),
        ),
    )
)
