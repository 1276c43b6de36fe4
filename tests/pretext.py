"""What the tests of pretext tasks share: drawn pictures with a telling frame, and linear probes."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """White noise, (count, 1, side, side)."""
    return torch.randn(count, 1, side, side, generator=generator(seed))


def framed(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """White noise inside; outside, an eighth of each side, collimation edges and a letter."""
    pictures = noise(count, side, seed)
    edge = side // 8
    pictures[..., :edge], pictures[..., -edge:] = -3.0, -3.0
    pictures[:, :, :edge], pictures[:, :, -edge:] = -1.0, 2.0
    pictures[:, :, :edge, :edge] = 4.0
    return pictures


def resnet() -> nn.Module:
    """timm's own tiny network for tests."""
    torch.manual_seed(0)
    return timm.create_model("test_resnet", in_chans=1, num_classes=0)


def vit(**arguments: object) -> nn.Module:
    """A tiny transformer that takes 32 x 32 pixels only, unless it is told otherwise."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        in_chans=1,
        num_classes=0,
        **arguments,
    )


def probed(features: torch.Tensor, labels: torch.Tensor, ridge: float = 1e-3) -> float:
    """Accuracy of a linear probe (ridge regression) on the half that it was not fitted to."""
    half = len(features) // 2
    known = features[:half].double()
    scale = known.std(0).clamp_min(1e-9)
    x = (features.double() - known.mean(0)) / scale
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    target = F.one_hot(labels).double()
    gram = x[:half].T @ x[:half] + ridge * half * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x[:half].T @ target[:half])
    return float(((x[half:] @ weights).argmax(1) == labels[half:]).double().mean())


def grain(pictures: torch.Tensor) -> torch.Tensor:
    """How much neighbours differ along, across and diagonally: (N, 12), whatever is depicted."""
    shifts = [(d * y, d * x) for d in (1, 2, 3) for y, x in ((0, 1), (1, 0), (1, 1), (1, -1))]
    moved = [(pictures - torch.roll(pictures, shift, (2, 3))).square() for shift in shifts]
    return torch.stack([m.mean((1, 2, 3)) for m in moved], dim=1)


def loss_falls(method: nn.Module, views: list[torch.Tensor], *, steps: int = 30) -> bool:
    """Whether a method's loss falls on a fixed batch and a fixed draw."""
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = method(views, draw=5)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses[-5:]) < 0.9 * sum(losses[:5])
