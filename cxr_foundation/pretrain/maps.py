"""What an encoder says of a picture as a whole, and of each place in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["num_features", "pooled_and_map", "pooled_by_size", "reduction"]


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


def pooled_by_size(encoder: nn.Module, views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (V * N, D) of all views, in order; neighbours of one size go through together."""
    groups = itertools.groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([encoder(torch.cat(list(group))) for _, group in groups])


def reduction(encoder: nn.Module) -> int:
    """Pixels of the picture per place of the map, along each side."""
    network: Any = encoder
    return int(network.feature_info[-1]["reduction"])
