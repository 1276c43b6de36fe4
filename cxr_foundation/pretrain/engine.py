"""The training loop: transformers' Trainer, plus the little that self-supervision adds to it."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_foundation.errors import MissingExtra, OutputFailed, RecipeError
from cxr_foundation.pretrain import checkpoints
from cxr_foundation.pretrain.collapse import collapse
from cxr_foundation.pretrain.method import Method
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.recipe import TrainRecipe

__all__ = ["learning_rate", "train"]

# The newest and the one before: a checkpoint that is cut off while written costs one interval.
_KEPT = 2


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
        "seconds", the wall time of this process.

    Raises:
        RecipeError: More than one process, fewer pictures than a batch, or a loss that is not
            finite.
        ImageError: A picture that cannot be read.
        OutputFailed: The disk is full or not writable.
        MissingExtra: accelerate is not installed.
        SystemExit: A SIGTERM came; the state is in a checkpoint. KeyboardInterrupt likewise.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra(
            "accelerate", "not installed", 'Run pip install "cxr-foundation-hub[train]".'
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(name, "pretraining runs in one process", "Start it without torchrun.")
    steps_per_epoch = len(pictures) // recipe.batch
    if not steps_per_epoch:
        reason = f"{len(pictures)} pictures are fewer than one batch of {recipe.batch}"
        raise RecipeError(f"{name}: train.batch", reason)
    total = steps_per_epoch * recipe.epochs
    optimiser = _optimiser(model, recipe)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    scheduler = LambdaLR(
        optimiser, lambda step: learning_rate(step, total=total, warmup=warmup, recipe=recipe)
    )
    stop = _StopSignals()
    trainer = _Trainer(
        model=model,
        args=_arguments(recipe, folder, steps_per_epoch),
        train_dataset=pictures,
        data_collator=batches,
        optimizers=(optimiser, scheduler),
        callbacks=[_Momentum(model), _PartialEpoch(pictures), *watchers, _Seal(), stop],
    )
    trainer.run_name = name
    with stop:
        output = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    stop.leave()
    last: dict[str, float] = {}
    for line in trainer.state.log_history:
        last.update({k: v for k, v in line.items() if k not in _OF_THE_LOOP})
    return {**last, "seconds": output.metrics["train_runtime"]}


def learning_rate(step: int, *, total: int, warmup: int, recipe: TrainRecipe) -> float:
    """Factor on the highest learning rate at `step` of `total`."""
    if step < warmup:
        return step / warmup
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


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


def _arguments(recipe: TrainRecipe, folder: Path, steps_per_epoch: int) -> TrainingArguments:
    return _Arguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch,
        num_train_epochs=recipe.epochs,
        max_grad_norm=0.0,
        bf16=recipe.precision == "bf16",
        seed=recipe.seed,
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=max(1, round(recipe.checkpoint_epochs * steps_per_epoch)),
        save_total_limit=_KEPT,
        report_to=["tensorboard"] if importlib.util.find_spec("tensorboard") else [],
        push_to_hub=False,
        disable_tqdm=False,
    )


def _optimiser(model: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.sgd_momentum,
        weight_decay=recipe.weight_decay,
    )


class _Trainer(transformers.Trainer):
    run_name: str
    _seen: dict[str, torch.Tensor]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if "refused" in inputs:
            raise inputs["refused"]
        self._seen = model(**inputs)
        loss = self._seen["loss"]
        if not torch.isfinite(loss):
            raise RecipeError(
                f"{self.run_name}: train.lr",
                f"the loss is {loss.item()} at step {self.state.global_step + 1}",
                f"Lower it and choose another output; the last checkpoints stay in "
                f"{self.args.output_dir}.",
            )
        return (loss, self._seen) if return_outputs else loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch.save tells of a full disk by a RuntimeError of its stream.
            reason = f"a checkpoint could not be written ({str(error).splitlines()[0]})"
            raise OutputFailed(str(self.args.output_dir), reason) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what shows a collapse to every line that has a loss."""
        if "loss" in logs:
            own = {k: float(v) for k, v in self._seen.items() if k != "loss" and v.ndim == 0}
            measures = {**own, **collapse(self._seen["features"])}
            logs = {**logs, **{k: round(v, 4) for k, v in measures.items()}}
        super().log(logs, start_time)


class _Momentum(TrainerCallback):
    def __init__(self, model: Method) -> None:
        self._model = model

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._model.after_step(progress=state.global_step / state.max_steps)


class _PartialEpoch(TrainerCallback):
    """Tell the pictures their epoch: accelerate does so only for epochs that start at step 0."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._pictures.set_epoch(int(state.epoch or 0))


class _Seal(TrainerCallback):
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        checkpoints.seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


class _StopSignals(TrainerCallback):
    """Ends a run that is asked to stop (Ctrl-C, SIGTERM) after its step, with a checkpoint."""

    def __init__(self) -> None:
        self._caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        # Only the main thread may set handlers; elsewhere the signals stay the caller's.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self._caught is not None:
            raise KeyboardInterrupt
        self._caught = number

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._caught is not None:
            control.should_save = True
            control.should_training_stop = True

    def leave(self) -> None:
        """Leave the process the way the signal would have."""
        if self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self._caught is not None:
            sys.exit(128 + self._caught)
