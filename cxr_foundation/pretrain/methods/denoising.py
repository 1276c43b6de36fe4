"""Denoising: draw a radiograph as it was before noise came over it.

Written from the paper: Vincent et al., "Stacked Denoising Autoencoders" (Journal of Machine
Learning Research 11, 2010): its Gaussian noise and its masking noise, together.

What differs: the encoder is trained as a whole, not layer by layer, and its decoder is a small one
of its own, without tied weights; the noise's strength is drawn for each picture; and a margin
counts for nothing, because letters and edges of the frame are easier to draw than anatomy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from cxr_foundation.pretrain.decoder import Decoder
from cxr_foundation.pretrain.distributed import from_first, own_rows, world_size
from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.maps import num_features, pooled_and_map, reduction
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.pretext import MARGIN, check_margin, inner, psnr
from cxr_foundation.pretrain.reconstruct import looked_at

__all__ = ["Denoising", "DenoisingSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingSettings:
    """What denoising adds to an encoder.

    Attributes:
        noise: Range of the white noise's standard deviation, in units of the contract's.
        dropped: Part of the pixels that are set to the mean.
        margin: Part of each side whose error does not count.
        width: Channels of the decoder's first layer.
    """

    noise: tuple[float, float] = (0.2, 1.0)
    dropped: float = 0.25
    margin: float = MARGIN
    width: int = 256

    def __post_init__(self) -> None:
        check_margin(self.margin)
        if not 0 <= self.noise[0] <= self.noise[1]:
            raise ValueError(f"noise: {self.noise!r} is not a range from 0")
        if not 0 <= self.dropped < 1:
            raise ValueError(f"dropped: {self.dropped!r} is not within [0, 1)")
        if self.noise[1] == 0 == self.dropped:
            raise ValueError("noise: neither noise nor dropped pixels leave nothing to learn")
        if self.width < 1:
            raise ValueError(f"width: {self.width!r} is not above 0")


@METHODS.register("denoising")
class Denoising(Method):
    """An encoder whose map a small decoder turns into the clean picture."""

    title = "Denoising"
    paper = "JMLR 11:3371, 2010"
    Settings = DenoisingSettings
    full_views = 1
    looks_at_map = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        settings: DenoisingSettings,
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
        settings: DenoisingSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Denoising:
        """See `Method.build`."""
        return cls(encoder, settings=settings, channels=view[0], generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Returns:
            "loss", the mean squared error inside the margin in units of the contract's standard
            deviation; "features" of the noisy pictures; "l1" and "psnr" (dB, against each picture's
            own range) inside the margin.
        """
        (images,) = views
        features, drawn = self._clean(self.task(images, draw=draw))
        error = self._counted(drawn) - self._counted(images.float())
        squared = error.square().flatten(1).mean(1)
        return {
            "loss": squared.mean(),
            "features": features.detach(),
            "l1": error.detach().abs().mean(),
            "psnr": psnr(squared.detach(), self._counted(images)),
        }

    @torch.no_grad()
    def task(self, images: torch.Tensor, *, draw: int) -> torch.Tensor:
        """What is asked: the pictures with noise, float32 (N, C, h, w).

        Channels share their noise: those of a grey radiograph are copies of one another.
        """
        seeds = torch.Generator().manual_seed(from_first(draw, like=images))
        own = own_rows(torch.randint(2**62, (world_size() * len(images),), generator=seeds))
        # A seed for each picture: noise of the whole batch on every process would fill memories.
        noise = torch.empty(len(images), 2, *images.shape[-2:], device=images.device)
        strength = torch.empty(len(images), 1, 1, 1, device=images.device)
        for row, seed in enumerate(own.tolist()):
            generator = torch.Generator(images.device).manual_seed(seed)
            noise[row].normal_(generator=generator)
            strength[row].uniform_(*self.settings.noise, generator=generator)
        dropped = torch.special.ndtr(noise[:, 1:]) < self.settings.dropped
        return (images.float() + strength * noise[:, :1]).masked_fill(dropped, 0.0)

    def _clean(self, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, places = pooled_and_map(self.encoder, noisy)
        return features, self.decoder(places, size=(noisy.shape[-2], noisy.shape[-1]))

    def _counted(self, images: torch.Tensor) -> torch.Tensor:
        (top, height), (left, width) = (inner(n, self.settings.margin) for n in images.shape[-2:])
        return images[..., top : top + height, left : left + width]

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """See `Method.illustrate`."""
        (images,) = views
        noisy = self.task(images, draw=draw)
        with looked_at(self):
            _, drawn = self._clean(noisy)
        return {"input": images, "masked": noisy, "output": drawn}
