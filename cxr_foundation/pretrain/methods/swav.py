"""SwAV: tell from one view which prototypes another view of the radiograph belongs to.

Written from the paper: Caron et al., "Unsupervised Learning of Visual Features by Contrasting
Cluster Assignments" (arXiv 2006.09882).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather, own_rows
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features, pooled_by_size
from cxr_foundation.pretrain.method import METHODS, Method

__all__ = ["SwAV", "SwAVSettings", "sinkhorn", "swapped_prediction"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAVSettings:
    """What SwAV adds to an encoder.

    Attributes:
        temperature: Of the softmax over prototypes.
        epsilon: Of the assignment: the smaller, the harder.
        iterations: Of the Sinkhorn-Knopp algorithm.
        prototypes: Number of prototypes.
        hidden: Width of the projection head's hidden layer.
        dim: Length of the projected embedding.
        queue: Number of earlier embeddings of each full view that are assigned along with a
            batch; for batches that are small against the number of prototypes.
        queue_from: Part of the run after which the queue is used, if it is full.
        prototypes_held: Part of the run, at its start, in which the prototypes do not learn.
    """

    # Appendix A.1.
    temperature: float = 0.1
    # Appendix A.1.
    epsilon: float = 0.05
    # Section 3.1, "Computing codes online".
    iterations: int = 3
    # Section 3.1, "Computing codes online": 3 thousand codes.
    prototypes: int = 3000
    # The authors' release, for a ResNet-50.
    hidden: int = 2048
    # Appendix A.1.
    dim: int = 128
    # Appendix A.1 has none with batches of 4096; A.6 has 3840 with batches of 256.
    queue: int = 0
    # Appendix A.6: after 15 epochs; of 200.
    queue_from: float = 0.075
    # Appendix A.1: the first epoch; of 100.
    prototypes_held: float = 0.01

    def __post_init__(self) -> None:
        for name in ("temperature", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("iterations", "prototypes", "hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        if self.queue < 0:
            raise ValueError(f"queue: {self.queue!r} is below 0")
        for name in ("queue_from", "prototypes_held"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not within [0, 1]")

    def check(self, batch: int) -> None:
        """Raise ValueError("field: reason") unless these settings fit `batch` radiographs."""
        if self.queue and self.queue < batch:
            raise ValueError(f"queue: smaller than a batch ({batch})")


@torch.no_grad()
def sinkhorn(scores: torch.Tensor, *, epsilon: float, iterations: int) -> torch.Tensor:
    """Soft assignments that use every prototype equally often (equations 3 to 5).

    Computed with logarithms: exponentials of scores / epsilon overflow for a small epsilon.

    Args:
        scores: float32 (N, K), of embeddings with prototypes.
        epsilon: Weight of the entropy.
        iterations: How often prototypes and then embeddings are brought to equal sums.

    Returns:
        (N, K); each row has the sum 1, each column about N / K.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(0, keepdim=True)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()


def swapped_prediction(
    scores: Sequence[torch.Tensor], codes: Sequence[torch.Tensor], *, temperature: float
) -> torch.Tensor:
    """Cross-entropy of every pair of a code and another view's scores (equation 2).

    Args:
        scores: (N, K) for each view.
        codes: (N, K) for each of the first views, without gradient.
        temperature: Of the softmax over scores.

    Returns:
        The mean over pairs and radiographs.
    """
    logs = [F.log_softmax(s / temperature, dim=1) for s in scores]
    pairs = [
        -(code * log).sum(1).mean()
        for (i, code), (j, log) in itertools.product(enumerate(codes), enumerate(logs))
        if i != j
    ]
    return torch.stack(pairs).mean()


@METHODS.register("swav")
class SwAV(Method):
    """SwAV around any encoder.

    Local views need an encoder that takes pictures of several sizes.
    """

    title = "SwAV"
    paper = "arXiv 2006.09882"
    Settings = SwAVSettings
    full_views = 2
    local_views = True

    queue: torch.Tensor
    stored: torch.Tensor
    queue_due: torch.Tensor
    prototypes_learn: torch.Tensor

    def __init__(
        self, encoder: nn.Module, *, settings: SwAVSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        dim = settings.dim
        with drawn_from(generator):
            self.head = mlp([num_features(encoder), settings.hidden, dim], norm=True)
            self.prototypes = nn.Linear(dim, settings.prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(self.full_views, settings.queue, dim))
        self.register_buffer("stored", torch.zeros((), dtype=torch.long))
        # What the next step needs of how far the run is; a step does not know it.
        self.register_buffer("queue_due", torch.zeros((), dtype=torch.bool))
        self.register_buffer("prototypes_learn", torch.zeros(()))
        self.settings = settings
        self._normalise()
        self._schedule(0.0)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss; the embeddings of the full views enter the queue.

        Args:
            views: Two full views (N, C, h, w), then the local ones.
            draw: Not needed; nothing is random.
            patients: Not needed; there are no negatives.

        Returns:
            "loss"; "features" of the first view; "agreement", the share of radiographs whose two
            full views have the same prototype as their nearest.
        """
        count = len(views[0])
        features = pooled_by_size(self.encoder, views)
        embedded = F.normalize(self.head(features).float(), dim=1)
        with torch.autocast(embedded.device.type, enabled=False):
            # Not by requires_grad: the optimiser takes up what it will train when it is built.
            weight = self.prototypes.weight
            weight = torch.lerp(weight.detach(), weight, self.prototypes_learn)
            scores = torch.split(F.linear(embedded, weight), count)
            full = torch.split(embedded.detach(), count)[: self.full_views]
            codes = [self._codes(i, scores[i].detach(), weight.detach()) for i in range(len(full))]
            loss = swapped_prediction(scores, codes, temperature=self.settings.temperature)
        if self.training and self.settings.queue:
            self._enqueue(full)
        nearest = [s.detach().argmax(1) for s in scores[:2]]
        agreement = (nearest[0] == nearest[1]).float().mean()
        return {"loss": loss, "features": features[:count].detach(), "agreement": agreement}

    def _codes(self, view: int, scores: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Codes (N, K) of this process's rows, assigned along with all others."""
        together = gather(scores)
        batch = len(together)
        if self.settings.queue and self.queue_due and self.stored >= self.settings.queue:
            together = torch.cat([together, F.linear(self.queue[view], weight)])
        codes = sinkhorn(
            together, epsilon=self.settings.epsilon, iterations=self.settings.iterations
        )
        return own_rows(codes[:batch])

    @torch.no_grad()
    def _enqueue(self, full: Sequence[torch.Tensor]) -> None:
        rows = torch.stack([gather(view) for view in full])[:, -self.settings.queue :]
        places = torch.arange(rows.shape[1], device=rows.device)
        self.queue[:, (self.stored + places) % self.settings.queue] = rows
        self.stored.add_(rows.shape[1])

    def after_step(self, *, progress: float) -> None:
        """Bring the prototypes back to unit length."""
        self._normalise()
        self._schedule(progress)

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def _schedule(self, progress: float) -> None:
        self.queue_due.fill_(progress >= self.settings.queue_from)
        self.prototypes_learn.fill_(float(progress >= self.settings.prototypes_held))
