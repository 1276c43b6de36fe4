"""MoCo v2: contrast two views of one radiograph against a queue of earlier ones.

Written from the papers: He et al., "Momentum Contrast for Unsupervised Visual Representation
Learning" (arXiv 1911.05722) and Chen et al., "Improved Baselines with Momentum Contrastive
Learning" (arXiv 2003.04297).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import from_first, gather, own_rows
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.momentum import momentum_copy, update_momentum

__all__ = ["MocoV2", "MocoV2Settings", "info_nce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MocoV2Settings:
    """What MoCo v2 adds to an encoder.

    Attributes:
        queue: Number of earlier keys that serve as negatives.
        momentum: Part of the momentum encoder that stays at each step.
        temperature: Of the softmax over cosine similarities.
        hidden: Width of the projection head's hidden layer; None means the encoder's own.
        dim: Length of the projected embedding.
        split_batch_norm: Images that share batch statistics; None means the whole batch.
        same_patient_negatives: Whether other radiographs of a query's own patient are negatives.
    """

    queue: int = 65536
    momentum: float = 0.999
    temperature: float = 0.2
    hidden: int | None = None
    dim: int = 128
    split_batch_norm: int | None = 32
    same_patient_negatives: bool = True

    def __post_init__(self) -> None:
        for name in ("queue", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("hidden", "split_batch_norm"):
            if (value := getattr(self, name)) is not None and value < 2:
                raise ValueError(f"{name}: {value!r} is not above 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum!r} is not within [0, 1)")
        if not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature!r} is not above 0")

    def check(self, batch: int) -> None:
        """Raise ValueError("field: reason") unless these settings fit `batch` radiographs."""
        group = self.split_batch_norm
        if group is not None and (batch % group or batch < 2 * group):
            raise ValueError(
                f"split_batch_norm: train.batch ({batch}) is not two or more whole groups "
                f"of {group}"
            )
        if self.queue < batch:
            raise ValueError(f"queue: smaller than a batch ({batch})")


def info_nce(
    query: torch.Tensor,
    key: torch.Tensor,
    queue: torch.Tensor,
    *,
    temperature: float,
    excluded: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE with one positive and a queue of negatives (equation 1 of arXiv 1911.05722).

    Args:
        query: (N, D), unit length.
        key: (N, D), unit length; row i is the positive of query i.
        queue: (K, D), unit length; negatives of every query.
        temperature: Of the softmax.
        excluded: bool (N, K), True where a row of the queue is no negative of a query.

    Returns:
        The mean loss, and the share of queries whose positive beats every negative.
    """
    positive = (query * key).sum(1, keepdim=True)
    negative = query @ queue.T
    if excluded is not None:
        negative = negative.masked_fill(excluded, -torch.inf)
    logits = torch.cat([positive, negative], dim=1) / temperature
    loss = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
    wins = (positive > negative.amax(1, keepdim=True)).float().mean()
    return loss, wins.detach()


@METHODS.register("moco_v2")
class MocoV2(Method):
    """MoCo v2 around any encoder.

    Batch statistics leak which key belongs to a query. So statistics are those of groups of
    `split_batch_norm` images, and the keys lie in other groups than the queries: they are shuffled
    over all groups of all processes.
    """

    title = "MoCo v2"
    paper = "arXiv 2003.04297"
    Settings = MocoV2Settings
    full_views = 2
    joins_batch_norms = False

    queue: torch.Tensor
    queue_patients: torch.Tensor
    pointer: torch.Tensor

    def __init__(
        self, encoder: nn.Module, *, settings: MocoV2Settings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        width = num_features(encoder)
        with drawn_from(generator):
            self.head = mlp([width, settings.hidden or width, settings.dim])
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_head = momentum_copy(self.head)
        queue = torch.randn(settings.queue, settings.dim, generator=generator)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("queue_patients", torch.full((settings.queue,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.momentum = settings.momentum
        self.temperature = settings.temperature
        self.same_patient_negatives = settings.same_patient_negatives
        # An encoder without batch statistics has nothing to leak, and runs faster whole.
        normalises = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
        self.group = settings.split_batch_norm if normalises else None

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss; the keys enter the queue.

        Args:
            views: Queries and keys, (N, C, h, w) each.
            draw: Seed of the order in which the keys are grouped.
            patients: int64 (N,), not negative.

        Returns:
            "loss"; "features" of the queries; "wins", the share of queries whose positive beats
            every negative.
        """
        query, key = views
        features = self._encode(self.encoder, query)
        projected = F.normalize(self.head(features), dim=1)
        with torch.no_grad():
            keys = self._keys(key, draw)
        excluded = None
        if patients is not None and not self.same_patient_negatives:
            excluded = patients[:, None] == self.queue_patients
        loss, wins = info_nce(
            projected.float(),
            keys,
            self.queue.clone(),
            temperature=self.temperature,
            excluded=excluded,
        )
        if self.training:
            self._enqueue(keys, patients)
        return {"loss": loss, "features": features.detach(), "wins": wins}

    def _keys(self, key: torch.Tensor, draw: int) -> torch.Tensor:
        images = gather(key)
        order = _shuffled(len(images), from_first(draw, like=images)).to(images.device)
        shuffled = gather(self._encode(self.momentum_encoder, own_rows(images[order])))
        features = torch.empty_like(shuffled)
        features[order] = shuffled
        return F.normalize(self.momentum_head(own_rows(features)), dim=1).float()

    def _encode(self, encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self.group is None:
            return _features(encoder, images)
        return torch.cat([_features(encoder, part) for part in torch.split(images, self.group)])

    @torch.no_grad()
    def _enqueue(self, keys: torch.Tensor, patients: torch.Tensor | None) -> None:
        if patients is None:
            patients = torch.full((len(keys),), -1, device=keys.device)
        keys, patients = gather(keys), gather(patients)
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.queue_patients[places] = patients
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def after_step(self, *, progress: float) -> None:
        """Move the momentum encoder and its head."""
        update_momentum(self.momentum_encoder, self.encoder, momentum=self.momentum)
        update_momentum(self.momentum_head, self.head, momentum=self.momentum)


def _shuffled(count: int, draw: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(draw))


def _features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = encoder(images)
    return features
