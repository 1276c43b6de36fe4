r"""Networks of segmentation_models_pytorch, so also the CNN of Medical-MAE.

    {model, optimizer, epoch, scaler, args}
    model.encoder.*              the encoder, by torchvision's names and without its last layer
    model.decoder.blocks.N.*     the decoder
    model.segmentation_head.N.*  the last layer

Medical-MAE trains a U-Net to paint in what was masked, and fine-tunes its encoder as torchvision's
DenseNet-121: https://github.com/lambert-x/medical_mae, `models_mae_cnn.py` and `smp_encoder` in
`main_finetune_chestxray.py`. Unproven on the authors' files.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import Drop, by_prefix, layouts
from cxr_foundation.convert.timm_native import DENSENET_LEGACY

layouts.register("smp")(
    by_prefix(
        name="smp",
        title="segmentation_models_pytorch (Medical-MAE CNN)",
        source="https://github.com/lambert-x/medical_mae/blob/main/models_mae_cnn.py",
        proof="segmentation-models-pytorch",
        rule="the encoder; the decoder has served its purpose",
        encoders={"encoder": "encoder."},
        marks=(
            r"encoder\.(conv1|features\.conv0)\.weight",
            r"segmentation_head\.\d+\.weight",
        ),
        drop=(
            Drop("decoder", r"decoder\..+"),
            Drop("segmentation head", r"segmentation_head\..+"),
            Drop("classification head", r"classification_head\..+"),
        ),
        rename=(DENSENET_LEGACY,),
    )
)
