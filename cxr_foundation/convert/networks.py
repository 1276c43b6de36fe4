"""Which stock timm network a set of shapes is, and which tensors that network has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cxr_foundation.convert.dtypes import DTYPES, DType
from cxr_foundation.convert.keymap import Shapes
from cxr_foundation.convert.tensors import (
    CONVNEXTS,
    DENSENETS,
    RESNETS,
    SWINS,
    WIDTHS,
    known_tensors,
)
from cxr_foundation.errors import UnknownName
from cxr_foundation.registry import closest

__all__ = ["Wanted", "network_of", "tensors_of"]

_RESNETS = {kind: name for name, kind in RESNETS.items()}
_DENSENETS = {layers: name for name, layers in DENSENETS.items()}
_CONVNEXTS = {kind: name for name, kind in CONVNEXTS.items()}
_SWINS = {(width, blocks): name for name, (width, blocks, _) in SWINS.items()}
_WIDTHS = {kind: size for size, kind in WIDTHS.items()}
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
_SWIN_SIZES = {("swin_tiny", 7): 224, ("swin_small", 7): 224}
_SWIN_SIZES |= {
    (f"swin_{s}", w): size for s in ("base", "large") for w, size in ((7, 224), (12, 384))
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
    for mark, family in (
        ("blocks.0.attn.rel_pos_h", _sam),
        ("blocks.0.attn.q_bias", _eva),
        ("blocks.0.attn.q_proj.weight", _eva),
        ("attn_pool.latent", _siglip),
        ("norm_pre.weight", _clip),
        ("blocks.0.ls1.gamma", _dinov2),
    ):
        if mark in shapes:
            return family(shapes, kernel)
    return _vit(shapes, kernel)


def _width(shapes: Shapes, kernel: tuple[int, ...]) -> str | None:
    return _WIDTHS.get((kernel[0], _count(shapes, "blocks.")))


def _vit(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    name, size = _VITS.get((kernel[0], _count(shapes, "blocks."), kernel[2]), (None, 0))
    side = _side(shapes, prefix=1)
    if name is None or side is None:
        return None
    args = _sized(side * kernel[2], size)
    if "fc_norm.weight" in shapes and "norm.weight" not in shapes:
        # Fine-tuned masked autoencoders pool over the patches, then normalise.
        args["global_pool"] = "avg"
    return name, args


def _dinov2(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    width, patch = _width(shapes, kernel), kernel[2]
    registers = shapes.get("reg_token", (1, 0, 0))[1]
    side = _side(shapes, prefix=0 if registers else 1)
    if width not in ("small", "base", "large") or registers not in (0, 4) or side is None:
        return None
    name = f"vit_{width}_patch14_{'reg4_' if registers else ''}dinov2"
    args = _sized(side * patch, 518)
    return name, args if patch == 14 else {"patch_size": patch, **args}


def _eva(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    width, patch, side = _width(shapes, kernel), kernel[2], _side(shapes, prefix=1)
    if width not in ("tiny", "small", "base") or side is None:
        return None
    args = _sized(side * patch, 224)
    # Rotary positions were learnt on 16 x 16 patches (https://arxiv.org/abs/2303.11331) or, where
    # patches have 16 pixels, on 14 x 14 (EVA-X, https://arxiv.org/abs/2405.05237).
    return f"eva02_{width}_patch14_224", (
        args if patch == 14 else {"patch_size": patch, "ref_feat_shape": (14, 14), **args}
    )


def _clip(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    width, patch, side = _width(shapes, kernel), kernel[2], _side(shapes, prefix=1)
    known = {("base", 32), ("base", 16), ("large", 14)}
    if (width, patch) not in known or side is None:
        return None
    return f"vit_{width}_patch{patch}_clip_224", _sized(side * patch, 224)


def _siglip(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    width, side = _width(shapes, kernel), _side(shapes, prefix=0)
    if width not in ("base", "large") or kernel[2] != 16 or side not in (14, 16, 24, 32):
        return None
    # 14 x 14 patches of 16 pixels are 224, 16 x 16 are 256: timm has each as a network.
    return f"vit_{width}_patch16_siglip_{side * 16}", {}


def _sam(shapes: Shapes, kernel: tuple[int, ...]) -> _Found:
    width, grid = _width(shapes, kernel), shapes.get("pos_embed", ())
    if width not in ("base", "large", "huge") or len(grid) != 4 or grid[1] != grid[2]:
        return None
    return f"samvit_{width}_patch16", _sized(grid[1] * kernel[2], 1024)


def _sized(pixels: int, own: int) -> dict[str, Any]:
    """The image size, where it is not the network's own."""
    return {} if pixels == own else {"img_size": pixels}


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


def _side(shapes: Shapes, *, prefix: int) -> int | None:
    """Side of the square grid of a position embedding (1, prefix + side², width)."""
    positions = shapes.get("pos_embed", ())
    if len(positions) != 3 or positions[1] <= prefix:
        return None
    side = math.isqrt(positions[1] - prefix)
    return side if side * side == positions[1] - prefix else None


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Size and type of one tensor of a network."""

    shape: tuple[int, ...]
    dtype: DType


def tensors_of(
    architecture: str, model_args: Mapping[str, Any], *, shapes: Shapes, num_classes: int
) -> tuple[dict[str, Wanted], dict[str, Any]]:
    """The tensors of a stock timm network, and the arguments that it is built with.

    Args:
        architecture: Stock timm name.
        model_args: What the caller knows. `in_chans` is read from `shapes` if it is not there.
        shapes: Sizes in the file by encoder name.
        num_classes: 0 for the encoder alone.

    Returns:
        Tensors by name, in the network's order; the arguments.

    Raises:
        UnknownName: timm has no network of this name.
    """
    args = dict(model_args)
    if num_classes == 0 and "in_chans" in args:
        known = known_tensors(architecture, args)
        if known is not None:
            return {n: _wanted(n, shape) for n, shape in known.items()}, args
    return _built(architecture, args, shapes=shapes, num_classes=num_classes)


def _wanted(name: str, shape: tuple[int, ...]) -> Wanted:
    return Wanted(shape, DTYPES["int64" if name.endswith("num_batches_tracked") else "float32"])


def _built(
    architecture: str, args: dict[str, Any], *, shapes: Shapes, num_classes: int
) -> tuple[dict[str, Wanted], dict[str, Any]]:
    """As `tensors_of`, by building the network without memory."""
    import timm
    import torch

    # A tag after the dot names weights of timm's, which have no part in this.
    if "." in architecture or not timm.is_model(architecture):
        hint = closest(architecture, timm.list_models()) or "See timm.list_models()."
        raise UnknownName(architecture, "timm has no architecture of this name", hint)
    if "in_chans" not in args:
        cfg = timm.get_pretrained_cfg(architecture)
        stem = cfg.first_conv if cfg is not None else None
        kernel = shapes.get(f"{stem[0] if isinstance(stem, tuple) else stem}.weight", ())
        args["in_chans"] = kernel[1] if len(kernel) == 4 and 1 <= kernel[1] <= 16 else 3
    with torch.device("meta"):
        network = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **args)
    tensors = {
        name: Wanted(tuple(tensor.shape), DTYPES[str(tensor.dtype).removeprefix("torch.")])
        for name, tensor in network.state_dict().items()
    }
    return tensors, args
