"""MoCo v2: contrast two views of one radiograph against a queue of earlier ones.

Written from the papers: He et al., "Momentum Contrast for Unsupervised Visual Representation
Learning" (arXiv 1911.05722) and Chen et al., "Improved Baselines with Momentum Contrastive
Learning" (arXiv 2003.04297).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.momentum import momentum_copy, update_momentum

__all__ = ["Moco", "MocoConfig", "collapse", "info_nce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MocoConfig:
    """What MoCo v2 adds to an encoder.

    Attributes:
        queue: Number of earlier keys that serve as negatives.
        momentum: Part of the momentum encoder that stays at each step.
        temperature: Of the softmax over cosine similarities.
        hidden: Width of the projection head's hidden layer; None means the encoder's own.
        dim: Length of the projected embedding.
        split_batch_norm: Images that share batch statistics; None means the whole batch.
    """

    queue: int = 65536
    momentum: float = 0.999
    temperature: float = 0.2
    hidden: int | None = None
    dim: int = 128
    split_batch_norm: int | None = 32

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


def info_nce(
    query: torch.Tensor, key: torch.Tensor, queue: torch.Tensor, *, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE with one positive and a queue of negatives (equation 1 of arXiv 1911.05722).

    Args:
        query: (N, D), unit length.
        key: (N, D), unit length; row i is the positive of query i.
        queue: (K, D), unit length; negatives of every query.
        temperature: Of the softmax.

    Returns:
        The mean loss, and the share of queries whose positive beats every negative.
    """
    positive = (query * key).sum(1, keepdim=True)
    negative = query @ queue.T
    logits = torch.cat([positive, negative], dim=1) / temperature
    loss = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
    wins = (positive > negative.amax(1, keepdim=True)).float().mean()
    return loss, wins.detach()


class Moco(nn.Module):
    """MoCo v2 around any encoder; all of its state is in its state dict.

    Args:
        encoder: Images (N, C, H, W) → features (N, `num_features`).
        num_features: Length of the encoder's features.
        config: Queue, head, momentum and temperature.
        generator: Draws the first queue and the head's weights.
    """

    queue: torch.Tensor
    pointer: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        num_features: int,
        config: MocoConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = _projection_head(
            num_features, config.hidden or num_features, config.dim, generator
        )
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_head = momentum_copy(self.head)
        queue = torch.randn(config.queue, config.dim, generator=generator)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.momentum = config.momentum
        self.temperature = config.temperature
        # An encoder without batch statistics has nothing to leak, and runs faster whole.
        normalises = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
        self.group = config.split_batch_norm if normalises else None
        # Convolutions run faster on a CPU and on a GPU with channels last in memory, but a
        # safetensors file holds only contiguous tensors.
        self.to(memory_format=torch.channels_last)
        self.register_state_dict_post_hook(_make_contiguous)  # type: ignore[no-untyped-call]

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, key_order: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One training step's loss; the keys enter the queue.

        Args:
            query: (N, C, H, W) views.
            key: (N, C, H, W) other views of the same radiographs, in the same order.
            key_order: (N,) permutation in which the keys are grouped for batch statistics.

        Returns:
            "loss"; "features" (N, `num_features`) of the queries; "wins", the share of queries
            whose positive beats every negative. The last two carry no gradient.
        """
        features = self._encode(self.encoder, query)
        projected = F.normalize(self.head(features), dim=1)
        with torch.no_grad():
            keys = self._keys(key, key_order)
        loss, wins = info_nce(
            projected.float(), keys, self.queue.clone(), temperature=self.temperature
        )
        if self.training:
            self._enqueue(keys)
        return {"loss": loss, "features": features.detach(), "wins": wins}

    @torch.no_grad()
    def _keys(self, key: torch.Tensor, key_order: torch.Tensor) -> torch.Tensor:
        # In other groups than the queries': a query must not know its own key by the statistics
        # of the images that it was normalised with.
        shuffled = self._encode(self.momentum_encoder, key[key_order])
        features = torch.empty_like(shuffled)
        features[key_order] = shuffled
        return F.normalize(self.momentum_head(features), dim=1).float()

    def _encode(self, encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self.group is None:
            return _features(encoder, images)
        return torch.cat([_features(encoder, part) for part in torch.split(images, self.group)])

    @torch.no_grad()
    def _enqueue(self, keys: torch.Tensor) -> None:
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def after_step(self) -> None:
        """Move the momentum encoder and its head; called once after each optimiser step."""
        update_momentum(self.momentum_encoder, self.encoder, momentum=self.momentum)
        update_momentum(self.momentum_head, self.head, momentum=self.momentum)


def _make_contiguous(
    module: nn.Module, state: dict[str, torch.Tensor], prefix: str, metadata: object
) -> None:
    for name in [n for n in state if n.startswith(prefix)]:
        state[name] = state[name].contiguous()


def _features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = encoder(images)
    return features


def _projection_head(
    num_features: int, hidden: int, dim: int, generator: torch.Generator
) -> nn.Sequential:
    """The two-layer head of MoCo v2, with torch's own initialisation of linear layers."""
    head = nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, dim))
    with torch.no_grad():
        for layer in head:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    return head


def collapse(features: torch.Tensor) -> Mapping[str, float]:
    """How far features are from collapse.

    Args:
        features: (N, D), a batch.

    Returns:
        "feature_std": mean over dimensions of the standard deviation of unit-length features,
        times the root of D: about 1 if they fill the sphere, 0 if all are alike.
        "effective_rank": exponential of the entropy of the normalised singular values of the
        centred features (Roy & Vetterli 2007): 1 if they lie on a line.
    """
    unit = F.normalize(features.float(), dim=1)
    std = unit.std(0).mean() * unit.shape[1] ** 0.5
    values = torch.linalg.svdvals((features - features.mean(0)).float())
    share = values / values.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return {"feature_std": float(std), "effective_rank": float(entropy.exp())}
