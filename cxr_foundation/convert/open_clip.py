r"""Image–text models of open_clip whose image tower is a network of timm: BiomedCLIP.

    flat, or {epoch, name, state_dict, optimizer} with module.*
    visual.trunk.*               the encoder, by timm's names
    visual.head.*                projection to the common space (visual.trunk.head of some)
    text.*                       text tower; of older models transformer.*, token_embedding, …
    logit_scale, logit_bias

How the trunk pools is not in the file: as timm's network of that name does, as in BiomedCLIP.
https://github.com/mlfoundations/open_clip/blob/v2.32.0/src/open_clip/timm_model.py
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

__all__ = ["TEXT", "WRAPPERS"]

WRAPPERS = ("state_dict.", "model.", "module.")
TEXT = (
    Drop(
        "text tower",
        r"(text|transformer|token_embedding|ln_final|text_projection)\..+|"
        r"positional_embedding|text_projection|attn_mask",
    ),
    Drop("temperature", r"logit_scale|logit_bias"),
)


def _recognises(shapes: Shapes) -> bool:
    return any(strip(n, WRAPPERS).startswith("visual.trunk.") for n in shapes)


layouts.register("open_clip")(
    Layout(
        name="open_clip",
        title="open_clip with a trunk of timm (BiomedCLIP)",
        source=(
            "https://github.com/mlfoundations/open_clip/blob/v2.32.0/src/open_clip/timm_model.py"
        ),
        proof="open_clip_torch",
        rule="the image tower",
        takes="visual",
        encoders=lambda names: ("visual",),
        recognises=_recognises,
        keymap=lambda takes: KeyMap(
            wrappers=WRAPPERS,
            drop=(
                TRAINING_STATE,
                *TEXT,
                Drop("image projection", r"visual\.(head\..+|trunk\.head\.(weight|bias))"),
            ),
            select="visual.trunk.",
        ),
    )
)
