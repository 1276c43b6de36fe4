"""What a recipe costs, as records and in words: memory, speed, time, and the bill.

FLOP are counted in a real step (forward, backward, teacher and heads: what the loss really
needs), so that the bill of N radiographs and E epochs on one GPU is

    hours = N * E * FLOP per radiograph / (sustained FLOP/s * 3600)

and what feeds that GPU is r * bytes per radiograph, and r * seconds per radiograph in processor
cores, where r = sustained FLOP/s / FLOP per radiograph.

The sustained rates are derived from published figures of an H100, never measured here; an H200 is
taken to be as fast (the same peak in bf16, more memory bandwidth):

* transformers, 210 TFLOP/s: 7,716 ViT-S/16 images of 224 pixels per second, forward and backward,
  bf16, compiled (https://nvidia-bionemo.github.io/nvSubquadratic/benchmarks), at 3 * 9.1 GFLOP;
  the same source has 1,608 to 2,305 without compilation, so a run that is not compiled may take
  three to five times as long.
* convolutional networks, 170 TFLOP/s: ResNet-50 in MLPerf training 3.0 on 8 H100 in 13.466
  minutes (NVIDIA's training page), at an assumed 35 epochs of ImageNet and 3 * 8.2 GFLOP per
  image; plain PyTorch is likely slower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["DRAWN_BYTES", "RATES", "Bill", "DryRun", "StageCost", "assumptions", "bill", "size"]

RATES: Mapping[str, float] = {"transformer": 210e12, "convolutional": 170e12}
"""Sustained FLOP/s of one H100 or H200 in bf16; see above for their sources."""

# Mean of 1,200 grey JPEGs of 512 x 512 at quality 90.
DRAWN_BYTES = 63_700
"""Of a picture that was drawn, in place of a radiograph's file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bill:
    """What a stage costs on H200s, by the formula above.

    Attributes:
        images: Radiographs, N.
        epochs: Passes, E.
        rate: Sustained FLOP/s that was assumed.
        images_per_second: Of one GPU.
        gpu_hours: Of one GPU; 8 take an eighth if nothing else holds them up.
        read_bytes_per_second: That one GPU has to be fed.
        cores_per_gpu: Processor cores like this machine's that read and make views for one GPU.
        disk_bytes: Of all radiographs.
    """

    images: int
    epochs: int
    rate: float
    images_per_second: float
    gpu_hours: float
    read_bytes_per_second: float
    cores_per_gpu: float
    disk_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage costs.

    Attributes:
        method: Its title.
        batch: Radiographs per step.
        measured_batch: Of the steps that were made; fewer where memory is short.
        encoder_parameters: Of the encoder that is trained.
        head_parameters: Of what is trained besides it.
        frozen_parameters: Of teachers and the like, which are not trained by a gradient.
        weight_bytes: All parameters and buffers.
        gradient_bytes: One gradient for each parameter that is trained.
        optimiser_bytes: State of the optimiser after its first step.
        activation_bytes: What the forward pass of one batch keeps for the backward pass.
        step_seconds: One step of the network: forward, backward, optimiser.
        view_seconds: Making the views of one radiograph, on one core.
        read_seconds: Reading one radiograph, on one core.
        images: Radiographs that the time is told for.
        epochs: Passes.
        images_per_second: On this machine, with the recipe's workers.
        seconds: For all epochs on this machine.
        flop_per_image: Counted in one step.
        bill: On H200s.
    """

    method: str
    batch: int
    measured_batch: int
    encoder_parameters: int
    head_parameters: int
    frozen_parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    activation_bytes: int
    step_seconds: float
    view_seconds: float
    read_seconds: float
    images: int
    epochs: int
    images_per_second: float
    seconds: float
    flop_per_image: float
    bill: Bill

    @property
    def memory_bytes(self) -> int:
        """All of it together, on one device."""
        held = self.weight_bytes + self.gradient_bytes + self.optimiser_bytes
        return held + self.activation_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a recipe costs.

    Attributes:
        recipe: Its name.
        device: Where it was measured, in words.
        drawn: Whether drawn pictures took the place of radiographs.
        stages: One for each stage.
        assumptions: In sentences.
    """

    recipe: str
    device: str
    drawn: bool
    stages: Sequence[StageCost]
    assumptions: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        found = dataclasses.asdict(self)
        for stage, known in zip(found["stages"], self.stages, strict=True):
            stage["memory_bytes"] = known.memory_bytes
        return found

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.recipe}, measured on {self.device}"
        for number, stage in enumerate(self.stages, start=1):
            yield from (f"{number}. {stage.method}", *_lines(stage))
        yield "Assumed:"
        yield from (f"  {sentence}" for sentence in self.assumptions)


def bill(
    *,
    images: int,
    epochs: int,
    flop_per_image: float,
    rate: float,
    bytes_per_image: float,
    core_seconds: float,
) -> Bill:
    """The formula at the top of this file.

    Args:
        images: Radiographs, N.
        epochs: Passes, E.
        flop_per_image: Of one training step, per radiograph.
        rate: Sustained FLOP/s of one GPU.
        bytes_per_image: As it lies on the disk.
        core_seconds: Reading it and making its views, on one core.
    """
    speed = rate / flop_per_image
    return Bill(
        images=images,
        epochs=epochs,
        rate=rate,
        images_per_second=speed,
        gpu_hours=images * epochs / speed / 3600,
        read_bytes_per_second=speed * bytes_per_image,
        cores_per_gpu=speed * core_seconds,
        disk_bytes=round(images * bytes_per_image),
    )


def assumptions(costs: Sequence[StageCost], *, drawn: bool) -> Iterator[str]:
    """What the figures take for granted, in sentences."""
    yield (
        "The bill takes sustained rates of H100s from published benchmarks (the docstring of "
        "cxr_foundation.pretrain.cost names them): none was measured here. Without "
        "train.compile and bf16 a run is slower, and small networks and views reach less."
    )
    yield "FLOP are those of one real step, forward, backward and heads; the optimiser is left out."
    yield "Activations grow with the batch; what the allocator wastes is not counted."
    yield "Every worker is a core like this one's; looks, checkpoints and start-up are left out."
    for cost in costs:
        if cost.measured_batch < cost.batch:
            yield (
                f"{cost.method}: memory here allows steps of {cost.measured_batch} radiographs; "
                f"those of {cost.batch} are taken to cost in proportion."
            )
    if drawn:
        yield (
            "No radiographs were given: drawn ones took their place, reading them costs nothing, "
            f"and each counts as {DRAWN_BYTES:,} bytes (a grey JPEG of 512 x 512)."
        )


def _lines(stage: StageCost) -> Iterator[str]:
    paid = stage.bill
    yield (
        f"  parameters   encoder {stage.encoder_parameters:,}, heads {stage.head_parameters:,}, "
        f"not trained by a gradient {stage.frozen_parameters:,}"
    )
    yield (
        f"  memory       {size(stage.memory_bytes)}: weights {size(stage.weight_bytes)}, "
        f"gradients {size(stage.gradient_bytes)}, optimiser {size(stage.optimiser_bytes)}, "
        f"activations of {stage.batch} radiographs {size(stage.activation_bytes)}"
    )
    yield (
        f"  here         {stage.images_per_second:,.1f} radiographs/s (step of {stage.batch} in "
        f"{stage.step_seconds:.3g} s, views {1000 * stage.view_seconds:.3g} ms and reading "
        f"{1000 * stage.read_seconds:.3g} ms each)"
    )
    yield (
        f"  time here    {_duration(stage.seconds)} for {stage.images:,} radiographs x "
        f"{stage.epochs} epochs"
    )
    yield (
        f"  bill         {paid.gpu_hours:,.3g} GPU-hours on an H200 ({paid.gpu_hours / 8:,.3g} "
        f"hours on 8) at {stage.flop_per_image / 1e9:,.3g} GFLOP per radiograph and "
        f"{paid.rate / 1e12:.0f} TFLOP/s"
    )
    yield (
        f"  feeding it   {paid.images_per_second:,.0f} radiographs/s, "
        f"{paid.read_bytes_per_second / 1e6:,.0f} MB/s and {paid.cores_per_gpu:,.1f} cores per "
        f"GPU; {size(paid.disk_bytes)} on the disk"
    )


def size(count: float) -> str:
    """Bytes in words: "1.5 GiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} GiB" if count < 1024 else f"{count / 1024:,.3g} TiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
