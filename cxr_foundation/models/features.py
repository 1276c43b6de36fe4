"""Which features of an encoder are taken: its pooled vector, or a coarse map of some level.

A pooled vector has forgotten where in the chest something is. A map of g × g places remembers it,
and costs g² times the width.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.errors import RecipeError

__all__ = ["POOLED", "FeatureKind", "FeatureReader"]


@dataclasses.dataclass(frozen=True)
class FeatureKind:
    """Pooled features, or a map averaged to a grid.

    Attributes:
        grid: Places along each side of the map; None takes the encoder's pooled vector.
        level: Of the encoder, counted as timm's `forward_intermediates` counts: stages of a CNN or
            a Swin, blocks of a ViT; -1 is the last.
    """

    grid: int | None = None
    level: int = -1

    @classmethod
    def parse(cls, text: str) -> FeatureKind:
        """The kind that a text names.

        Args:
            text: "pooled", "grid:4" (4 × 4 places of the last map) or "grid:4:-2" (of the one
                before).

        Raises:
            RecipeError: It is none of these.
        """
        if text == "pooled":
            return cls()
        found = re.fullmatch(r"grid:([1-9]\d?)(?::(-?\d{1,2}))?", text)
        if found is None:
            raise RecipeError(
                "features", f"{text!r} is neither 'pooled' nor 'grid:PLACES[:LEVEL]'", "grid:4"
            )
        return cls(grid=int(found[1]), level=int(found[2] or -1))

    def __str__(self) -> str:
        if self.grid is None:
            return "pooled"
        return f"grid:{self.grid}" + ("" if self.level == -1 else f":{self.level}")


POOLED = FeatureKind()
"""The encoder's own pooled vector."""


class FeatureReader(nn.Module):
    """An encoder that gives features of one kind: (B, C, H, W) → float (B, F).

    F is the encoder's width for pooled features, else the level's width times grid²; the places of
    one channel stand together, row by row.

    Args:
        encoder: A timm network without a head.
        kind: Of features.

    Raises:
        RecipeError: The encoder has no such level.
    """

    def __init__(self, encoder: nn.Module, kind: FeatureKind) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind
        network: Any = encoder
        levels = len(network.feature_info) if kind.grid is not None else 1
        if not -levels <= kind.level < levels:
            raise RecipeError("features", f"level {kind.level} is none of {levels}", "Take -1.")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of a batch."""
        network: Any = self.encoder
        if self.kind.grid is None:
            pooled: torch.Tensor = network(pixel_values)
            return pooled
        (level,) = network.forward_intermediates(
            pixel_values,
            indices=[self.kind.level],
            norm=True,
            stop_early=True,
            intermediates_only=True,
        )
        return F.adaptive_avg_pool2d(level, self.kind.grid).flatten(1)
