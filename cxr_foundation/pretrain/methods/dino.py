"""DINO: tell what a slowly moving teacher says of a whole view, from any view.

Written from the paper: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers"
(arXiv 2104.14294).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features, pooled_by_size
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.momentum import cosine, momentum_copy, update_momentum

__all__ = ["DINO", "DINOSettings", "distillation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOSettings:
    """What DINO adds to an encoder.

    Attributes:
        momentum: Part of the teacher that stays at each step, at the start; half a cosine takes it
            to 1 at the end of the run.
        student_temperature: Of the student's softmax.
        teacher_temperature: Of the teacher's softmax, after the warm-up.
        teacher_temperature_start: Of the teacher's softmax at the first step.
        teacher_warmup: Part of the run over which it rises linearly.
        centre_momentum: Part of the centre that stays at each batch.
        hidden: Width of the head's two hidden layers.
        bottleneck: Length of the unit-length embedding before the last layer.
        prototypes: Length of the output, K.
        last_layer_held: Part of the run, at its start, in which the last layer does not learn.
    """

    # Section 3.1, "Teacher network".
    momentum: float = 0.996
    # Section 3.2, "Implementation details".
    student_temperature: float = 0.1
    # Section 3.2, "Implementation details".
    teacher_temperature: float = 0.07
    # Section 3.2, "Implementation details".
    teacher_temperature_start: float = 0.04
    # Section 3.2: 30 epochs; of the 300 of the ablations in section 5.
    teacher_warmup: float = 0.1
    # Appendix D: 0, 0.9 and 0.99 do equally well, 0.999 collapses.
    centre_momentum: float = 0.9
    # Section 3.1, "Network architecture".
    hidden: int = 2048
    # Appendix C.
    bottleneck: int = 256
    # Appendix C.
    prototypes: int = 65536
    # The first epoch in the authors' release; of 100.
    last_layer_held: float = 0.01

    def __post_init__(self) -> None:
        for name in ("momentum", "centre_momentum", "teacher_warmup", "last_layer_held"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not within [0, 1]")
        for name in ("student_temperature", "teacher_temperature", "teacher_temperature_start"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("hidden", "bottleneck", "prototypes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")


def distillation(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    *,
    student_temperature: float,
    teacher_temperature: float | torch.Tensor,
    centre: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every pair of a teacher's and another view of the student (equation 3).

    Args:
        student: (N, K) for each view.
        teacher: (N, K) for each of the first views, without gradient.
        student_temperature: Of the student's softmax.
        teacher_temperature: Of the teacher's softmax.
        centre: (K,), taken off the teacher's outputs.

    Returns:
        The mean over pairs and radiographs, and the mean entropy of the teacher's answers: 0 if
        they all name one prototype with certainty, log K if they say nothing.
    """
    logs = [F.log_softmax(s.float() / student_temperature, dim=1) for s in student]
    targets = [F.softmax((t.float() - centre) / teacher_temperature, dim=1) for t in teacher]
    pairs = [
        -(target * log).sum(1).mean()
        for (i, target), (j, log) in itertools.product(enumerate(targets), enumerate(logs))
        if i != j
    ]
    entropy = torch.stack([torch.special.entr(target).sum(1).mean() for target in targets])
    return torch.stack(pairs).mean(), entropy.mean()


class _Head(nn.Module):
    """MLP, unit length, and a linear layer whose rows have unit length."""

    def __init__(self, width: int, settings: DINOSettings) -> None:
        super().__init__()
        hidden, bottleneck = settings.hidden, settings.bottleneck
        self.mlp = mlp([width, hidden, hidden, bottleneck], activation=nn.GELU)
        self.last = nn.Linear(bottleneck, settings.prototypes, bias=False)

    def forward(self, features: torch.Tensor, *, learns: torch.Tensor) -> torch.Tensor:
        """(N, D) → (N, K); `learns` is 0 or 1, a factor on the last layer's gradient."""
        embedded = F.normalize(self.mlp(features).float(), dim=1)
        # Not by requires_grad: the optimiser takes up what it will train when it is built.
        weight = torch.lerp(self.last.weight.detach(), self.last.weight, learns)
        return F.linear(embedded, F.normalize(weight, dim=1))


@METHODS.register("dino")
class DINO(Method):
    """DINO around any encoder; the teacher is what is published.

    Local views need an encoder that takes pictures of several sizes.
    """

    title = "DINO"
    paper = "arXiv 2104.14294"
    Settings = DINOSettings
    full_views = 2
    local_views = True

    centre: torch.Tensor
    teacher_temperature: torch.Tensor
    last_layer_learns: torch.Tensor

    def __init__(
        self, encoder: nn.Module, *, settings: DINOSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            self.head = _Head(num_features(encoder), settings)
        self.teacher_encoder = momentum_copy(self.encoder)
        self.teacher_head = momentum_copy(self.head)
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        # What the next step needs of how far the run is; a step does not know it.
        self.register_buffer("teacher_temperature", torch.zeros(()))
        self.register_buffer("last_layer_learns", torch.zeros(()))
        self.settings = settings
        self._schedule(0.0)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss; the centre moves.

        Args:
            views: Two full views (N, C, h, w), then the local ones.
            draw: Not needed; nothing is random.
            patients: Not needed; there are no negatives.

        Returns:
            "loss"; "features" of the first view by the student; "teacher_entropy", between 0 and
            log K: a teacher that has collapsed is at one of the ends.
        """
        count = len(views[0])
        features = pooled_by_size(self.encoder, views)
        student = self.head(features, learns=self.last_layer_learns).split(count)
        with torch.no_grad():
            answers = self.teacher_head(
                pooled_by_size(self.teacher_encoder, views[: self.full_views]),
                learns=self.last_layer_learns,
            ).float()
        loss, entropy = distillation(
            student,
            answers.split(count),
            student_temperature=self.settings.student_temperature,
            teacher_temperature=self.teacher_temperature,
            centre=self.centre,
        )
        if self.training:
            mean = gather(answers.mean(0, keepdim=True)).mean(0)
            self.centre.lerp_(mean, 1 - self.settings.centre_momentum)
        return {"loss": loss, "features": features[:count].detach(), "teacher_entropy": entropy}

    def after_step(self, *, progress: float) -> None:
        """Move the teacher and its temperature."""
        momentum = cosine(self.settings.momentum, 1.0, progress)
        update_momentum(self.teacher_encoder, self.encoder, momentum=momentum)
        update_momentum(self.teacher_head, self.head, momentum=momentum)
        self._schedule(progress)

    def _schedule(self, progress: float) -> None:
        s = self.settings
        risen = min(1.0, progress / s.teacher_warmup) if s.teacher_warmup else 1.0
        start, end = s.teacher_temperature_start, s.teacher_temperature
        self.teacher_temperature.fill_(start + (end - start) * risen)
        self.last_layer_learns.fill_(float(progress >= s.last_layer_held))

    def result(self) -> nn.Module:
        """The teacher's encoder: section 3.1 finds it better than the student all along."""
        return self.teacher_encoder
