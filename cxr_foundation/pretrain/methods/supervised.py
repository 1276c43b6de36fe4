"""Supervised classification, as the start that self-supervision is compared with.

Verma & Tapaswi (arXiv 2211.12931) compare starts that were trained with labels and without, and one
after the other. As a stage of a recipe, labels of one source can stand before self-supervision on
another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method

__all__ = ["Supervised", "SupervisedSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedSettings:
    """What is told apart.

    Attributes:
        classes: Labels of the data set. A radiograph that carries none of them, or several, is
            seen but not asked about.
        smoothing: Of the labels, from 0 to below 1.
    """

    classes: tuple[str, ...] = ("normal", "abnormal")
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {list(self.classes)!r} are not two or more names")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: {self.smoothing!r} is not within [0, 1)")


@METHODS.register("supervised")
class Supervised(Method):
    """A linear head on the pooled features, and the cross-entropy of one class in several."""

    title = "supervised classification"
    paper = "with labels"
    Settings = SupervisedSettings
    full_views = 1

    def __init__(
        self, encoder: nn.Module, *, settings: SupervisedSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            self.head = nn.Linear(num_features(encoder), len(settings.classes))
        self.smoothing = settings.smoothing

    def forward(
        self,
        views: Sequence[torch.Tensor],
        *,
        draw: int,
        patients: torch.Tensor | None = None,
        classes: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy over the radiographs that have a class.

        Args:
            views: One view (N, C, h, w).
            draw: Not used; nothing is random.
            patients: Not used.
            classes: int64 (N,), -1 where there is none.

        Returns:
            "loss"; "features"; "accuracy", of those that have a class.
        """
        features = self.encoder(views[0])
        logits = self.head(features).float()
        if classes is None:
            classes = torch.full((len(logits),), -1, device=logits.device)
        asked = classes >= 0
        # A batch without any class has a loss of 0 that still reaches every parameter.
        each = F.cross_entropy(
            logits, classes.clamp_min(0), reduction="none", label_smoothing=self.smoothing
        )
        count = asked.sum().clamp_min(1)
        right = (logits.argmax(1) == classes) & asked
        return {
            "loss": (each * asked).sum() / count,
            "features": features.detach(),
            "accuracy": (right.sum() / count).detach(),
        }
