"""Barlow Twins: each feature agrees with itself over two views and with no other feature.

Written from the paper: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy
Reduction" (arXiv 2103.03230).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from cxr_foundation.pretrain.distributed import gather_with_gradient
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method

__all__ = ["BarlowTwins", "BarlowTwinsSettings", "redundancy"]

# Under the root of the standard deviation, so that a feature that is constant over the batch has a
# correlation of 0 and a gradient; torch's own default for batch norm.
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwinsSettings:
    """What Barlow Twins adds to an encoder.

    Attributes:
        redundancy_weight: Of correlations between different features, against those of a feature
            with itself (lambda).
        hidden: Width of the projector's two hidden layers.
        dim: Length of the projected embedding.
    """

    # Section 2.2, "Optimization".
    redundancy_weight: float = 5e-3
    # Section 2.2, "Architecture".
    hidden: int = 8192
    # Section 2.2, "Architecture".
    dim: int = 8192

    def __post_init__(self) -> None:
        if not self.redundancy_weight >= 0:
            raise ValueError(f"redundancy_weight: {self.redundancy_weight!r} is below 0")
        if self.hidden < 1:
            raise ValueError(f"hidden: {self.hidden!r} is not above 0")
        if self.dim < 2:
            raise ValueError(f"dim: {self.dim!r} is not above 1")


def redundancy(
    first: torch.Tensor, second: torch.Tensor, *, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of equations 1 and 2, over the views of all processes.

    Args:
        first: (N, D), embeddings of one view.
        second: (N, D), of the other, in the same order.
        weight: Of the correlations between different features.

    Returns:
        The loss, a sum over the D × D correlations; and the mean correlation of a feature with
        itself.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = (_standardised(gather_with_gradient(v.float())) for v in (first, second))
        correlation = first.T @ second / len(first)
        own = correlation.diagonal()
        others = correlation.square().sum() - own.square().sum()
        loss = (1 - own).square().sum() + weight * others
    return loss, own.detach().mean()


def _standardised(embeddings: torch.Tensor) -> torch.Tensor:
    centred = embeddings - embeddings.mean(0)
    return centred * (centred.square().mean(0) + _EPSILON).rsqrt()


@METHODS.register("barlow_twins")
class BarlowTwins(Method):
    """Barlow Twins around any encoder."""

    title = "Barlow Twins"
    paper = "arXiv 2103.03230"
    Settings = BarlowTwinsSettings
    full_views = 2

    def __init__(
        self, encoder: nn.Module, *, settings: BarlowTwinsSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            widths = [num_features(encoder), settings.hidden, settings.hidden, settings.dim]
            # The biases would be taken out again: by batch norm, and at the end by the loss.
            self.projector = mlp(widths, norm=True, bias=False)
        self.redundancy_weight = settings.redundancy_weight

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Not needed; nothing is random.
            patients: Not needed; there are no negatives.

        Returns:
            "loss"; "features" of the first view; "correlation", the mean correlation of a feature
            with itself.
        """
        first, second = views
        features = self.encoder(first)
        loss, correlation = redundancy(
            self.projector(features),
            self.projector(self.encoder(second)),
            weight=self.redundancy_weight,
        )
        return {"loss": loss, "features": features.detach(), "correlation": correlation}
