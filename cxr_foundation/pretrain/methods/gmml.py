"""GMML: draw what was hidden of a radiograph from what is left of it.

Written from the paper: Atito et al., "GMML is All you Need" (arXiv 2205.14986), and a description
of its code (https://github.com/Sara-Ahmed/GMML at 1882712).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from cxr_foundation.pretrain.maps import reduction
from cxr_foundation.pretrain.masks import AS_USUAL, Corruption, corrupt
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.reconstruct import (
    ReconstructionHead,
    check_blocks,
    l1,
    looked_at,
    pooled_and_mean_map,
)

__all__ = ["Gmml", "GmmlSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GmmlSettings:
    """What GMML adds to an encoder.

    Attributes:
        corruption: What is hidden, and by what.
        whole_picture: Whether the loss is over all pixels; else over the hidden ones.
        blocks: Blocks of a vision transformer, counted from 1, whose mean output is drawn from;
            None draws from the last one, as every other network does.
    """

    corruption: Corruption = AS_USUAL
    whole_picture: bool = False
    blocks: tuple[int, ...] | None = None


@METHODS.register("gmml")
class Gmml(Method):
    """GMML around any encoder that has a map."""

    title = "GMML"
    paper = "arXiv 2205.14986"
    Settings = GmmlSettings
    full_views = 1
    looks_at_map = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        settings: GmmlSettings,
        channels: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder)
        check_blocks(encoder, settings.blocks)
        self.head = ReconstructionHead(encoder, channels=channels, generator=generator)
        self.settings = settings
        self.align = reduction(encoder)

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: GmmlSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Gmml:
        """See `Method.build`."""
        return cls(encoder, settings=settings, channels=view[0], generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: One, (N, C, h, w).
            draw: Seed of what is hidden, and by what.
            patients: Not used.

        Returns:
            "loss", the mean absolute difference in standard deviations of the pixels; "features" of
            the corrupted view; "hidden", the part of the pixels that was.
        """
        (clean,) = views
        corrupted, mask = corrupt(clean, self.settings.corruption, align=self.align, draw=draw)
        pooled, output = self._drawn(corrupted)
        loss = l1(output, clean, None if self.settings.whole_picture else mask)
        return {"loss": loss, "features": pooled.detach(), "hidden": mask.float().mean()}

    def _drawn(self, corrupted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features, and the whole picture as it is thought to be."""
        pooled, places = pooled_and_mean_map(self.encoder, corrupted, blocks=self.settings.blocks)
        return pooled, self.head(places, size=corrupted.shape[-2:])

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """The view, what is left of it, and what is drawn of that."""
        clean = views[0]
        corrupted, _ = corrupt(clean, self.settings.corruption, align=self.align, draw=draw)
        with looked_at(self):
            output = self._drawn(corrupted)[1]
        return {"input": clean, "masked": corrupted, "output": output}
