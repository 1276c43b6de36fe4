"""What an encoder says of a picture as a whole, and of each place in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["num_features", "pooled_and_map", "reduction"]


def num_features(encoder: nn.Module) -> int:
    """Length D of an encoder's pooled features."""
    return int(getattr(encoder, "num_features"))  # noqa: B009  (a timm attribute)


def pooled_and_map(encoder: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features and the map that they come from, by one pass.

    Class and register tokens of a transformer are not in the map.

    Args:
        encoder: A timm network without a head.
        images: (N, C, h, w).

    Returns:
        (N, D) and (N, D, h / r, w / r), where r is the encoder's reduction.
    """
    network: Any = encoder
    features = network.forward_features(images)
    pooled = network.forward_head(features, pre_logits=True)
    if features.ndim == 3:
        tokens = features[:, getattr(network, "num_prefix_tokens", 0) :]
        height, width = network.patch_embed.dynamic_feat_size(images.shape[-2:])
        return pooled, tokens.transpose(1, 2).reshape(len(images), -1, height, width)
    # timm's hierarchical transformers keep channels last and say so.
    if getattr(network, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return pooled, features


def reduction(encoder: nn.Module) -> int:
    """Pixels of the picture per place of the map, along each side."""
    network: Any = encoder
    return int(network.feature_info[-1]["reduction"])
