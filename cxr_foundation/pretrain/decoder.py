"""A small convolutional decoder: from an encoder's map back to a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """Doubles a map's sides with a 3 x 3 convolution each time, until it is a picture again.

    There are no skip connections: what is drawn must have passed through the encoder's map. Norms
    are those of one picture, so that no picture of a batch tells of another. Reductions that are
    not a power of two (14) end in a rearrangement of channels into pixels.

    Args:
        features: Channels of the map.
        reduction: Pixels of the picture per place of the map, along each side.
        channels: Of the picture.
        width: Channels after the first convolution; each doubling halves them, down to 16.
    """

    def __init__(self, features: int, *, reduction: int, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(features, width, 1)]
        rest = reduction
        while rest % 2 == 0:
            narrow = max(min(width, 16), width // 2)
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(width, narrow, 3, padding=1),
                nn.GroupNorm(1, narrow),
                nn.GELU(),
            ]
            width, rest = narrow, rest // 2
        layers += [nn.Conv2d(width, channels * rest**2, 3, padding=1), nn.PixelShuffle(rest)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: torch.Tensor, *, size: tuple[int, int]) -> torch.Tensor:
        """Draw a picture.

        Args:
            features: (N, D, h', w'), an encoder's map.
            size: (h, w) of the picture. Of a map that reaches over it the rest is cut off; one that
                leaves out a rest, as some networks do, is stretched.

        Returns:
            float32 (N, C, h, w).
        """
        drawn: torch.Tensor = self.layers(features).float()[..., : size[0], : size[1]]
        if drawn.shape[-2:] != size:
            drawn = F.interpolate(drawn, size=size, mode="bilinear", align_corners=False)
        return drawn
