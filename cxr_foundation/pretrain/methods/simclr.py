"""SimCLR: find the other view of a radiograph among all views of a batch.

Written from the paper: Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations" (arXiv 2002.05709).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.distributed import gather, gather_with_gradient, own_rows
from cxr_foundation.pretrain.heads import drawn_from, mlp
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method

__all__ = ["SimCLR", "SimCLRSettings", "nt_xent"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRSettings:
    """What SimCLR adds to an encoder.

    Attributes:
        temperature: Of the softmax over cosine similarities.
        hidden: Width of the projection head's hidden layer; None means the encoder's own.
        dim: Length of the projected embedding.
        same_patient_negatives: Whether other radiographs of a view's own patient are negatives.
    """

    # Section 5.1, table 5: the best of 0.05, 0.1, 0.5 and 1.
    temperature: float = 0.1
    # Section 4.2: h and the hidden layer are both 2048 wide on a ResNet-50.
    hidden: int | None = None
    # Section 2.3, "Default setting".
    dim: int = 128
    same_patient_negatives: bool = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature!r} is not above 0")
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden: {self.hidden!r} is not above 0")
        if self.dim < 1:
            raise ValueError(f"dim: {self.dim!r} is not above 0")


def nt_xent(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    temperature: float,
    patients: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """NT-Xent (equation 1 of the paper) of this process's views against those of all.

    Args:
        first: (N, D), one view of each radiograph; any length.
        second: (N, D), the other view, in the same order.
        temperature: Of the softmax.
        patients: int64 (N,); other radiographs of a view's patient are then no negatives of it.

    Returns:
        The mean over this process's 2 N views, and the share of them whose other view beats every
        negative.
    """
    with torch.autocast(first.device.type, enabled=False):
        views = [F.normalize(view.float(), dim=1) for view in (first, second)]
        everything = torch.cat([gather_with_gradient(view) for view in views])
        count = len(everything) // 2
        places = own_rows(torch.arange(count, device=first.device))
        own = torch.cat([places, places + count])
        other = torch.cat([places + count, places])
        logits = torch.cat(views) @ everything.T / temperature
        itself = own[:, None] == torch.arange(2 * count, device=first.device)
        excluded = itself
        if patients is not None:
            alike = patients[:, None] == gather(patients)
            excluded = alike.repeat(2, 2).scatter(1, other[:, None], False)
        logits = logits.masked_fill(excluded, -torch.inf)
        loss = F.cross_entropy(logits, other)
    return loss, (logits.detach().argmax(1) == other).float().mean()


@METHODS.register("simclr")
class SimCLR(Method):
    """SimCLR around any encoder."""

    title = "SimCLR"
    paper = "arXiv 2002.05709"
    Settings = SimCLRSettings
    full_views = 2

    def __init__(
        self, encoder: nn.Module, *, settings: SimCLRSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        width = num_features(encoder)
        with drawn_from(generator):
            # Batch norm after both layers is the authors' release; the paper's equation has none.
            self.head = mlp(
                [width, settings.hidden or width, settings.dim],
                norm=True,
                last_norm="affine",
                bias=False,
            )
        self.temperature = settings.temperature
        self.same_patient_negatives = settings.same_patient_negatives

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: Two, (N, C, h, w) each.
            draw: Not needed; nothing is random.
            patients: int64 (N,).

        Returns:
            "loss"; "features" of the first view; "wins", the share of views whose other view beats
            every negative.
        """
        first, second = views
        # In one pass, so that batch statistics do not tell the two views apart.
        features = self.encoder(torch.cat([first, second]))
        one, other = self.head(features).chunk(2)
        loss, wins = nt_xent(
            one,
            other,
            temperature=self.temperature,
            patients=None if self.same_patient_negatives else patients,
        )
        return {"loss": loss, "features": features[: len(first)].detach(), "wins": wins}
