"""BYOL: predict what a slowly moving copy of the encoder makes of the other view.

Written from the paper: Grill et al., "Bootstrap Your Own Latent" (arXiv 2006.07733).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.momentum import cosine, momentum_copy, update_momentum

__all__ = ["BYOL", "BYOLSettings", "regression"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BYOLSettings:
    """What BYOL adds to an encoder.

    Attributes:
        momentum: Part of the teacher that stays at each step, at the start; half a cosine takes it
            to 1 at the end of the run.
        hidden: Width of the hidden layer of projector and predictor.
        dim: Length of the projected embedding.
    """

    # Section 3.3, "Optimization".
    momentum: float = 0.996
    # Section 3.3, "Architecture".
    hidden: int = 4096
    # Section 3.3, "Architecture".
    dim: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum: {self.momentum!r} is not within [0, 1]")
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")


def regression(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared distance of unit-length rows, 2 - 2 cosine (equation 2), as a mean.

    Args:
        prediction: (N, D), any length.
        target: (N, D), any length; row i is what row i predicts.

    Returns:
        A scalar in [0, 4].
    """
    cosines = F.cosine_similarity(prediction.float(), target.float(), dim=1)
    return 2 - 2 * cosines.mean()


@METHODS.register("byol")
class BYOL(Method):
    """BYOL around any encoder. What is published is the student's encoder, as in the paper."""

    title = "BYOL"
    paper = "arXiv 2006.07733"
    Settings = BYOLSettings
    full_views = 2

    def __init__(
        self, encoder: nn.Module, *, settings: BYOLSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            widths = [num_features(encoder), settings.hidden, settings.dim]
            self.projector = mlp(widths, norm=True)
            self.predictor = mlp([settings.dim, settings.hidden, settings.dim], norm=True)
        self.teacher_encoder = momentum_copy(self.encoder)
        self.teacher_projector = momentum_copy(self.projector)
        self.momentum = settings.momentum

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss: each view predicts the other.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Not needed; nothing is random.
            patients: Not needed; there are no negatives.

        Returns:
            "loss", the sum of both directions; "features" of the first view.
        """
        first, second = views
        features = self.encoder(first)
        predicted = self.predictor(self.projector(features))
        predicted_too = self.predictor(self.projector(self.encoder(second)))
        with torch.no_grad():
            target = self.teacher_projector(self.teacher_encoder(second))
            target_too = self.teacher_projector(self.teacher_encoder(first))
        loss = regression(predicted, target) + regression(predicted_too, target_too)
        return {"loss": loss, "features": features.detach()}

    def after_step(self, *, progress: float) -> None:
        """Move the teacher."""
        momentum = cosine(self.momentum, 1.0, progress)
        update_momentum(self.teacher_encoder, self.encoder, momentum=momentum)
        update_momentum(self.teacher_projector, self.projector, momentum=momentum)
