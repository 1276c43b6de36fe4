r"""MoCo v3, ViT and ResNet-50.

    {epoch, arch, state_dict, optimizer, scaler}
    module.base_encoder.*        the encoder; its head (ViT: head.N, ResNet: fc.N) is an MLP
    module.momentum_encoder.*    momentum copy
    module.predictor.*           behind the head of the base encoder

Its ViT-S has 12 heads of 32 channels, where timm's has 6 of 64. No size tells the two apart: a
file that was saved again without `base_encoder` (convert_to_deit.py) has to be claimed with
`model_args={"num_heads": 12}`. Positions are saved, although they are fixed.
https://github.com/facebookresearch/moco-v3/blob/main/moco/builder.py and
https://github.com/facebookresearch/moco-v3/blob/main/vits.py. Written from these sources;
unproven on the authors' files.
"""

from __future__ import annotations

from typing import Any

from cxr_foundation.convert.keymap import Drop, Shapes, by_prefix, layouts
from cxr_foundation.convert.networks import network_of


def _network(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    found = network_of(shapes)
    if found is None or found[0] != "vit_small_patch16_224":
        return found
    return found[0], {**found[1], "num_heads": 12}


layouts.register("mocov3")(
    by_prefix(
        name="mocov3",
        title="MoCo v3",
        source="https://github.com/facebookresearch/moco-v3/blob/main/moco/builder.py",
        proof=None,
        rule="the base encoder, which the gradient trains",
        encoders={"base_encoder": "base_encoder.", "momentum_encoder": "momentum_encoder."},
        marks=(r"base_encoder\.(conv1|patch_embed\.proj)\.weight",),
        heads=r"(fc|head)\..+",
        drop=(Drop("predictor", r"predictor\..+"),),
        network=_network,
    )
)
