"""Inpainting: draw what blocks of a radiograph hid.

Written from the paper: Pathak et al., "Context Encoders: Feature Learning by Inpainting" (arXiv
1604.07379): several blocks are hidden, an encoder and a decoder without skip connections fill them
in, and the squared error counts inside the blocks alone.

What differs: the adversarial part is left out; there is no fully connected layer between encoder
and decoder, since the last map of a deep encoder has seen the whole picture; the error is the mean
over each radiograph's own hidden pixels; and no block touches the frame, whose edges and letters
are guessed without anatomy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from cxr_foundation.pretrain.decoder import Decoder
from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.maps import num_features, pooled_and_map, reduction
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.pretext import MARGIN, check_margin, inner, numbers, psnr
from cxr_foundation.pretrain.reconstruct import looked_at

__all__ = ["Inpainting", "InpaintingSettings", "blocks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InpaintingSettings:
    """What inpainting adds to an encoder.

    Attributes:
        blocks: How many are hidden in each radiograph; they may overlap.
        side: Range of a block's sides, as parts of the height and width inside the margin.
        margin: Part of each side where nothing is hidden.
        width: Channels of the decoder's first layer.
    """

    blocks: int = 4
    side: tuple[float, float] = (0.2, 0.4)
    margin: float = MARGIN
    width: int = 256

    def __post_init__(self) -> None:
        check_margin(self.margin)
        for name in ("blocks", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        if not 0 < self.side[0] <= self.side[1] < 1:
            raise ValueError(f"side: {self.side!r} is not a range within (0, 1)")


def blocks(
    drawn: torch.Tensor, size: tuple[int, int], *, side: tuple[float, float], margin: float
) -> torch.Tensor:
    """Where pixels are hidden.

    Args:
        drawn: (N, K, 4) in [0, 1): height, width, top and left of K blocks.
        size: (h, w) in pixels.
        side: Range of the sides, as parts of what is inside the margin.
        margin: Part of each side where nothing is hidden.

    Returns:
        bool (N, 1, h, w), True inside a block.
    """
    along = []
    for axis, pixels in enumerate(size):
        first, room = inner(pixels, margin)
        extent = side[0] + (side[1] - side[0]) * drawn[..., axis]
        length = (extent * room).round().clamp(1, room)
        start = first + (drawn[..., 2 + axis] * (room - length + 1)).floor()
        places = torch.arange(pixels, device=drawn.device)
        inside = (places >= start[..., None]) & (places < (start + length)[..., None])
        along.append(inside)
    rows, columns = along
    return (rows[:, :, :, None] & columns[:, :, None, :]).any(1, keepdim=True)


@METHODS.register("inpainting")
class Inpainting(Method):
    """An encoder whose map a small decoder turns into the hidden pixels."""

    title = "Inpainting"
    paper = "arXiv 1604.07379"
    Settings = InpaintingSettings
    full_views = 1
    looks_at_map = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        settings: InpaintingSettings,
        channels: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder)
        with drawn_from(generator):
            self.decoder = Decoder(
                num_features(encoder),
                reduction=reduction(encoder),
                channels=channels,
                width=settings.width,
            )
        self.settings = settings

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: InpaintingSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Inpainting:
        """See `Method.build`."""
        return cls(encoder, settings=settings, channels=view[0], generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Returns:
            "loss", the mean squared error of hidden pixels in units of the contract's standard
            deviation; "features" of the pictures with blocks; "l1" and "psnr" (dB, against each
            picture's own range) of hidden pixels.
        """
        (images,) = views
        hidden = self.task(images, draw=draw)
        features, drawn = self._fill(images, hidden)
        error = (drawn - images.float()) * hidden
        # By picture: each counts alike, however much of it is hidden.
        count = hidden.flatten(1).sum(1) * images.shape[1]
        squared = error.square().flatten(1).sum(1) / count
        absolute = error.detach().abs().flatten(1).sum(1) / count
        return {
            "loss": squared.mean(),
            "features": features.detach(),
            "l1": absolute.mean(),
            "psnr": psnr(squared.detach(), images),
        }

    @torch.no_grad()
    def task(self, images: torch.Tensor, *, draw: int) -> torch.Tensor:
        """What is asked: bool (N, 1, h, w), True where a pixel is hidden."""
        c = self.settings
        drawn = numbers(images, 4 * c.blocks, draw=draw).view(-1, c.blocks, 4)
        size = (images.shape[-2], images.shape[-1])
        return blocks(drawn, size, side=c.side, margin=c.margin)

    def _fill(
        self, images: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # 0 is the mean of all radiographs.
        features, places = pooled_and_map(self.encoder, images.masked_fill(hidden, 0.0))
        return features, self.decoder(places, size=(images.shape[-2], images.shape[-1]))

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """See `Method.illustrate`; only hidden pixels of "output" are drawn."""
        (images,) = views
        hidden = self.task(images, draw=draw)
        with looked_at(self):
            _, drawn = self._fill(images, hidden)
        return {
            "input": images,
            "masked": images.masked_fill(hidden, 0.0),
            "output": torch.where(hidden, drawn, images.float()),
        }
