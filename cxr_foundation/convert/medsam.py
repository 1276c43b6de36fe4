r"""MedSAM, and the Segment Anything Model that it is fine-tuned from.

    image_encoder.*     the encoder: pos_embed, patch_embed.proj, blocks.N.*, neck.N
    prompt_encoder.*    points, boxes and masks that a user gives
    mask_decoder.*      what draws the mask

Flat as released; {model, optimizer, epoch, loss, best_loss} while training, with several GPUs
below `model.module.`. timm's `samvit_*` are the image encoder with its neck: their features are
the mean of its output (B, 256, 64, 64) over the picture. Features for segmentation are that
output itself: `forward_features`. https://github.com/facebookresearch/segment-anything/blob/main/segment_anything/modeling/image_encoder.py
and https://github.com/bowang-lab/MedSAM. LiteMedSAM's encoder, a TinyViT, is not one of them.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import Drop, by_prefix, layouts

layouts.register("medsam")(
    by_prefix(
        name="medsam",
        title="MedSAM and Segment Anything",
        source="https://github.com/facebookresearch/segment-anything/blob/main/segment_anything/"
        "modeling/image_encoder.py",
        proof="segment-anything",
        rule="the image encoder with its neck",
        encoders={"image_encoder": "image_encoder."},
        marks=(
            r"image_encoder\.patch_embed\.proj\.weight",
            r"image_encoder\.blocks\.0\.attn\.rel_pos_h",
        ),
        drop=(
            Drop("prompt encoder", r"prompt_encoder\..+"),
            Drop("mask decoder", r"mask_decoder\..+"),
        ),
        rename=((r"\.mlp\.lin([12])\.", r".mlp.fc\1."),),
    )
)
