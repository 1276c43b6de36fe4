"""Jigsaw: say in which of a fixed set of orders nine tiles of a radiograph are shown.

Written from the paper: Noroozi and Favaro, "Unsupervised Learning of Visual Representations by
Solving Jigsaw Puzzles" (arXiv 1603.09246). As there, one encoder sees each tile alone, its answers
are put side by side, tiles lie at random inside their cells so that edges do not meet, and each
tile is normalised by itself.

What differs: a margin of the radiograph is left out, because corners, collimation edges and letters
tell a tile's place; part of the room between tiles is always left free; the set of orders also
keeps the two most alike of them apart, where the paper looks at the mean distance.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features, reduction
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.pretext import MARGIN, answered, check_margin, inner, numbers

__all__ = ["Jigsaw", "JigsawSettings", "orders"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JigsawSettings:
    """What the jigsaw task adds to an encoder.

    Attributes:
        grid: Tiles along each side, 2 or 3.
        orders: How many orders of the tiles there are to tell apart.
        tile: Side of a tile as a part of its cell's (the paper's 64 of 75 pixels). Half of what is
            left is always a gap, the other half is where the tile's place varies.
        margin: Part of each side of the radiograph that is never shown.
        tile_width: Numbers to which the encoder's features of a tile are brought.
        hidden: Width of the layer that sees all tiles.
    """

    grid: int = 3
    orders: int = 100
    tile: float = 64 / 75
    margin: float = MARGIN
    tile_width: int = 512
    hidden: int = 4096

    def __post_init__(self) -> None:
        check_margin(self.margin)
        if self.grid not in (2, 3):
            raise ValueError(f"grid: {self.grid!r} is neither 2 nor 3")
        most = math.factorial(self.grid**2)
        if not 2 <= self.orders <= most:
            raise ValueError(f"orders: {self.orders!r} is not from 2 to {most}")
        if not 0 < self.tile < 1:
            raise ValueError(f"tile: {self.tile!r} is not within (0, 1)")
        for name in ("tile_width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")


def orders(tiles: int, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """Orders of tiles that are far from one another.

    The first is drawn; each next one has the largest Hamming distance to the closest that is there
    already, and of those the largest summed distance to all. The generator decides ties.

    Args:
        tiles: Number of tiles, at most 9.
        count: Number of orders.
        generator: On the CPU.

    Returns:
        int64 (count, tiles): position → tile.
    """
    flat = itertools.chain.from_iterable(itertools.permutations(range(tiles)))
    all_orders = torch.from_numpy(np.fromiter(flat, np.uint8).reshape(-1, tiles).copy())
    shuffled = all_orders[torch.randperm(len(all_orders), generator=generator)]
    columns = shuffled.T.contiguous()
    closest = torch.full((len(shuffled),), tiles + 1, dtype=torch.int32)
    total = torch.zeros_like(closest)
    chosen = [shuffled[0]]
    while len(chosen) < count:
        distance = torch.zeros(len(shuffled), dtype=torch.uint8)
        for column, tile in zip(columns, chosen[-1], strict=True):
            distance += column != tile
        closest = torch.minimum(closest, distance)
        total += distance
        chosen.append(shuffled[(closest * (tiles * count + 1) + total).argmax()])
    return torch.stack(chosen).long()


@METHODS.register("jigsaw")
class Jigsaw(Method):
    """The encoder on each tile, a linear layer that all tiles share, and one over all of them."""

    title = "Jigsaw"
    paper = "arXiv 1603.09246"
    Settings = JigsawSettings
    full_views = 1

    orders: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        settings: JigsawSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder)
        tiles = settings.grid**2
        self.register_buffer("orders", orders(tiles, settings.orders, generator=generator))
        with drawn_from(generator):
            self.tile_head = nn.Sequential(
                nn.Linear(num_features(encoder), settings.tile_width), nn.ReLU()
            )
            self.head = mlp([tiles * settings.tile_width, settings.hidden, settings.orders])
        self.grid = settings.grid
        self.places = [_Places(side, settings) for side in view[1:]]
        height, width = (place.tile for place in self.places)
        self.shown = _shown(encoder, (height, width), (view[1], view[2]))

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: JigsawSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Jigsaw:
        """See `Method.build`; a view too small for gaps between its tiles is refused."""
        return cls(encoder, settings=settings, view=view, generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Returns:
            "loss", cross-entropy; "features", the mean over each picture's tiles; "accuracy",
            1 / number of orders by chance.
        """
        (images,) = views
        tiles, chosen = self.task(images, draw=draw)
        features: torch.Tensor = self.encoder(tiles.flatten(0, 1))
        by_tile = self.tile_head(features).view(len(images), -1)
        loss, accuracy = answered(self.head(by_tile), chosen)
        mean = features.detach().view(len(images), self.grid**2, -1).mean(1)
        return {"loss": loss, "features": mean, "accuracy": accuracy}

    @torch.no_grad()
    def task(self, images: torch.Tensor, *, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is asked: tiles as shown (N, tiles, C, h, w), and their orders, int64 (N,)."""
        count = self.grid**2
        drawn = numbers(images, 1 + 2 * count, draw=draw)
        chosen = (drawn[:, 0] * len(self.orders)).long().clamp_max(len(self.orders) - 1)
        tiles = self._cut(images, drawn[:, 1:].view(-1, 2, count))
        order = self.orders[chosen][:, :, None, None, None].expand_as(tiles)
        tiles = _normalised(tiles.gather(1, order))
        if tiles.shape[-2:] != self.shown:
            flat = tiles.flatten(0, 1)
            flat = F.interpolate(flat, self.shown, mode="bilinear", align_corners=False)
            tiles = flat.view(*tiles.shape[:3], *self.shown)
        return tiles, chosen

    def _cut(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) and (N, 2, tiles) numbers → tiles in their true order."""
        down, across = (place.pixels(drawn[:, i]) for i, place in enumerate(self.places))
        cell = torch.arange(self.grid**2, device=images.device)
        rows = down[:, cell, cell // self.grid][:, :, None, :, None]
        columns = across[:, cell, cell % self.grid][:, :, None, None, :]
        picture = torch.arange(len(images), device=images.device)[:, None, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[None, None, :, None, None]
        return images.float()[picture, channel, rows, columns]


class _Places:
    """Where tiles may lie along one side of a view."""

    def __init__(self, side: int, settings: JigsawSettings) -> None:
        self.first, room = inner(side, settings.margin)
        self.grid, self.cell = settings.grid, room // settings.grid
        self.tile = round(self.cell * settings.tile)
        left = self.cell - self.tile
        self.gap, self.jitter = (left + 1) // 2, left // 2
        if self.tile < 2 or left < 1:
            raise ValueError(f"tile: {self.tile} pixels of a cell of {self.cell} leave no gap")

    def pixels(self, drawn: torch.Tensor) -> torch.Tensor:
        """(N, tiles) numbers → int64 (N, tiles, grid, tile): pixels, were it in that cell."""
        shift = (drawn * (self.jitter + 1)).long().clamp_max(self.jitter)
        start = self.first + self.cell * torch.arange(self.grid, device=drawn.device)
        # The gap lies half on either side of a tile; of an odd one the first half is smaller.
        start = start + self.gap // 2
        within = torch.arange(self.tile, device=drawn.device)
        return shift[:, :, None, None] + start[:, None] + within


def _normalised(tiles: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 of each tile; a tile that is all alike becomes 0."""
    centred = tiles - tiles.mean((-3, -2, -1), keepdim=True)
    spread = centred.square().mean((-3, -2, -1), keepdim=True).sqrt()
    return centred / spread.clamp_min(1e-3)


def _shown(encoder: nn.Module, tile: tuple[int, int], view: tuple[int, int]) -> tuple[int, int]:
    """The size in which an encoder takes a tile.

    A transformer that takes one size only is shown tiles of it; one that takes any, and networks
    that divide a picture evenly, are shown the next size that they can divide.
    """
    network: Any = encoder
    embedding = getattr(network, "patch_embed", None)
    if embedding is not None and getattr(embedding, "strict_img_size", False):
        return view
    unit = reduction(encoder)
    if embedding is None:
        return max(tile[0], unit), max(tile[1], unit)
    return math.ceil(tile[0] / unit) * unit, math.ceil(tile[1] / unit) * unit
