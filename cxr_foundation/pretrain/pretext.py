"""What the pretext tasks share: numbers drawn for each picture, and the part of it that counts.

A radiograph's frame (collimation edges, burned-in letters, the film's corners) tells which side is
up and which part of the picture is seen. So each task leaves a margin out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cxr_foundation.pretrain.distributed import from_first, own_rows, world_size

__all__ = ["answered", "check_margin", "inner", "numbers", "psnr"]

# Of each side: a linear probe on 4 of 32 pixels a side tells labels of chest radiographs apart.
MARGIN = 0.125


def check_margin(margin: float) -> None:
    """Raise ValueError("field: reason") unless a part of the picture is left."""
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin: {margin!r} is not within [0, 0.5)")


def inner(side: int, margin: float) -> tuple[int, int]:
    """First pixel inside the margin, and the number of pixels up to the margin opposite."""
    first = round(side * margin)
    return first, side - 2 * first


def numbers(images: torch.Tensor, columns: int, *, draw: int) -> torch.Tensor:
    """Uniform numbers for each picture of a batch.

    Several processes draw for the whole batch and take their own rows, so that the numbers do not
    depend on how a batch is spread.

    Args:
        images: (N, …); only their number and device are used.
        columns: Numbers for each picture.
        draw: Seed; that of the first process is used everywhere.

    Returns:
        float32 (N, columns) in [0, 1).
    """
    generator = torch.Generator(images.device).manual_seed(from_first(draw, like=images))
    rows = world_size() * len(images)
    return own_rows(torch.rand(rows, columns, generator=generator, device=images.device))


def answered(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of (N, K) logits, and the share of (N,) labels that are hit."""
    loss = F.cross_entropy(logits.float(), labels)
    return loss, (logits.argmax(1) == labels).float().mean().detach()


def psnr(squared: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean peak signal-to-noise ratio in dB, where a picture's peak is its own range.

    Args:
        squared: (N,) mean squared error of each picture.
        images: (N, C, h, w), what should have come out.
    """
    flat = images.flatten(1).float()
    peak = flat.amax(1) - flat.amin(1)
    floor = torch.finfo(torch.float32).tiny
    return (10 * torch.log10(peak.square().clamp_min(floor) / squared.clamp_min(1e-12))).mean()
