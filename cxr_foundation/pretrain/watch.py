"""A run is watched while it goes on: labelled dev radiographs, speed, collapse, pictures.

Nothing here changes a weight: models are looked at in evaluation mode, without gradients and with
a copy of the random state, and are put back as they were. What was seen are lines of the trainer's
own log, so that a run that is cut off and resumed has each of them once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_foundation.errors import RecipeError
from cxr_foundation.files import atomic_write
from cxr_foundation.pretrain.collapse import collapsed
from cxr_foundation.pretrain.method import Method
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.probing import Probe
from cxr_foundation.pretrain.recipe import Recipe
from cxr_foundation.pretrain.showing import illustrated, those_that_may_be_shown

__all__ = ["PICTURES", "SEEN", "Watch", "untouched"]

SEEN, PICTURES = "watch.json", "pictures.png"
"""Beside a stage's checkpoints: what was seen, and the newest pictures."""

# How many radiographs are illustrated, and among how many they are looked for.
_SHOWN, _LOOKED_AT = 4, 24
# nvidia-smi's utilisation is that of its last sample period, "between 1 second and 1/6 second"
# (https://docs.nvidia.com/deploy/nvidia-smi/index.html): asking more often says nothing new.
_BUSY_SECONDS = 1.0


class Watch(TrainerCallback):
    """Looks at one stage of a run and writes down what it sees.

    Args:
        model: The method that is trained.
        recipe: Of the run.
        number: Of the stage, from 0.
        pictures: The stage's radiographs; a few of those that may be shown are illustrated.
        batches: Makes views of them.
        probe: Scores encoders, or None.
        folder: Of the stage.
        report: Called whenever there is something new to report.
    """

    def __init__(
        self,
        model: Method,
        *,
        recipe: Recipe,
        number: int,
        pictures: Pictures,
        batches: Batches,
        probe: Probe | None,
        folder: Path,
        report: Callable[[], None],
    ) -> None:
        self._model, self._recipe, self._number = model, recipe, number
        self._pictures, self._batches, self._probe = pictures, batches, probe
        self._folder, self._report = folder, report
        self._shown: list[int] | None = None
        self._columns: list[str] = []
        self._board: Any = None
        self._every: int | None = None
        self._warmup = 0.0
        self._since, self._since_step, self._looking = 0.0, 0, 0.0
        self._busy: list[float] = []
        self._asked = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the encoder that the stage starts with."""
        epoch = state.max_steps / args.num_train_epochs
        if self._recipe.watch.epochs is not None:
            self._every = max(1, round(self._recipe.watch.epochs * epoch))
        self._warmup = self._recipe.stages[self._number].train.warmup_epochs * epoch
        if self._every is not None and state.global_step == 0:
            self._look(args, state)
        self._since, self._since_step, self._looking = time.perf_counter(), state.global_step, 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the encoder after every so many steps, and after the last one."""
        if torch.cuda.is_available() and time.perf_counter() - self._asked > _BUSY_SECONDS:
            self._asked = time.perf_counter()
            self._busy += _busy_share()
        last = state.global_step >= state.max_steps
        if last or (self._every is not None and state.global_step % self._every == 0):
            self._look(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the speed to a line that has a loss, and stop a run that has collapsed.

        Raises:
            RecipeError: The features have collapsed.
        """
        if logs is None or "loss" not in logs:
            return
        now = time.perf_counter()
        seconds = now - self._since - self._looking
        images = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        images *= state.global_step - self._since_step
        speed = {"images_per_second": round(images / max(seconds, 1e-9), 2)}
        if self._busy:
            speed["gpu_busy"] = round(sum(self._busy) / len(self._busy), 3)
        state.log_history[-1].update(speed)
        self._since, self._since_step, self._looking = now, state.global_step, 0.0
        self._busy = []
        self._draw(args, state, speed)
        if reason := self._collapsed(args, state):
            self._write(state, stopped=reason)
            raise RecipeError(
                f"{self._recipe.name}: stages.{self._number}.method",
                reason,
                "Lower train.lr, lengthen train.warmup_epochs or take a larger train.batch, and "
                "choose another output. To go on all the same: "
                "--set watch.min_feature_std=0 --set watch.min_rank=0.",
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write down what the whole stage showed."""
        self._write(state)
        if self._board is not None:
            self._board.close()

    def _look(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        start = time.perf_counter()
        with untouched(self._model):
            # The pictures of a run that is not looked at are made all the same, at its end.
            probe = self._probe if self._every is not None else None
            seen = probe(self._model.result()) if probe is not None else {}
            self._illustrate(args, state)
        if seen:
            line = {name: round(value, 4) for name, value in seen.items()}
            state.log_history.append(
                {**line, "epoch": state.epoch or 0.0, "step": state.global_step}
            )
            self._draw(args, state, line)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in line.items())
            tqdm.write(f"step {state.global_step}: {shown}", file=sys.stderr)
        self._write(state)
        self._looking += time.perf_counter() - start

    def _illustrate(self, args: TrainingArguments, state: TrainerState) -> None:
        if type(self._model).illustrate is Method.illustrate:
            return
        if self._shown is None:
            self._shown = those_that_may_be_shown(
                self._pictures.studies, most=_SHOWN, among=_LOOKED_AT
            )
        made = illustrated(self._model, self._batches, self._shown, contract=self._recipe.contract)
        if made is None:
            return
        self._columns, picture = made
        with atomic_write(self._folder / PICTURES) as path:
            picture.save(path, format="PNG")
        if (board := self._writer(args, state)) is not None:
            name = " | ".join(self._columns)
            pixels = np.asarray(picture)
            shape = "HW" if pixels.ndim == 2 else "HWC"
            board.add_image(name, pixels, state.global_step, dataformats=shape)

    def _collapsed(self, args: TrainingArguments, state: TrainerState) -> str | None:
        watch = self._recipe.watch
        lines = [
            line
            for line in state.log_history
            if "feature_std" in line and line["step"] > self._warmup
        ]
        # Of three pictures or fewer no more than two directions can differ.
        rank = watch.min_rank if args.train_batch_size > 3 else 0.0
        return collapsed(
            lines,
            min_feature_std=watch.min_feature_std,
            min_rank=rank,
            patience=watch.patience,
        )

    def _write(self, state: TrainerState, *, stopped: str | None = None) -> None:
        if not state.is_world_process_zero:
            return
        seen = {
            "lines": state.log_history,
            "steps": state.max_steps,
            "columns": self._columns or _before(self._folder).get("columns", []),
            "left_out": self._probe.left_out if self._probe is not None else {},
            "stopped": stopped,
        }
        with atomic_write(self._folder / SEEN) as path:
            path.write_text(json.dumps(seen, indent=1))
        self._report()

    def _draw(
        self, args: TrainingArguments, state: TrainerState, values: Mapping[str, float]
    ) -> None:
        """Show numbers in tensorboard, where transformers shows its own."""
        if (board := self._writer(args, state)) is not None:
            for name, value in values.items():
                board.add_scalar(f"watch/{name}", value, state.global_step)
            board.flush()

    def _writer(self, args: TrainingArguments, state: TrainerState) -> Any:
        if not state.is_world_process_zero or importlib.util.find_spec("tensorboard") is None:
            return None
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier process showed of later steps is hidden: they are done again.
            self._board = SummaryWriter(
                str(Path(str(args.output_dir)) / "runs" / "watch"),
                purge_step=state.global_step or None,
            )
        return self._board


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and a copy of the random state; afterwards all is as before."""
    training = {module: module.training for module in model.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, was in training.items():
            module.training = was


def _busy_share() -> list[float]:
    """How busy the GPU was lately, within [0, 1]; nothing where NVIDIA's library is missing."""
    try:
        return [torch.cuda.utilization() / 100]
    except (ImportError, RuntimeError):
        return []


def _before(folder: Path) -> dict[str, Any]:
    try:
        seen: dict[str, Any] = json.loads((folder / SEEN).read_text())
    except (OSError, ValueError):
        return {}
    return seen
