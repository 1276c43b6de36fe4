"""SiT, and with it SPCXR: draw what was hidden, and recognise the whole by its rest.

Written from the papers: Atito et al., "SiT: Self-supervised vIsion Transformer" (arXiv 2104.03602)
and Anwar et al., "SPCXR" (arXiv 2211.12944), and a description of SiT's code
(https://github.com/Sara-Ahmed/SiT at 7f22e9c).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather, rank
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features, pooled_and_map, reduction
from cxr_foundation.pretrain.masks import AS_USUAL, Corruption, corrupt
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.momentum import cosine, momentum_copy, update_momentum
from cxr_foundation.pretrain.reconstruct import ReconstructionHead, l1, looked_at

__all__ = ["Sit", "SitSettings", "contrast"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SitSettings:
    """What SiT adds to an encoder.

    Attributes:
        corruption: What is hidden of the student's views, and by what.
        reconstruction: Weight of the reconstruction's loss; that of the contrast is 1.
        temperature: Of the softmax over cosine similarities.
        momentum: Part of the teacher that stays at the first step.
        momentum_end: At the last step, by half a cosine.
        hidden: Width of the projection head's hidden layers.
        dim: Length of the projected embedding.
        result: Which encoder is published.
        same_patient_negatives: Whether other radiographs of the same patient are negatives.
    """

    corruption: Corruption = AS_USUAL
    reconstruction: float = 1.0
    temperature: float = 0.2
    momentum: float = 0.996
    momentum_end: float = 1.0
    hidden: int = 4096
    dim: int = 256
    result: Literal["teacher", "student"] = "teacher"
    same_patient_negatives: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("momentum", "momentum_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not within [0, 1]")
        if not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature!r} is not above 0")
        if not self.reconstruction >= 0:
            raise ValueError(f"reconstruction: {self.reconstruction!r} is below 0")


def contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    temperature: float,
    first: int = 0,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE of students against all teachers of the batch, times twice the temperature.

    Args:
        student: (N, D), unit length.
        teacher: (M, D), unit length; row `first` + i is the positive of student i, all others are
            its negatives.
        temperature: Of the softmax.
        first: Row of the first student's positive.
        excluded: bool (N, M), True where a teacher is no negative of a student.
    """
    logits = student @ teacher.T / temperature
    own = torch.arange(len(student), device=student.device) + first
    if excluded is not None:
        others = torch.arange(len(teacher), device=student.device) != own[:, None]
        logits = logits.masked_fill(excluded & others, -torch.inf)
    return 2 * temperature * F.cross_entropy(logits, own)


@METHODS.register("sit")
class Sit(Method):
    """SiT around any encoder that has a map.

    The student sees corrupted views: it draws them as they were, and tells by their pooled features
    which clean other view is of the same radiograph. The teacher sees the clean views.
    """

    title = "SiT"
    paper = "arXiv 2104.03602"
    Settings = SitSettings
    full_views = 2

    def __init__(
        self,
        encoder: nn.Module,
        *,
        settings: SitSettings,
        channels: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder)
        widths = [num_features(encoder), settings.hidden, settings.hidden, settings.dim]
        activations = iter((nn.ReLU, nn.GELU))
        with drawn_from(generator):
            self.head = mlp(
                widths, norm=True, last_norm="plain", activation=lambda: next(activations)()
            )
        self.drawing = ReconstructionHead(encoder, channels=channels, generator=generator)
        self.teacher = momentum_copy(self.encoder)
        self.teacher_head = momentum_copy(self.head)
        self.settings = settings
        self.align = reduction(encoder)

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: SitSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Sit:
        """See `Method.build`."""
        return cls(encoder, settings=settings, channels=view[0], generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Seed of what is hidden, and by what.
            patients: int64 (N,).

        Returns:
            "loss", the sum of "contrast" and the weighted "reconstruction"; "features" of the
            first corrupted view.
        """
        count, clean = len(views[0]), torch.cat(list(views))
        corrupted, mask = self._corrupted(views, draw)
        pooled, places = pooled_and_map(self.encoder, corrupted)
        reconstruction = l1(self.drawing(places, size=clean.shape[-2:]), clean, mask)
        student = F.normalize(self.head(pooled).float(), dim=1)
        with torch.no_grad():
            teacher = F.normalize(self.teacher_head(self.teacher(clean)).float(), dim=1)
        excluded = None
        if patients is not None and not self.settings.same_patient_negatives:
            excluded = patients[:, None] == gather(patients)
        pairs = ((student[:count], teacher[count:]), (student[count:], teacher[:count]))
        losses = [
            contrast(
                own,
                gather(other),
                temperature=self.settings.temperature,
                first=rank() * count,
                excluded=excluded,
            )
            for own, other in pairs
        ]
        contrasted = losses[0] + losses[1]
        return {
            "loss": contrasted + self.settings.reconstruction * reconstruction,
            "features": pooled[:count].detach(),
            "contrast": contrasted.detach(),
            "reconstruction": reconstruction.detach(),
        }

    def _corrupted(
        self, views: Sequence[torch.Tensor], draw: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(2 N, C, h, w) and (2 N, 1, h, w); a view borrows only from its like."""
        written = views[0].new_empty(len(views) * len(views[0]), *views[0].shape[1:])
        masks = [
            corrupt(view, self.settings.corruption, align=self.align, draw=draw + i, out=out)[1]
            for i, (view, out) in enumerate(zip(views, written.chunk(len(views)), strict=True))
        ]
        return written, torch.cat(masks)

    def after_step(self, *, progress: float) -> None:
        """Move the teacher and its head."""
        momentum = cosine(self.settings.momentum, self.settings.momentum_end, progress)
        update_momentum(self.teacher, self.encoder, momentum=momentum)
        update_momentum(self.teacher_head, self.head, momentum=momentum)

    def result(self) -> nn.Module:
        """The teacher, as SiT's authors publish it, unless `settings.result` says otherwise."""
        return self.teacher if self.settings.result == "teacher" else self.encoder

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """The first view, what is left of it, and what is drawn of that."""
        corrupted, _ = self._corrupted(views[:1], draw)
        with looked_at(self):
            places = pooled_and_map(self.encoder, corrupted)[1]
            output = self.drawing(places, size=views[0].shape[-2:])
        return {"input": views[0], "masked": corrupted, "output": output}
