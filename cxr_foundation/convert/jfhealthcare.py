r"""JF Healthcare's DenseNet-121 of the CheXpert competition ("Top1 Solution of CheXpert").

    flat
    backbone.features.*          the encoder, by torchvision's names
    attention_map.*              attention that is applied before each of the five classifiers
    fc_N.*, bn_N.*               five classifiers of the mean beside the maximum

Its own predictions come from behind the attention; the features here are those before it, pooled.
https://github.com/jfhealthcare/Chexpert/blob/master/model/classifier.py. Tests write it with the
class that torchxrayvision carries.
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import Drop, by_prefix, layouts

__all__: list[str] = []

layouts.register("jfhealthcare")(
    by_prefix(
        name="jfhealthcare",
        title="JF Healthcare's CheXpert network",
        source="https://github.com/jfhealthcare/Chexpert/blob/master/model/classifier.py",
        proof="torchxrayvision",
        rule="the only encoder; its attention and its classifiers are left out",
        encoders={"backbone": "backbone."},
        marks=(r"backbone\.features\.conv0\.weight", r"attention_map\..+", r"fc_0\.weight"),
        drop=(
            Drop("attention", r"attention_map\..+"),
            Drop("classification head", r"(fc|bn)_\d+\..+"),
        ),
    )
)
