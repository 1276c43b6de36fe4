"""Names and sizes of the tensors of stock networks, without building the network.

Building one takes torch and timm, which take seconds and hundreds of megabytes; a file is
described in less. What stands here is held to timm's own networks, name by name and in order, by
the tests; a network that is not here is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["known_tensors"]

Sizes = tuple[int, ...]
Named = Iterator[tuple[str, Sizes]]

# name → (bottleneck, blocks per stage): https://arxiv.org/abs/1512.03385, table 1
RESNETS: Mapping[str, tuple[bool, Sizes]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
}
# name → layers per block: https://arxiv.org/abs/1608.06993, table 1
DENSENETS: Mapping[str, Sizes] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
# name → (width, blocks per stage): https://arxiv.org/abs/2201.03545, section 3
CONVNEXTS: Mapping[str, tuple[int, Sizes]] = {
    "convnext_tiny": (96, (3, 3, 9, 3)),
    "convnext_small": (96, (3, 3, 27, 3)),
    "convnext_base": (128, (3, 3, 27, 3)),
    "convnext_large": (192, (3, 3, 27, 3)),
}
# name → (width, blocks per stage, heads in the first): https://arxiv.org/abs/2103.14030, 3.3
SWINS: Mapping[str, tuple[int, Sizes, int]] = {
    "swin_tiny": (96, (2, 2, 6, 2), 3),
    "swin_small": (96, (2, 2, 18, 2), 3),
    "swin_base": (128, (2, 2, 18, 2), 4),
    "swin_large": (192, (2, 2, 18, 2), 6),
}
# Width and depth of plain transformers: https://arxiv.org/abs/2010.11929, table 1, and DeiT's
# smaller two, https://arxiv.org/abs/2012.12877, table 1.
WIDTHS: Mapping[str, tuple[int, int]] = {
    "tiny": (192, 12),
    "small": (384, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "huge": (1280, 32),
}


def known_tensors(architecture: str, args: Mapping[str, Any]) -> dict[str, Sizes] | None:
    """Sizes by name, in timm's order, of an encoder without a head.

    Args:
        architecture: Stock timm name.
        args: Its arguments, `in_chans` among them.

    Returns:
        None for a network or an argument that is not described here.
    """
    channels = args.get("in_chans", 3)
    rest = {k: v for k, v in args.items() if k != "in_chans"}
    family = architecture.split("_")[0]
    if architecture in RESNETS and not rest:
        return dict(_resnet(channels, *RESNETS[architecture]))
    if architecture in DENSENETS and not rest:
        return dict(_densenet(channels, DENSENETS[architecture]))
    if architecture in CONVNEXTS and not rest:
        return dict(_convnext(channels, *CONVNEXTS[architecture]))
    if family == "swin" and set(rest) <= {"img_size"}:
        return _swin_of(architecture, channels)
    if family == "vit" and set(rest) <= {"img_size", "patch_size", "global_pool", "num_heads"}:
        return _vit_of(architecture, channels, rest)
    if family == "eva02" and set(rest) <= {"img_size", "patch_size", "ref_feat_shape"}:
        return _eva_of(architecture, channels, rest)
    if family == "samvit" and set(rest) <= {"img_size"}:
        return _sam_of(architecture, channels, rest)
    return None


def _layer(name: str, *sizes: int, bias: bool = True) -> Named:
    yield f"{name}.weight", sizes
    if bias:
        yield f"{name}.bias", sizes[:1]


def _batch_norm(name: str, width: int) -> Named:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _conv(name: str, out: int, into: int, side: int) -> Named:
    return _layer(name, out, into, side, side, bias=False)


def _resnet(channels: int, bottleneck: bool, blocks: Sizes) -> Named:
    yield from _conv("conv1", 64, channels, 7)
    yield from _batch_norm("bn1", 64)
    into = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 << stage
        out = width * 4 if bottleneck else width
        for n in range(count):
            block = f"layer{stage}.{n}"
            sides = ((width, into, 1), (width, width, 3), (out, width, 1))
            for i, size in enumerate(sides if bottleneck else ((out, into, 3), (out, out, 3)), 1):
                yield from _conv(f"{block}.conv{i}", *size)
                yield from _batch_norm(f"{block}.bn{i}", size[0])
            if n == 0 and into != out:
                yield from _conv(f"{block}.downsample.0", out, into, 1)
                yield from _batch_norm(f"{block}.downsample.1", out)
            into = out


def _densenet(channels: int, layers: Sizes) -> Named:
    growth, width = 32, 64
    yield from _conv("features.conv0", width, channels, 7)
    yield from _batch_norm("features.norm0", width)
    for n, count in enumerate(layers, start=1):
        for i in range(1, count + 1):
            layer = f"features.denseblock{n}.denselayer{i}"
            yield from _batch_norm(f"{layer}.norm1", width)
            yield from _conv(f"{layer}.conv1", 4 * growth, width, 1)
            yield from _batch_norm(f"{layer}.norm2", 4 * growth)
            yield from _conv(f"{layer}.conv2", growth, 4 * growth, 3)
            width += growth
        if n < len(layers):
            yield from _batch_norm(f"features.transition{n}.norm", width)
            yield from _conv(f"features.transition{n}.conv", width // 2, width, 1)
            width //= 2
    yield from _batch_norm("features.norm5", width)


def _convnext(channels: int, width: int, blocks: Sizes) -> Named:
    yield from _layer("stem.0", width, channels, 4, 4)
    yield from _layer("stem.1", width)
    for stage, count in enumerate(blocks):
        if stage:
            yield from _layer(f"stages.{stage}.downsample.0", width)
            yield from _layer(f"stages.{stage}.downsample.1", 2 * width, width, 2, 2)
            width *= 2
        for n in range(count):
            block = f"stages.{stage}.blocks.{n}"
            yield f"{block}.gamma", (width,)
            yield from _layer(f"{block}.conv_dw", width, 1, 7, 7)
            yield from _layer(f"{block}.norm", width)
            yield from _mlp(block, width)
    yield from _layer("head.norm", width)


def _mlp(block: str, width: int) -> Named:
    yield from _layer(f"{block}.mlp.fc1", 4 * width, width)
    yield from _layer(f"{block}.mlp.fc2", width, 4 * width)


def _swin_of(architecture: str, channels: int) -> dict[str, Sizes] | None:
    size, _, end = architecture.partition("_patch4_window")
    window = end.partition("_")[0]
    if size not in SWINS or not window.isdecimal():
        return None
    return dict(_swin(channels, int(window), *SWINS[size]))


def _swin(channels: int, window: int, width: int, blocks: Sizes, heads: int) -> Named:
    yield from _layer("patch_embed.proj", width, channels, 4, 4)
    yield from _layer("patch_embed.norm", width)
    for stage, count in enumerate(blocks):
        if stage:
            yield from _layer(f"layers.{stage}.downsample.norm", 4 * width)
            reduction = f"layers.{stage}.downsample.reduction"
            yield from _layer(reduction, 2 * width, 4 * width, bias=False)
            width, heads = 2 * width, 2 * heads
        for n in range(count):
            block = f"layers.{stage}.blocks.{n}"
            yield from _layer(f"{block}.norm1", width)
            yield f"{block}.attn.relative_position_bias_table", ((2 * window - 1) ** 2, heads)
            yield from _layer(f"{block}.attn.qkv", 3 * width, width)
            yield from _layer(f"{block}.attn.proj", width, width)
            yield from _layer(f"{block}.norm2", width)
            yield from _mlp(block, width)
    yield from _layer("norm", width)


def _vit_of(architecture: str, channels: int, args: Mapping[str, Any]) -> dict[str, Sizes] | None:
    parts = architecture.split("_")
    if len(parts) < 4 or parts[1] not in WIDTHS or not parts[2].startswith("patch"):
        return None
    kind = "_".join(p for p in parts[3:] if not p.isdecimal())
    if kind not in ("", "dinov2", "reg4_dinov2", "clip", "clip_quickgelu", "siglip"):
        return None
    size = args.get("img_size", int(parts[-1]) if parts[-1].isdecimal() else 518)
    patch = args.get("patch_size", int(parts[2].removeprefix("patch")))
    pooled = args.get("global_pool", "token")
    if not isinstance(size, int) or not isinstance(patch, int) or pooled not in ("token", "avg"):
        return None
    grid = (size // patch) ** 2
    return dict(_vit(channels, *WIDTHS[parts[1]], patch, grid, kind, pooled == "avg"))


def _vit(
    channels: int, width: int, depth: int, patch: int, grid: int, kind: str, averaged: bool
) -> Named:
    siglip, clip, registers = kind == "siglip", kind.startswith("clip"), kind.startswith("reg4")
    if not siglip:
        yield "cls_token", (1, 1, width)
    if registers:
        yield "reg_token", (1, 4, width)
    yield "pos_embed", (1, grid + (0 if siglip or registers else 1), width)
    yield from _layer("patch_embed.proj", width, channels, patch, patch, bias=not clip)
    if clip:
        yield from _layer("norm_pre", width)
    for n in range(depth):
        block = f"blocks.{n}"
        yield from _layer(f"{block}.norm1", width)
        yield from _layer(f"{block}.attn.qkv", 3 * width, width)
        yield from _layer(f"{block}.attn.proj", width, width)
        if kind.endswith("dinov2"):
            yield f"{block}.ls1.gamma", (width,)
        yield from _layer(f"{block}.norm2", width)
        yield from _mlp(block, width)
        if kind.endswith("dinov2"):
            yield f"{block}.ls2.gamma", (width,)
    # timm normalises after the mean over the patches, where it takes one.
    yield from _layer("fc_norm" if averaged else "norm", width)
    if siglip:
        yield "attn_pool.latent", (1, 1, width)
        yield from _layer("attn_pool.q", width, width)
        yield from _layer("attn_pool.kv", 2 * width, width)
        yield from _layer("attn_pool.proj", width, width)
        yield from _layer("attn_pool.norm", width)
        yield from _mlp("attn_pool", width)


def _eva_of(architecture: str, channels: int, args: Mapping[str, Any]) -> dict[str, Sizes] | None:
    parts = architecture.split("_")
    size, patch = args.get("img_size", 224), args.get("patch_size", 14)
    if parts[1] not in ("tiny", "small", "base") or parts[2:] != ["patch14", "224"]:
        return None
    if not isinstance(size, int) or not isinstance(patch, int):
        return None
    return dict(_eva(channels, *WIDTHS[parts[1]], patch, (size // patch) ** 2, parts[1] == "base"))


def _eva(channels: int, width: int, depth: int, patch: int, grid: int, apart: bool) -> Named:
    # https://arxiv.org/abs/2303.11331, section 2.2: SwiGLU of two thirds of four widths, keys
    # without a bias; in the base size projections of their own and a norm inside the SwiGLU.
    hidden = width * 8 // 3
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, grid + 1, width)
    yield from _layer("patch_embed.proj", width, channels, patch, patch)
    for n in range(depth):
        block = f"blocks.{n}"
        yield from _layer(f"{block}.norm1", width)
        if apart:
            yield from _layer(f"{block}.attn.q_proj", width, width)
            yield from _layer(f"{block}.attn.k_proj", width, width, bias=False)
            yield from _layer(f"{block}.attn.v_proj", width, width)
        else:
            yield f"{block}.attn.q_bias", (width,)
            yield f"{block}.attn.v_bias", (width,)
            yield from _layer(f"{block}.attn.qkv", 3 * width, width, bias=False)
        yield from _layer(f"{block}.attn.proj", width, width)
        yield from _layer(f"{block}.norm2", width)
        if apart:
            yield from _layer(f"{block}.mlp.fc1_g", hidden, width)
            yield from _layer(f"{block}.mlp.fc1_x", hidden, width)
            yield from _layer(f"{block}.mlp.norm", hidden)
        else:
            yield from _layer(f"{block}.mlp.fc1", 2 * hidden, width)
        yield from _layer(f"{block}.mlp.fc2", width, hidden)
    yield from _layer("fc_norm", width)


def _sam_of(architecture: str, channels: int, args: Mapping[str, Any]) -> dict[str, Sizes] | None:
    size, pixels = architecture.split("_")[1], args.get("img_size", 1024)
    if architecture != f"samvit_{size}_patch16" or not isinstance(pixels, int):
        return None
    heads = {"base": 12, "large": 16, "huge": 16}.get(size)
    return None if heads is None else dict(_sam(channels, *WIDTHS[size], heads, pixels // 16))


def _sam(channels: int, width: int, depth: int, heads: int, side: int) -> Named:
    # https://arxiv.org/abs/2304.02643, appendix A: windows of 14, but for four blocks that see
    # all, equally spaced; a neck of 256 channels.
    yield "pos_embed", (1, side, side, width)
    yield from _layer("patch_embed.proj", width, channels, 16, 16)
    for n in range(depth):
        block = f"blocks.{n}"
        seen = side if (n + 1) % (depth // 4) == 0 else 14
        yield from _layer(f"{block}.norm1", width)
        yield f"{block}.attn.rel_pos_h", (2 * seen - 1, width // heads)
        yield f"{block}.attn.rel_pos_w", (2 * seen - 1, width // heads)
        yield from _layer(f"{block}.attn.qkv", 3 * width, width)
        yield from _layer(f"{block}.attn.proj", width, width)
        yield from _layer(f"{block}.norm2", width)
        yield from _mlp(block, width)
    yield from _conv("neck.0", 256, width, 1)
    yield from _layer("neck.1", 256)
    yield from _conv("neck.2", 256, 256, 3)
    yield from _layer("neck.3", 256)
