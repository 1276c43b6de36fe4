"""Drawing a picture from an encoder's map, and how far off it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxr_foundation.pretrain.distributed import gather
from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.maps import num_features, pooled_and_map, reduction

__all__ = ["ReconstructionHead", "check_blocks", "l1", "looked_at", "pooled_and_mean_map"]

# https://github.com/Sara-Ahmed/SiT/blob/7f22e9c/vision_transformer.py: RECHead.
_DEPTH, _STD = 3, 0.02


class ReconstructionHead(nn.Module):
    """Three layers on each place of a map alone, then every place draws its own square of pixels.

    Args:
        encoder: Whose map it takes.
        channels: Of the picture.
        generator: Draws the weights.
    """

    def __init__(self, encoder: nn.Module, *, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        width, side = num_features(encoder), reduction(encoder)
        with drawn_from(generator):
            linear = [nn.Linear(width, width) for _ in range(_DEPTH)]
            for layer in linear:
                nn.init.trunc_normal_(layer.weight, std=_STD)
                nn.init.zeros_(layer.bias)
            self.layers = nn.Sequential(*(part for layer in linear for part in (layer, nn.GELU())))
            self.draw = nn.ConvTranspose2d(width, channels, kernel_size=side, stride=side)

    def forward(self, features: torch.Tensor, *, size: torch.Size) -> torch.Tensor:
        """(N, D, h / r, w / r) → (N, C, h, w), where `size` is (h, w).

        Of a map that reaches over the picture the rest is cut off; one that leaves out a rest, as
        some networks do, is stretched.
        """
        places = self.layers(features.movedim(1, -1)).movedim(-1, 1)
        drawn: torch.Tensor = self.draw(places)[..., : size[0], : size[1]]
        if drawn.shape[-2:] == size:
            return drawn
        return F.interpolate(drawn, size=size, mode="bilinear", align_corners=False)


def l1(output: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean absolute difference over the hidden pixels of all processes together.

    Args:
        output: (N, C, h, w).
        target: (N, C, h, w).
        mask: bool (N, 1, h, w), True where it counts; None counts everything.

    Returns:
        A scalar whose mean over the processes is that mean; 0 if nothing is hidden.
    """
    difference = (output.float() - target.float()).abs()
    if mask is None:
        return difference.mean()
    # Processes hide different numbers of pixels, and their gradients are averaged.
    hidden = gather(mask.sum().float().view(1)).mean() * target.shape[1]
    return (difference * mask).sum() / hidden.clamp(min=1)


def check_blocks(encoder: nn.Module, blocks: tuple[int, ...] | None) -> None:
    """Raise ValueError("blocks: reason") unless the encoder has these blocks, counted from 1."""
    if blocks is None:
        return
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(f"blocks: {type(encoder).__name__} is no plain vision transformer")
    depth = len(encoder.blocks)
    if not blocks or not all(1 <= block <= depth for block in blocks):
        raise ValueError(f"blocks: {list(blocks)} are not some of 1 to {depth}")


def pooled_and_mean_map(
    encoder: nn.Module, images: torch.Tensor, *, blocks: tuple[int, ...] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `pooled_and_map`; the map is of the mean of these blocks' outputs, then normalised.

    Args:
        encoder: A timm network without a head.
        images: (N, C, h, w).
        blocks: Numbers of a transformer's blocks, from 1; None takes the encoder's own map.
    """
    if blocks is None:
        return pooled_and_map(encoder, images)
    network: Any = encoder
    last, outputs = network.forward_intermediates(
        images, indices=[block - 1 for block in blocks], output_fmt="NLC"
    )
    tokens = network.norm(torch.stack(outputs).mean(0))
    height, width = network.patch_embed.dynamic_feat_size(images.shape[-2:])
    places = tokens.transpose(1, 2).reshape(len(images), -1, height, width)
    return network.forward_head(last, pre_logits=True), places


@contextlib.contextmanager
def looked_at(method: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients, so that a look changes nothing."""
    before = {module: module.training for module in method.modules()}
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training
