"""The slowly moving copy of a module (EMA teacher)."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from timm.layers.drop import DropPath
from torch import nn

__all__ = ["cosine", "momentum_copy", "update_momentum"]

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy with equal weights, no gradients and no random depth or dropout.

    Its batch norms stay in training mode with the rest of the method: their statistics are those
    of what the copy sees itself.
    """
    copied = copy.deepcopy(module).requires_grad_(False)
    for part in copied.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
    return copied


@torch.no_grad()
def update_momentum(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Move every parameter of `teacher`: momentum × teacher + (1 - momentum) × student.

    Buffers are left alone: batch statistics of the teacher come from what it sees itself.
    """
    torch._foreach_lerp_(
        list(teacher.parameters()), list(student.parameters()), weight=1.0 - momentum
    )


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
