"""The training loop: transformers' Trainer, plus the little that self-supervision adds to it."""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_foundation.errors import MissingExtra, OutputFailed, RecipeError
from cxr_foundation.pretrain import checkpoints, distributed, optimise
from cxr_foundation.pretrain.collapse import collapse
from cxr_foundation.pretrain.method import Method
from cxr_foundation.pretrain.optimise import learning_rate
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.recipe import TrainRecipe
from cxr_foundation.pretrain.stopping import StopSignals

__all__ = ["learning_rate", "train"]

_log = logging.getLogger(__name__)

# The newest and the one before: a checkpoint that is cut off while written costs one interval.
_KEPT = 2
# A batch of compressed films that are decoded one by one takes minutes; more than this is a hang.
_PATIENCE_SECONDS = 600
# Pictures that an error names.
_NAMED = 4
# Part of all pictures that may be skipped as unreadable.
_SKIPPED = 0.001


def train(
    model: Method,
    *,
    pictures: Pictures,
    batches: Batches,
    recipe: TrainRecipe,
    folder: Path,
    resume: Path | None,
    name: str,
    watchers: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train `model` in place; its checkpoints and logs are written into `folder`.

    Under torchrun every process calls this, within `distributed.together`.

    Args:
        model: The method with its encoder.
        pictures: The radiographs.
        batches: Makes a step's input of them.
        recipe: Optimiser, schedule and loop.
        folder: Of checkpoints and tensorboard logs.
        resume: A whole checkpoint to go on from, or None.
        name: Of the run, for messages.
        watchers: Look at the run while it goes on.

    Returns:
        The last logged figures: "loss", "feature_std", "effective_rank", the method's own, and
        "seconds", the wall time of this process; and, if there were any, "skipped": how many
        pictures this process found unreadable since it started.

    Raises:
        RecipeError: Fewer pictures than a batch, a loss or gradient that is not finite, an encoder
            that cannot do what the recipe asks, or a process that made views died.
        ImageError: A picture that cannot be read.
        OutputFailed: The disk is full or not writable.
        MissingExtra: accelerate is not installed.
        SystemExit: A SIGTERM came; the state is in a checkpoint. KeyboardInterrupt likewise.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra(
            "accelerate", "not installed", 'Run pip install "cxr-foundation-hub[train]".'
        )
    processes = distributed.world_size()
    share = distributed.Share(len(pictures), batch=recipe.batch, seed=recipe.seed)
    if not len(share):
        reason = f"{len(pictures)} pictures are fewer than one batch of {recipe.batch}"
        if processes > 1:
            reason += f" for each of {processes} processes"
        raise RecipeError(f"{name}: train.batch", reason)
    steps_per_epoch = math.ceil(len(share) / recipe.accumulate)
    prepare(model, recipe, name)
    optimiser = optimise.build_optimiser(model, recipe, processes=processes)
    total, warmup = steps_per_epoch * recipe.epochs, round(recipe.warmup_epochs * steps_per_epoch)
    floor = min(1.0, recipe.min_lr / optimise.highest_rate(recipe, processes=processes))
    scheduler = LambdaLR(
        optimiser,
        lambda step: learning_rate(step, total=total, warmup=warmup, recipe=recipe, floor=floor),
    )
    steps = _Steps(model, recipe, share, name=name, pictures=pictures, batches=batches)
    stop = StopSignals()
    trainer = _Trainer(
        model=model,
        args=_arguments(model, recipe, folder, steps_per_epoch),
        train_dataset=_Numbers(share.count),
        optimizers=(optimiser, scheduler),
        callbacks=[steps, *watchers, _Seal(), stop],
    )
    trainer.share, trainer.steps = share, steps
    with stop:
        try:
            output = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except RuntimeError as error:
            # What torch's loader says of a worker that is gone, or that gives nothing any more.
            if not str(error).startswith("DataLoader "):
                raise
            raise RecipeError(
                f"{name}: train.workers",
                f"a process that makes views died or hangs ({str(error).splitlines()[0]})",
                "Often memory ran out: lower it. Started again, the run goes on from its newest "
                "checkpoint.",
            ) from error
    stop.leave()
    last: dict[str, float] = {}
    for line in trainer.state.log_history:
        last.update({k: v for k, v in line.items() if k not in _OF_THE_LOOP})
    if steps.skipped:
        last["skipped"] = float(len(steps.skipped))
    return {**last, "seconds": output.metrics["train_runtime"]}


def prepare(model: Method, recipe: TrainRecipe, name: str) -> None:
    """What is done to the network before its optimiser is built."""
    if recipe.checkpoint_gradients:
        try:
            network: Any = model.encoder
            network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            kind = type(model.encoder).__name__
            raise RecipeError(
                f"{name}: train.checkpoint_gradients",
                f"{kind} keeps its activations",
                "Set it to false, and lower train.batch if memory runs out.",
            ) from None
    # A method that splits its batch for the statistics' sake keeps them to one process.
    if model.joins_batch_norms and distributed.world_size() > 1:
        norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        if not distributed.join_batch_norms(model) and norms and distributed.rank() == 0:
            _log.warning("%s: on CPUs each process has batch statistics of its own", name)
    if recipe.compile:
        model.compile()


# What Trainer logs of itself.
_OF_THE_LOOP = {
    "epoch",
    "grad_norm",
    "learning_rate",
    "step",
    "total_flos",
    "train_loss",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
}


class _Arguments(TrainingArguments):
    @property
    def n_gpu(self) -> int:
        # Trainer would wrap the model into DataParallel, which splits a batch over all GPUs and
        # loses what the replicas write into their buffers: the queue.
        return min(1, int(super().n_gpu))


def _arguments(
    model: Method, recipe: TrainRecipe, folder: Path, steps_per_epoch: int
) -> TrainingArguments:
    # accelerate joins processes on a CPU (`distributed.together`), and transformers allows bf16
    # there, only if told to stay there; told nothing, it also finds other accelerators.
    several, half = distributed.world_size() > 1, recipe.precision == "bf16"
    on_cpu = (several or half) and not torch.cuda.is_available()
    return _Arguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        num_train_epochs=recipe.epochs,
        # Gradients are measured and clipped by `_Steps`.
        max_grad_norm=0.0,
        bf16=half,
        seed=recipe.seed,
        ddp_find_unused_parameters=model.looks_at_map,
        # Every buffer is equal on all processes (`gather`) or a batch statistic, of which that of
        # process 0 is saved.
        ddp_broadcast_buffers=False,
        use_cpu=on_cpu,
        ddp_backend="gloo" if several and on_cpu else None,
        remove_unused_columns=False,
        dataloader_num_workers=recipe.workers,
        # The last step of a short run is told too.
        logging_steps=min(recipe.log_steps, steps_per_epoch * recipe.epochs),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=max(1, round(recipe.checkpoint_epochs * steps_per_epoch)),
        # `_Seal` removes old ones: Trainer goes by their files' times, and clocks jump.
        save_total_limit=None,
        report_to=["tensorboard"] if importlib.util.find_spec("tensorboard") else [],
        push_to_hub=False,
        disable_tqdm=False,
    )


class _Numbers(Dataset[tuple[int, int]]):
    """An item is its own (epoch, number): views are made by batch."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


def _views_on_gpu(steps: _Steps) -> bool:
    return torch.cuda.is_available() and isinstance(steps.batches, Batches)


class _Trainer(transformers.Trainer):
    share: distributed.Share
    steps: _Steps

    def get_train_dataloader(self) -> DataLoader[Any]:
        workers = self.args.dataloader_num_workers
        make = self.steps.batches.read if _views_on_gpu(self.steps) else self.steps.batches
        return DataLoader(
            _Numbers(self.share.count),
            batch_sampler=self.share,
            collate_fn=lambda items: {**make(items), "keys": [number for _, number in items]},
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            timeout=_PATIENCE_SECONDS if workers else 0,
            # Its own, so that fetching draws nothing from the generator of stochastic depth.
            generator=torch.Generator(),
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if "refused" in inputs:
            raise inputs["refused"]
        keys, skipped = inputs.pop("keys"), inputs.pop("skipped", [])
        self.steps.skip(skipped)
        if "pictures" in inputs:
            # Pixels are not for half precision.
            with torch.autocast(self.args.device.type, enabled=False):
                inputs = self.steps.batches.viewed({**inputs, "skipped": skipped})
            del inputs["skipped"]
        seen = model(**inputs)
        self.steps.saw(seen, keys)
        return (seen["loss"], seen) if return_outputs else seen["loss"]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # `_Steps` has it; Trainer would go through all gradients once more.
        return None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        try:
            if distributed.rank() == 0:
                # What a damaged one of the same step left must not become a part of this one.
                shutil.rmtree(folder / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            distributed.wait()
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch.save tells of a full disk by a RuntimeError of its stream.
            reason = f"a checkpoint could not be written ({str(error).splitlines()[0]})"
            raise OutputFailed(str(self.args.output_dir), reason) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what shows a collapse to every line that has a loss."""
        if "loss" in logs:
            logs = {**logs, **{k: round(v, 4) for k, v in self.steps.measures().items()}}
        super().log(logs, start_time)


class _Steps(TrainerCallback):
    """What happens in every step besides forward and backward."""

    def __init__(
        self,
        model: Method,
        recipe: TrainRecipe,
        share: distributed.Share,
        *,
        name: str,
        pictures: Pictures,
        batches: Batches,
    ) -> None:
        self._model, self._recipe, self._share = model, recipe, share
        self._name, self._pictures, self.batches = name, pictures, batches
        self.skipped: set[int] = set()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._seen: dict[str, torch.Tensor] = {}
        self._losses: list[torch.Tensor] = []
        self._keys: list[int] = []
        self._norm = 0.0

    def saw(self, seen: dict[str, torch.Tensor], keys: Sequence[int]) -> None:
        """Remember what one batch gave; a step may have several."""
        self._seen = seen
        self._losses.append(seen["loss"].detach())
        self._keys += keys

    def skip(self, numbers: Sequence[int]) -> None:
        """Count pictures that others stand in for.

        Raises:
            RecipeError: There are too many.
        """
        self.skipped.update(numbers)
        if len(self.skipped) > _SKIPPED * self._share.count:
            raise RecipeError(
                f"{self._name}: data.bad",
                f"{len(self.skipped)} of {self._share.count} pictures cannot be read "
                f"({self._named(sorted(self.skipped))}), more than one in a thousand",
                "Mend or remove them.",
            )

    def _named(self, numbers: Sequence[int]) -> str:
        names = [self._pictures.studies[i].path.name for i in numbers[:_NAMED]]
        return ", ".join(names) + (", …" if len(numbers) > _NAMED else "")

    def measures(self) -> dict[str, float]:
        """The method's own figures and signs of a collapse, equal on all processes."""
        own = {k: float(v) for k, v in self._seen.items() if k != "loss" and v.ndim == 0}
        signs = collapse(distributed.gather(self._seen["features"]))
        return {**distributed.mean(own), **signs, "grad_norm": self._norm}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if distributed.world_size() > 1:
            # Trainer seeds all alike: stochastic depth would leave out the same rows everywhere.
            torch.manual_seed(self._recipe.seed + distributed.rank())

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._share.epoch = int(state.epoch or 0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._losses, self._keys = [], []
        optimise.set_weight_decay(
            kwargs["optimizer"], self._recipe, progress=state.global_step / state.max_steps
        )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        norm = optimise.clip_gradients(self._parameters, self._recipe)
        # One wait for the device, for all that has to be known.
        *losses, self._norm = torch.stack([*self._losses, norm]).tolist()
        for what, values in (("loss", losses), ("norm of the gradient", [self._norm])):
            wrong = [v for v in values if not math.isfinite(v)]
            if wrong:
                raise RecipeError(
                    f"{self._name}: train.lr",
                    f"the {what} is {wrong[0]} at step {state.global_step + 1} "
                    f"(pictures {self._named(self._keys)})",
                    f"Lower it and choose another output; the last checkpoints stay in "
                    f"{args.output_dir}.",
                )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._model.after_step(progress=state.global_step / state.max_steps)


class _Seal(TrainerCallback):
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Each process writes its own random state.
        distributed.wait()
        if distributed.rank() == 0:
            folder = Path(str(args.output_dir))
            checkpoints.seal(folder / f"checkpoint-{state.global_step}")
            checkpoints.keep(folder, _KEPT)
