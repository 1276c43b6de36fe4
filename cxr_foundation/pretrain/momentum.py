"""The slowly moving copy of a module (EMA teacher)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

__all__ = ["momentum_copy", "update_momentum"]

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy with equal weights and no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_momentum(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Move every parameter of `teacher`: momentum × teacher + (1 - momentum) × student.

    Buffers are left alone: batch statistics of the teacher come from what it sees itself.
    """
    torch._foreach_lerp_(
        list(teacher.parameters()), list(student.parameters()), weight=1.0 - momentum
    )
