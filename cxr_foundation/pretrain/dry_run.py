"""What a recipe costs, measured by a few real steps; nothing is written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxr_foundation.data import Sample, Study
from cxr_foundation.errors import RecipeError
from cxr_foundation.images import phantom
from cxr_foundation.pretrain import engine, optimise, stages
from cxr_foundation.pretrain.cost import (
    DRAWN_BYTES,
    RATES,
    DryRun,
    StageCost,
    assumptions,
    bill,
    size,
)
from cxr_foundation.pretrain.method import Method, methods
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.recipe import Recipe, Stage, TrainRecipe

__all__ = ["measure"]

_WARM, _TIMED = 1, 3
# Radiographs that are read, spread over all.
_READ = 32
# Part of the free memory that activations may take.
_SHARE = 0.6


def measure(
    recipe: Recipe,
    sets: Sequence[Sequence[Study]] | None,
    *,
    images: int | None = None,
    hardware: str,
) -> DryRun:
    """Measure every stage of a recipe by a few steps; nothing is written.

    Args:
        recipe: Of the run.
        sets: The radiographs of each stage; None takes drawn pictures.
        images: Radiographs that time and bill are told for; None takes as many as there are.
        hardware: Device, in words.

    Raises:
        RecipeError: Neither radiographs nor their number; fewer than a batch; or an encoder or
            settings that the method cannot take.
        ImageError: A radiograph cannot be read.
    """
    if sets is None and images is None:
        raise RecipeError("images", "neither radiographs nor their number", "Set --images N.")
    if images is not None and images < 1:
        raise RecipeError("images", f"{images} is below 1")
    costs = []
    for number, stage in enumerate(recipe.stages):
        studies = None if sets is None else sets[number]
        if studies is not None and len(studies) < stage.train.batch:
            raise RecipeError(
                f"{recipe.name}: train.batch",
                f"{len(studies)} pictures are fewer than one batch of {stage.train.batch}",
            )
        count = images if images is not None else len(studies or ())
        costs.append(_cost(recipe, stage, studies, images=count))
    return DryRun(
        recipe=recipe.name,
        device=hardware,
        drawn=sets is None,
        stages=costs,
        assumptions=tuple(assumptions(costs, drawn=sets is None)),
    )


def _cost(
    recipe: Recipe, stage: Stage, studies: Sequence[Study] | None, *, images: int
) -> StageCost:
    train = stage.train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Alone and from random weights: neither the stages before it nor a file are there yet.
    single = dataclasses.replace(recipe, start=None, stages=(stage,))
    model = stages.build(single, 0, run=Path()).to(device).train()
    # Compiling takes minutes; a dry run is to take seconds.
    engine.prepare(model, dataclasses.replace(train, compile=False), recipe.name)
    batch = _batch_that_fits(model, recipe, stage, device)
    pictures, bytes_per_image, read_seconds = _pictures(recipe, stage, studies, batch)
    ready, view_seconds = _timed_views(Batches(pictures, stages.views_of(recipe, stage)), batch)
    optimiser = optimise.build_optimiser(model, train, processes=1)
    step = functools.partial(_step, model, _moved(ready, device), train, optimiser)
    flop, activations = _counted(step, model)
    step_seconds = _seconds(step, device) / batch
    # What is held in memory is read once, by one core, before the first step.
    once = images * read_seconds if stage.data.in_memory else 0.0
    fed = view_seconds + (0.0 if stage.data.in_memory else read_seconds)
    each = max(step_seconds, fed / train.workers) if train.workers else step_seconds + fed
    trained = [p for p in model.parameters() if p.requires_grad]
    inside = _count(p for p in model.encoder.parameters() if p.requires_grad)
    return StageCost(
        method=methods()[stage.method].title,
        batch=train.batch,
        measured_batch=batch,
        encoder_parameters=inside,
        head_parameters=_count(trained) - inside,
        frozen_parameters=_count(model.parameters()) - _count(trained),
        weight_bytes=_bytes([*model.parameters(), *model.buffers()]),
        gradient_bytes=_bytes(trained),
        optimiser_bytes=_bytes(
            value
            for state in optimiser.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ),
        activation_bytes=round(activations / batch * train.batch),
        step_seconds=step_seconds * train.batch,
        view_seconds=view_seconds,
        read_seconds=read_seconds,
        images=images,
        epochs=train.epochs,
        images_per_second=1 / each,
        seconds=images * train.epochs * each + once,
        flop_per_image=flop / batch,
        bill=bill(
            images=images,
            epochs=train.epochs,
            flop_per_image=flop / batch,
            rate=RATES[_kind(model.encoder)],
            bytes_per_image=bytes_per_image,
            core_seconds=view_seconds + read_seconds,
        ),
    )


class _Few(Pictures):
    """A few pictures in place of many: number i is the picture i modulo how many there are."""

    def __init__(self, some: torch.Tensor, *, count: int) -> None:
        self.studies = ()
        self.patients = torch.arange(count)
        self.classes = None
        self._some = some

    def take(self, indices: Sequence[int]) -> torch.Tensor:
        """See `Pictures.take`."""
        return torch.stack([self._some[index % len(self._some)] for index in indices])

    def stand_ins(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """See `Pictures.stand_ins`; these can all be read."""
        return self.take(indices), list(indices)


def _pictures(
    recipe: Recipe, stage: Stage, studies: Sequence[Study] | None, batch: int
) -> tuple[Pictures, float, float]:
    """Pictures for one batch, bytes of one as it lies on the disk, and seconds to read one."""
    if studies is None:
        drawn = torch.from_numpy(phantom.draw()).float()[None, None] / 255
        small = nn.functional.interpolate(drawn, stage.data.size, mode="area")[0]
        kind = {8: torch.uint8, 16: torch.uint16}[stage.data.bits]
        one = (small * torch.iinfo(kind).max).round().to(kind)
        return _Few(one, count=batch), DRAWN_BYTES, 0.0
    spread = np.linspace(0, len(studies) - 1, _READ).astype(int).tolist()
    chosen = [studies[number] for number in dict.fromkeys(spread)]
    start = time.perf_counter()
    read = Pictures(
        chosen,
        contract=recipe.contract,
        size=stage.data.size,
        bits=stage.data.bits,
        in_memory=True,
        colour=stage.data.colour,
    ).take(range(len(chosen)))
    seconds = (time.perf_counter() - start) / len(chosen)
    sizes = [s.size if isinstance(s, Sample) else s.path.stat().st_size for s in chosen]
    return _Few(read, count=batch), sum(sizes) / len(sizes), seconds


def _timed_views(batches: Batches, batch: int) -> tuple[dict[str, Any], float]:
    """The input of a step, and seconds to make the views of one radiograph."""
    batches([(0, 0)])
    start = time.perf_counter()
    ready = batches([(0, number) for number in range(batch)])
    return ready, (time.perf_counter() - start) / batch


def _moved(ready: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    rows = {name: ready[name].to(device) for name in ("patients", "classes") if name in ready}
    return {
        "views": [view.to(device) for view in ready["views"]],
        "draw": ready["draw"],
        **rows,
    }


def _step(
    model: Method,
    ready: Mapping[str, Any],
    train: TrainRecipe,
    optimiser: torch.optim.Optimizer,
) -> None:
    """One whole step, as the engine makes it."""
    device = ready["views"][0].device.type
    with torch.autocast(device, torch.bfloat16, enabled=train.precision == "bf16"):
        loss = model(**ready)["loss"]
    loss.backward()
    optimise.clip_gradients([p for p in model.parameters() if p.requires_grad], train)
    optimiser.step()
    optimiser.zero_grad()
    model.after_step(progress=0.5)


def _counted(step: Callable[[], None], model: nn.Module) -> tuple[int, int]:
    """FLOP of a step, and bytes that its forward pass keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        step()
    return counter.get_total_flops(), sum(kept.values())


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    """Of one step once it is warm."""
    for _ in range(_WARM):
        step()
    start = _now(device)
    for _ in range(_TIMED):
        step()
    return (_now(device) - start) / _TIMED


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _batch_that_fits(model: Method, recipe: Recipe, stage: Stage, device: torch.device) -> int:
    """The recipe's batch, or half of it and so on until a step fits into the memory there is.

    Raises:
        RecipeError: None that the method takes does.
    """
    one = torch.zeros(2, recipe.encoder.in_chans, *stages.view_size(recipe, stage), device=device)
    _, kept = _counted(lambda: model.encoder(one).sum().backward(), model.encoder)
    model.zero_grad()
    each = kept / 2 * model.full_views
    check = getattr(stage.settings, "check", lambda batch: None)
    batch, free = stage.train.batch, _free_bytes(device)
    while batch >= 2:
        try:
            check(batch)
        except ValueError:
            break
        if batch * each < free * _SHARE:
            return batch
        smallest = batch
        batch //= 2
    raise RecipeError(
        f"{recipe.name}: train.batch",
        f"a step of {smallest} radiographs may keep {size(smallest * each)}, and "
        f"{size(free)} are free here",
        "Measure it on a larger machine, or with smaller views: --set views.size=[224,224].",
    )


def _free_bytes(device: torch.device) -> int:
    """Memory that can still be had."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _kind(encoder: nn.Module) -> str:
    attends = any("attention" in type(m).__name__.lower() for m in encoder.modules())
    return "transformer" if attends else "convolutional"


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
