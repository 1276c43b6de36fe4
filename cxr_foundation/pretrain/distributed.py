"""Processes that train together: who takes which radiographs, and how they agree.

Batches that lie on several processes are brought together in the order of their ranks. The
processes share one file system.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.utils.data import Sampler

from cxr_foundation.errors import CxrError, MissingExtra

__all__ = [
    "Share",
    "from_first",
    "gather",
    "gather_with_gradient",
    "highest",
    "join_batch_norms",
    "mean",
    "on_first",
    "own_rows",
    "rank",
    "together",
    "wait",
    "world_size",
]

T = TypeVar("T")


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started; nothing where there is one.

    Raises:
        MissingExtra: accelerate is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra(
            "accelerate", "not installed", 'Run pip install "cxr-foundation-hub[train]".'
        )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world_size() > 1:
        yield
        return
    from accelerate.state import (  # type: ignore[import-untyped]
        AcceleratorState,
        PartialState,
    )

    # Without a GPU accelerate joins processes only if it is told to stay on the CPU.
    on_cpu = not torch.cuda.is_available()
    PartialState(cpu=on_cpu, backend="gloo" if on_cpu else None)
    yield
    # After an exception the others may be in the midst of a collective: torchrun ends them.
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def on_first(action: Callable[[], T]) -> T:
    """What `action` returns; only process 0 runs it, and all get its result or its CxrError."""
    if world_size() == 1:
        return action()
    carried: list[object] = [None, None]
    if rank() == 0:
        try:
            carried[0] = action()
        except CxrError as error:
            carried[1] = error
    dist.broadcast_object_list(carried, src=0)
    if isinstance(carried[1], CxrError):
        raise carried[1]
    result: T = carried[0]  # type: ignore[assignment]
    return result


def wait() -> None:
    """Return when every process is here."""
    if world_size() > 1:
        dist.barrier()


def highest(number: int) -> int:
    """The highest of the numbers that the processes bring."""
    return int(_reduced([float(number)], dist.ReduceOp.MAX)[0]) if world_size() > 1 else number


def mean(numbers: dict[str, float]) -> dict[str, float]:
    """The mean of every number over the processes, which must bring the same names."""
    if world_size() == 1 or not numbers:
        return numbers
    names = sorted(numbers)
    totals = _reduced([numbers[name] for name in names], dist.ReduceOp.SUM)
    return {name: total / world_size() for name, total in zip(names, totals, strict=True)}


def _reduced(numbers: list[float], how: dist.ReduceOp.RedOpType) -> list[float]:
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    carried = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(carried, op=how)
    result: list[float] = carried.tolist()
    return result


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


def join_batch_norms(model: nn.Module) -> bool:
    """Let batch norms take their statistics over all processes; whether they do.

    torch can do so on GPUs only; on a CPU every process keeps statistics of its own.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if world_size() == 1 or not norms or dist.get_backend() != "nccl":
        return False
    # timm's version knows its batch norms that hold an activation.
    convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return True


class Share(Sampler[list[tuple[int, int]]]):
    """The batches of one process in one epoch, as (epoch, number) of each picture.

    The order depends on (seed, epoch) alone. Step k of all processes together takes the pictures
    that one process with a batch W times as large would take. An incomplete last batch of all is
    left out.

    Args:
        count: Number of pictures.
        batch: Pictures per batch and process.
        seed: Of the run.
    """

    def __init__(self, count: int, *, batch: int, seed: int) -> None:
        self.epoch = 0
        self.count = count
        self._batch = batch
        self._seed = seed

    def __len__(self) -> int:
        return self.count // (self._batch * world_size())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        source = np.random.Philox(key=[self._seed, 2], counter=[0, 0, 0, self.epoch])
        order = np.random.Generator(source).permutation(self.count).tolist()
        for step in range(len(self)):
            start = (step * world_size() + rank()) * self._batch
            yield [(self.epoch, index) for index in order[start : start + self._batch]]
