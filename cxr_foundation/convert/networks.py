"""Which stock timm network a set of shapes is, and which tensors that network has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from cxr_foundation.convert.keymap import Shapes
from cxr_foundation.errors import UnknownName
from cxr_foundation.registry import closest

__all__ = ["network_of", "tensors_of"]

# (blocks per stage) → network: https://arxiv.org/abs/1512.03385, table 1; the deeper three of the
# second row have bottlenecks.
_RESNETS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# https://arxiv.org/abs/1608.06993, table 1
_DENSENETS: Mapping[tuple[int, ...], str] = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 48, 32): "densenet201",
    (6, 12, 32, 32): "densenet169",
}
# (width, depth, patch) → network and its image size. The number of heads is not in the shapes:
# each of these has heads of 64 channels.
_VITS = {
    (192, 12, 16): ("vit_tiny_patch16_224", 224),
    (384, 12, 16): ("vit_small_patch16_224", 224),
    (768, 12, 16): ("vit_base_patch16_224", 224),
    (1024, 24, 16): ("vit_large_patch16_224", 224),
    (384, 12, 32): ("vit_small_patch32_224", 224),
    (768, 12, 32): ("vit_base_patch32_224", 224),
}
_DINOV2 = {(384, 12): "vit_small", (768, 12): "vit_base", (1024, 24): "vit_large"}
# (width, blocks per stage) → name: https://arxiv.org/abs/2103.14030 and 2201.03545, section 3
_SWINS: Mapping[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "swin_tiny",
    (96, (2, 2, 18, 2)): "swin_small",
    (128, (2, 2, 18, 2)): "swin_base",
    (192, (2, 2, 18, 2)): "swin_large",
}
_SWIN_SIZES = {("swin_tiny", 7): 224, ("swin_small", 7): 224}
_SWIN_SIZES |= {
    (f"swin_{s}", w): size for s in ("base", "large") for w, size in ((7, 224), (12, 384))
}
_CONVNEXTS: Mapping[tuple[int, tuple[int, ...]], str] = {
    (96, (3, 3, 9, 3)): "convnext_tiny",
    (96, (3, 3, 27, 3)): "convnext_small",
    (128, (3, 3, 27, 3)): "convnext_base",
    (192, (3, 3, 27, 3)): "convnext_large",
}


def network_of(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """The stock timm network with these tensors, and its arguments beyond the stock ones.

    Args:
        shapes: Sizes by encoder name.

    Returns:
        (name, arguments), the arguments always with `in_chans` and with `img_size` (pixels) only
        where it is not the network's own; None if no network of the table fits.
    """
    for stem, family in (
        ("conv1.weight", _resnet),
        ("features.conv0.weight", _densenet),
        ("patch_embed.proj.weight", _transformer),
        ("stem.0.weight", _convnext),
    ):
        kernel = shapes.get(stem, ())
        if len(kernel) == 4:
            found = family(shapes, kernel)
            if found is not None:
                return found[0], {"in_chans": kernel[1], **found[1]}
    return None


_Found = tuple[str, dict[str, Any]] | None


def _resnet(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    counts = tuple(_count(shapes, f"layer{n}.") for n in (1, 2, 3, 4))
    name = _RESNETS.get(("layer1.0.conv3.weight" in shapes, counts))
    return (name, {}) if name else None


def _densenet(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    counts = tuple(_count(shapes, f"features.denseblock{n}.denselayer") for n in (1, 2, 3, 4))
    name = _DENSENETS.get(counts)
    return (name, {}) if name else None


def _convnext(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    counts = tuple(_count(shapes, f"stages.{n}.blocks.") for n in range(4))
    name = _CONVNEXTS.get((kernel[0], counts))
    return (name, {}) if name else None


def _transformer(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    if "layers.0.blocks.0.norm1.weight" in shapes:
        return _swin(shapes, kernel)
    width, _, patch, _ = kernel
    depth, layer_scale = _count(shapes, "blocks."), "blocks.0.ls1.gamma" in shapes
    positions = shapes.get("pos_embed", ())
    if patch == 14 and layer_scale and (width, depth) in _DINOV2:
        registers = shapes.get("reg_token", (1, 0, 0))[1]
        if registers not in (0, 4):
            return None
        name = f"{_DINOV2[width, depth]}_patch14_{'reg4_' if registers else ''}dinov2"
        size, prefix = 518, 0 if registers else 1
    elif (width, depth, patch) in _VITS and not layer_scale:
        (name, size), prefix = _VITS[width, depth, patch], 1
    else:
        return None
    args: dict[str, Any] = {}
    side = _side(positions, prefix)
    if side is None:
        return None
    if side * patch != size:
        args["img_size"] = side * patch
    if "fc_norm.weight" in shapes and "norm.weight" not in shapes:
        # Fine-tuned masked autoencoders pool over the patches, then normalise.
        args["global_pool"] = "avg"
    return name, args


def _swin(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    counts = tuple(_count(shapes, f"layers.{n}.blocks.") for n in range(4))
    name = _SWINS.get((kernel[0], counts))
    table = shapes.get("layers.0.blocks.0.attn.relative_position_bias_table", (0, 0))
    window = (math.isqrt(table[0]) + 1) // 2
    if name is None or (name, window) not in _SWIN_SIZES:
        return None
    return f"{name}_patch4_window{window}_{_SWIN_SIZES[name, window]}", {}


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks follow a prefix."""
    rest = (n.removeprefix(prefix).partition(".")[0] for n in shapes if n.startswith(prefix))
    return len({r for r in rest if r.isdecimal()})


def _side(positions: tuple[int, ...], prefix: int) -> int | None:
    """Side of the square grid of a position embedding (1, prefix + side², width)."""
    if len(positions) != 3 or positions[1] <= prefix:
        return None
    side = math.isqrt(positions[1] - prefix)
    return side if side * side == positions[1] - prefix else None


def tensors_of(
    architecture: str, model_args: Mapping[str, Any], *, shapes: Shapes, num_classes: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a stock timm network, and the arguments that it was built with.

    Args:
        architecture: Stock timm name.
        model_args: What the caller knows. `in_chans` is read from `shapes` if it is not there.
        shapes: Sizes in the file by encoder name.
        num_classes: 0 for the encoder alone.

    Returns:
        Meta tensors by name, in the network's order (they take no memory); the arguments.

    Raises:
        UnknownName: timm has no network of this name.
    """
    import timm

    # A tag after the dot names weights of timm's, which have no part in this.
    if "." in architecture or not timm.is_model(architecture):
        hint = closest(architecture, timm.list_models()) or "See timm.list_models()."
        raise UnknownName(architecture, "timm has no architecture of this name", hint)
    args = dict(model_args)
    if "in_chans" not in args:
        cfg = timm.get_pretrained_cfg(architecture)
        stem = cfg.first_conv if cfg is not None else None
        kernel = shapes.get(f"{stem[0] if isinstance(stem, tuple) else stem}.weight", ())
        args["in_chans"] = kernel[1] if len(kernel) == 4 and 1 <= kernel[1] <= 16 else 3
    with torch.device("meta"):
        network = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **args)
    return dict(network.state_dict()), args
