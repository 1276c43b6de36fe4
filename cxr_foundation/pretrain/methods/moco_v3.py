"""MoCo v3: predict the momentum encoder's key of the other view among the keys of a batch.

Written from the paper: Chen et al., "An Empirical Study of Training Self-Supervised Vision
Transformers" (arXiv 2104.02057).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather, own_rows
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.momentum import cosine, momentum_copy, update_momentum

__all__ = ["MocoV3", "MocoV3Settings", "contrast"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MocoV3Settings:
    """What MoCo v3 adds to an encoder.

    Attributes:
        momentum: Part of the momentum encoder that stays at each step, at the start; half a cosine
            takes it to 1 at the end of the run.
        temperature: Of the softmax over cosine similarities.
        hidden: Width of the hidden layers of projection head and predictor.
        dim: Length of the projected embedding.
        frozen_patch_embedding: Keep a transformer's patch embedding as it starts, which makes the
            training stable. Encoders without one are not touched.
    """

    # Section 6.2, "Momentum encoder": the best of 0, 0.9, 0.99 and 0.999.
    momentum: float = 0.99
    # Section 5, "Loss".
    temperature: float = 0.2
    # Section 5, "MLP heads".
    hidden: int = 4096
    # Section 5, "MLP heads".
    dim: int = 256
    # Section 4.2: "random patch projection", used in all experiments of section 6.
    frozen_patch_embedding: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum: {self.momentum!r} is not within [0, 1]")
        if not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature!r} is not above 0")
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")


def contrast(
    query: torch.Tensor, key: torch.Tensor, *, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE of this process's queries against the keys of all (equation 1), times 2 temperature.

    Args:
        query: (N, D), any length.
        key: (N, D), any length, without gradient; row i is the positive of query i.
        temperature: Of the softmax.

    Returns:
        The mean loss, and the share of queries whose positive beats every negative.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = F.normalize(query.float(), dim=1), F.normalize(key.float(), dim=1)
        keys = gather(key)
        own = own_rows(torch.arange(len(keys), device=query.device))
        logits = query @ keys.T / temperature
        # Section 5, "Loss": with this factor the gradient depends little on the temperature.
        loss = 2 * temperature * F.cross_entropy(logits, own)
    return loss, (logits.detach().argmax(1) == own).float().mean()


@METHODS.register("moco_v3")
class MocoV3(Method):
    """MoCo v3 around any encoder."""

    title = "MoCo v3"
    paper = "arXiv 2104.02057"
    Settings = MocoV3Settings
    full_views = 2

    def __init__(
        self, encoder: nn.Module, *, settings: MocoV3Settings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        patches = getattr(encoder, "patch_embed", None)
        if settings.frozen_patch_embedding and isinstance(patches, nn.Module):
            patches.requires_grad_(False)
        hidden, dim = settings.hidden, settings.dim
        with drawn_from(generator):
            # The last batch norms have no weights of their own in the authors' release.
            self.head = mlp(
                [num_features(encoder), hidden, hidden, dim],
                norm=True,
                last_norm="plain",
                bias=False,
            )
            self.predictor = mlp([dim, hidden, dim], norm=True, last_norm="plain", bias=False)
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_head = momentum_copy(self.head)
        self.momentum = settings.momentum
        self.temperature = settings.temperature

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss: each view looks for the key of the other.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Not needed; nothing is random.
            patients: Not needed; the paper knows none.

        Returns:
            "loss", the sum of both directions; "features" of the first view; "wins", the share of
            queries whose positive beats every negative.
        """
        first, second = views
        features = self.encoder(first)
        query = self.predictor(self.head(features))
        query_too = self.predictor(self.head(self.encoder(second)))
        with torch.no_grad():
            key = self.momentum_head(self.momentum_encoder(second))
            key_too = self.momentum_head(self.momentum_encoder(first))
        loss, wins = contrast(query, key, temperature=self.temperature)
        loss_too, wins_too = contrast(query_too, key_too, temperature=self.temperature)
        return {
            "loss": loss + loss_too,
            "features": features.detach(),
            "wins": (wins + wins_too) / 2,
        }

    def after_step(self, *, progress: float) -> None:
        """Move the momentum encoder and its head."""
        momentum = cosine(self.momentum, 1.0, progress)
        update_momentum(self.momentum_encoder, self.encoder, momentum=momentum)
        update_momentum(self.momentum_head, self.head, momentum=momentum)
