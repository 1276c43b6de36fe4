r"""CXR-CLIP with a ResNet-50.

    {model, optimizer, scheduler, config, epoch, train_loss}, saved as model-best.tar
    image_encoder.resnet.*       the encoder, by torchvision's names
    text_encoder.text_encoder.*  BERT
    image_projection.*, text_projection.*, logit_scale

The file's name ends in .tar and it is a file of torch.save all the same. Those with a Swin have
transformers' names below image_encoder.image_encoder and are not taken here.
https://github.com/kakaobrain/cxr-clip/blob/main/cxrclip/trainer.py and
https://github.com/kakaobrain/cxr-clip/blob/main/cxrclip/model/clip.py. Written from these sources;
unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import Drop, by_prefix, layouts

__all__: list[str] = []

layouts.register("cxr_clip")(
    by_prefix(
        name="cxr_clip",
        title="CXR-CLIP",
        source="https://github.com/kakaobrain/cxr-clip/blob/main/cxrclip/model/clip.py",
        proof=None,
        rule="the image encoder; the text encoder is left out",
        encoders={"image_encoder": "image_encoder.resnet."},
        marks=(r"image_encoder\.resnet\.conv1\.weight", r"image_projection\..+"),
        drop=(
            Drop("projection", r"(image|text)_projection\..+"),
            Drop("text encoder", r"text_encoder\..+"),
            Drop("temperature", r"logit_scale"),
        ),
    )
)
