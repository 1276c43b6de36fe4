"""Rotation: say by how many quarter turns a radiograph is turned.

Written from the paper: Gidaris et al., "Unsupervised Representation Learning by Predicting Image
Rotations" (arXiv 1803.07728). As there, a batch holds every picture in all four turns.

What differs, because the frame of a radiograph solves the task: the encoder sees a disc whose edge
fades out, cut from inside a margin, and every turn, also that of 0 degrees, is resampled once, at
an angle that is a little off. A pixel's place between its sources is then the same in all turns,
so that no trace of this resampling tells one from another. Radiographs that were squashed before
have other grain across than along; a blur takes it away. What it cannot take away is the trace of a
picture that was enlarged along one side: `data.size` should not be above the pictures' own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.maps import num_features
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.pretext import MARGIN, answered, check_margin, inner, numbers

__all__ = ["Rotation", "RotationSettings", "turned"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotationSettings:
    """What the rotation task adds to an encoder.

    Attributes:
        margin: Part of each side that is never shown.
        feather: Part of the disc's radius over which its edge fades out.
        jitter: Largest angle in degrees that is added to a turn, to either side.
        blur: Standard deviation in pixels of the Gaussian that takes away the pictures' own grain;
            0 leaves it.
        every_turn: Show each picture in all four turns at each step; else in one, drawn.
    """

    margin: float = MARGIN
    feather: float = 0.1
    jitter: float = 10.0
    blur: float = 1.5
    every_turn: bool = True

    def __post_init__(self) -> None:
        check_margin(self.margin)
        if not 0 < self.feather <= 1:
            raise ValueError(f"feather: {self.feather!r} is not within (0, 1]")
        if not 0 < self.jitter < 45:
            raise ValueError(f"jitter: {self.jitter!r} is not within (0, 45)")
        if not self.blur >= 0:
            raise ValueError(f"blur: {self.blur!r} is below 0")


def turned(
    images: torch.Tensor,
    turns: torch.Tensor,
    angles: torch.Tensor,
    *,
    side: int,
    feather: float,
) -> torch.Tensor:
    """Discs of radiographs, turned counter-clockwise.

    Args:
        images: (N, C, r, r), normalised.
        turns: int64 (N,), quarter turns from 0 to 3.
        angles: float32 (N,), radians on top of them.
        side: Of the result, in pixels; the picture's inscribed disc fills it.
        feather: Part of the disc's radius over which it fades to 0, the mean of all radiographs.

    Returns:
        float32 (N, C, side, side).
    """
    # Exact for quarter turns: what differs between turns is the picture alone.
    quarter_cos = (turns == 0).float() - (turns == 2).float()
    quarter_sin = (turns == 1).float() - (turns == 3).float()
    cos = quarter_cos * angles.cos() - quarter_sin * angles.sin()
    sin = quarter_sin * angles.cos() + quarter_cos * angles.sin()
    centres = (torch.arange(side, device=images.device) + 0.5) * (2 / side) - 1
    x, y = centres[None, None, :], centres[None, :, None]
    cos, sin = cos[:, None, None], sin[:, None, None]
    grid = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    disc = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    inside = ((1 - (x.square() + y.square()).sqrt()) / feather).clamp(0, 1)
    return disc * (0.5 - 0.5 * torch.cos(math.pi * inside))


@METHODS.register("rotation")
class Rotation(Method):
    """A linear classifier of four turns on the encoder's pooled features."""

    title = "Rotation"
    paper = "arXiv 1803.07728"
    Settings = RotationSettings
    full_views = 1

    def __init__(
        self, encoder: nn.Module, *, settings: RotationSettings, generator: torch.Generator
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            self.head = nn.Linear(num_features(encoder), 4)
        self.settings = settings

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: RotationSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Rotation:
        """See `Method.build`; a view that is not square is refused."""
        if view[1] != view[2]:
            raise ValueError(f"views.size: {view[1:]} is not square, and a quarter turn needs it")
        return cls(encoder, settings=settings, generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Returns:
            "loss", cross-entropy; "features" of one turn of each picture; "accuracy", .25 by
            chance.
        """
        (images,) = views
        shown, turns = self.task(images, draw=draw)
        features: torch.Tensor = self.encoder(shown)
        loss, accuracy = answered(self.head(features), turns)
        kept = features[: len(images)].detach()
        return {"loss": loss, "features": kept, "accuracy": accuracy}

    @torch.no_grad()
    def task(self, images: torch.Tensor, *, draw: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is asked: discs (M, C, s, s) and their turns, int64 (M,), where M is N or 4 N."""
        count = len(images)
        drawn = numbers(images, 5, draw=draw)
        side = images.shape[-1]
        first, room = inner(side, self.settings.margin)
        # The blur sees what is inside the margin only, or it would carry the frame in.
        images = images[..., first : first + room, first : first + room].float()
        images = _blurred(images, self.settings.blur)
        if self.settings.every_turn:
            turns = torch.arange(4, device=images.device).repeat_interleave(count)
            images = images.repeat(4, 1, 1, 1)
            # Each turn has an angle of its own: equal ones would link the four.
            unit = drawn[:, :4].T.reshape(-1)
        else:
            turns = (drawn[:, 4] * 4).long().clamp_max(3)
            unit = drawn[:, 0]
        angles = (2 * unit - 1) * math.radians(self.settings.jitter)
        return turned(images, turns, angles, side=side, feather=self.settings.feather), turns


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian, borders reflected; float32 also under autocast."""
    if not sigma:
        return images
    radius = min(math.ceil(3 * sigma), images.shape[-1] - 1)
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (steps / sigma).square())
    taps = taps / taps.sum()
    with torch.autocast(images.device.type, enabled=False):
        padded = F.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
        rows = F.conv2d(padded, taps.view(1, 1, 1, -1))
        return F.conv2d(rows, taps.view(1, 1, -1, 1)).view_as(images)
