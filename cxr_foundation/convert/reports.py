r"""Encoders that were trained on radiographs with their reports; the text side is dropped by name.

    gloria   {state_dict, hyper_parameters, …}: gloria.img_encoder.model.* (ResNet),
             gloria.img_encoder.global_embedder, local_embedder, gloria.text_encoder.*
    convirt  res_features.* (ResNet's children by number), res_l1, res_l2, bert_model.*, bert_l1 …
    mgca     {state_dict, …}: img_encoder_q.model.* (ResNet-50, or ViT-B/16 by timm's names),
             img_encoder_q.global_embed, local_embed, text_encoder_q.*, prototype_layer
    biovil   encoder.encoder.* (ResNet with its last layer), projector.model.*; BioViL-T also
             encoder.backbone_to_vit, encoder.vit_pooler.*, encoder.missing_previous_emb

Two things are no part of an encoder here, and so of no conversion. GLoRIA, and MGCA where it is a
ResNet, enlarge every picture to 299 x 299 before their first layer: that belongs to the input
contract. BioViL-T's own embedding joins the current image's features, projected, with a difference
to a prior image: what is converted is its trunk, whose features (2048) come before both.

GLoRIA: https://github.com/marshuang80/gloria. ConVIRT is the reimplementation of
https://github.com/edreisMD/ConVIRT-pytorch; its authors published no weights. MGCA:
https://github.com/HKU-MedAI/MGCA. BioViL: https://github.com/microsoft/hi-ml. Written from these
sources; unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import Drop, by_prefix, layouts
from cxr_foundation.convert.timm_native import RESNET_CHILDREN

__all__: list[str] = []

_ONLY = "the image encoder; the text encoder is left out"
_HEAD = "pretraining head"
_TEXT = "text encoder"
_CLASSIFIER = Drop("classification head", r"classifier\..+")

layouts.register("gloria")(
    by_prefix(
        name="gloria",
        title="GLoRIA",
        source="https://github.com/marshuang80/gloria/blob/main/gloria/models/gloria_model.py",
        proof=None,
        rule=_ONLY,
        encoders={"img_encoder": "img_encoder.model."},
        marks=(r"img_encoder\.model\..+", r"img_encoder\.(global|local)_embedder\.weight"),
        drop=(
            Drop(_HEAD, r"img_encoder\.(global|local)_embedder\..+"),
            Drop(_TEXT, r"text_encoder\..+"),
            _CLASSIFIER,
        ),
        wrappers=("state_dict.", "model.", "module.", "gloria."),
    )
)
layouts.register("convirt")(
    by_prefix(
        name="convirt",
        title="ConVIRT (edreisMD)",
        source="https://github.com/edreisMD/ConVIRT-pytorch/blob/master/models/model.py",
        proof=None,
        rule=_ONLY,
        encoders={"res_features": "res_features."},
        marks=(r"res_features\.0\.weight", r"res_l1\.weight"),
        drop=(
            Drop(_HEAD, r"(res|bert)_l[12]\..+"),
            Drop(_TEXT, r"(bert|BERT)_model\..+"),
        ),
        rename=RESNET_CHILDREN,
    )
)
layouts.register("mgca")(
    by_prefix(
        name="mgca",
        title="MGCA",
        source="https://github.com/HKU-MedAI/MGCA/blob/main/mgca/models/mgca/mgca_module.py",
        proof=None,
        rule=_ONLY,
        encoders={"img_encoder_q": "img_encoder_q.model."},
        marks=(r"img_encoder_q\.model\..+", r"img_encoder_q\.(global|local)_embed\..+"),
        drop=(
            Drop(_HEAD, r"img_encoder_q\.(global|local)_embed\..+"),
            Drop(_HEAD, r"(patch|word)_local_atten_layer\..+"),
            Drop("prototypes", r"prototype_layer\..+"),
            Drop(_TEXT, r"text_encoder_q\..+"),
        ),
    )
)
layouts.register("biovil")(
    by_prefix(
        name="biovil",
        title="BioViL and BioViL-T",
        source="https://github.com/microsoft/hi-ml/blob/main/hi-ml-multimodal/src/health_multimodal/"
        "image/model/model.py",
        proof=None,
        rule="the ResNet of the image model; of BioViL-T without the comparison to a prior image",
        encoders={"encoder": "encoder.encoder."},
        marks=(r"encoder\.encoder\.conv1\.weight", r"projector\.model\.0\.weight"),
        drop=(
            Drop(_HEAD, r"projector\..+"),
            Drop(
                "comparison with a prior image",
                r"encoder\.(backbone_to_vit|vit_pooler|missing_previous_emb)(\..+)?",
            ),
            _CLASSIFIER,
        ),
    )
)
