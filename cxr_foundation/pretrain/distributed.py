"""Batches that lie on several processes, brought together in the order of their ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn

__all__ = ["from_first", "gather", "gather_with_gradient", "own_rows", "rank", "world_size"]


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def gather(rows: torch.Tensor) -> torch.Tensor:
    """(N, …) of every process → (W * N, …), equal everywhere, without gradient."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_with_gradient(rows: torch.Tensor) -> torch.Tensor:
    """As `gather`; the gradient of every process reaches the one that the rows came from."""
    if world_size() == 1:
        return rows
    return torch.cat(dist_nn.all_gather(rows.contiguous()))  # type: ignore[no-untyped-call]


def from_first(number: int, *, like: torch.Tensor) -> int:
    """The number that process 0 has, on the device of `like` while it travels."""
    if world_size() == 1:
        return number
    carried = torch.tensor(number, dtype=torch.int64, device=like.device)
    dist.broadcast(carried, src=0)
    return int(carried)


def own_rows(rows: torch.Tensor) -> torch.Tensor:
    """(W * N, …) as `gather` gives it → the (N, …) of this process."""
    size = len(rows) // world_size()
    return rows[rank() * size : (rank() + 1) * size]
