"""VICReg: views that agree, features that vary, and features that are not correlated.

Written from the paper: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
Self-Supervised Learning" (arXiv 2105.04906).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather_with_gradient
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method

__all__ = ["VICReg", "VICRegSettings", "covariance", "invariance", "variance"]

# Section 4.2: under the root of the standard deviation.
_EPSILON = 1e-4
# Section 4.1: the standard deviation that every feature should have, gamma.
_STD = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICRegSettings:
    """What VICReg adds to an encoder.

    Attributes:
        invariance: Weight of the distance between the two views (lambda).
        variance: Weight of features that vary too little (mu).
        covariance: Weight of correlated features (nu).
        hidden: Width of the expander's two hidden layers.
        dim: Length of the expanded embedding.
    """

    # Section 4.2.
    invariance: float = 25.0
    # Section 4.2.
    variance: float = 25.0
    # Section 4.2.
    covariance: float = 1.0
    # Section 4.2.
    hidden: int = 8192
    # Section 4.2.
    dim: int = 8192

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is below 0")
        if self.hidden < 1:
            raise ValueError(f"hidden: {self.hidden!r} is not above 0")
        if self.dim < 2:
            raise ValueError(f"dim: {self.dim!r} is not above 1")


def invariance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean squared difference (N, D), (N, D) → scalar.

    Equation 5 divides by N alone; the paper's algorithm 1 by N × D, and so does this.
    """
    return F.mse_loss(first, second)


def variance(embeddings: torch.Tensor) -> torch.Tensor:
    """How far standard deviations over the batch fall short of 1 (equation 1).

    Args:
        embeddings: (N, D), N above 1.

    Returns:
        The mean over features, in [0, 1].
    """
    return F.relu(_STD - (embeddings.var(0) + _EPSILON).sqrt()).mean()


def covariance(embeddings: torch.Tensor) -> torch.Tensor:
    """Squared covariances between different features, summed and divided by D (equation 4).

    Args:
        embeddings: (N, D), N above 1.

    Returns:
        A scalar.
    """
    centred = embeddings - embeddings.mean(0)
    matrix = centred.T @ centred / (len(centred) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / embeddings.shape[1]


@METHODS.register("vicreg")
class VICReg(Method):
    """VICReg around any encoder."""

    title = "VICReg"
    paper = "arXiv 2105.04906"
    Settings = VICRegSettings
    full_views = 2

    def __init__(
        self, encoder: nn.Module, *, settings: VICRegSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            widths = [num_features(encoder), settings.hidden, settings.hidden, settings.dim]
            self.expander = mlp(widths, norm=True)
        self.weights = (settings.invariance, settings.variance, settings.covariance)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Not needed; nothing is random.
            patients: Not needed; there are no negatives.

        Returns:
            "loss"; "features" of the first view; "invariance", "variance" and "covariance", its
            terms without their weights.
        """
        first, second = views
        features = self.encoder(first)
        one, other = self.expander(features), self.expander(self.encoder(second))
        with torch.autocast(one.device.type, enabled=False):
            terms = self._terms(one.float(), other.float())
            loss = sum(
                (w * term for w, term in zip(self.weights, terms.values(), strict=True)),
                start=torch.zeros((), device=one.device),
            )
        logged = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss, "features": features.detach(), **logged}

    def _terms(self, one: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        """The terms over the views of all processes, in the order of the weights."""
        one, other = gather_with_gradient(one), gather_with_gradient(other)
        return {
            "invariance": invariance(one, other),
            # Equation 6 adds the variance terms of both views; the authors' release takes their
            # mean, with the same weights.
            "variance": (variance(one) + variance(other)) / 2,
            "covariance": covariance(one) + covariance(other),
        }
