"""How well features tell the labels of dev radiographs apart, while their encoder is trained."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cxr_foundation.contract import InputContract
from cxr_foundation.data import Study
from cxr_foundation.errors import BadIndex, BadLabels
from cxr_foundation.evaluate import auroc, knn_scores, probe_scores
from cxr_foundation.evaluate.protocol import Side, Task, read_tasks, standing_tasks
from cxr_foundation.evaluate.score import Plan, plan_task
from cxr_foundation.pretrain.pictures import Pictures
from cxr_foundation.pretrain.recipe import WatchRecipe

__all__ = ["Probe"]

# Pixels of one pass of the encoder: 84 pictures of 224 x 224.
_PASS = 1 << 22

_Classify = Callable[[Any, Any, Any], npt.NDArray[np.float64]]
_CLASSIFY: Mapping[str, _Classify] = {"knn": knn_scores, "probe": probe_scores}


class Probe:
    """A labelled part of a data set, and how well features tell its labels apart.

    The draws of labels are the protocol's (`evaluate.protocol`), the same at every look.

    Args:
        studies: All radiographs of the data set, with their splits and labels.
        watch: Tasks, mode, labels, draws and parts.
        contract: What the encoder is fed.
        bits: 8 or 16 per pixel of the copies.
        in_memory: Keep the copies in memory, or read them again at every look.

    Attributes:
        plans: One for each task that the data have labels for; without any nothing is scored.
        left_out: Title of each other task → why.

    Raises:
        RecipeError: A file of tasks that cannot be read.
        PatientLeak: A patient would be both trained and scored on.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        watch: WatchRecipe,
        contract: InputContract,
        bits: int,
        in_memory: bool,
    ) -> None:
        self.plans: list[Plan] = []
        self.left_out: dict[str, str] = {}
        self._watch = watch
        self._contract = contract
        self._settings: dict[str, Any] = {"bits": bits, "in_memory": in_memory}
        for task in _tasks(watch.tasks):
            try:
                plan = plan_task(
                    task,
                    studies,
                    split_train=watch.train,
                    split_test=watch.score,
                    counts=(watch.labels,),
                    draws=watch.draws,
                )
            except (BadLabels, BadIndex) as error:
                self.left_out[task.title] = error.reason
                continue
            scored = _at_most(plan.test, watch.images, task)
            self.plans.append(dataclasses.replace(plan, test=scored))
        rows = sorted({row for plan in self.plans for row in _rows(plan)})
        self._place = {row: place for place, row in enumerate(rows)}
        self._studies = [studies[row] for row in rows]
        self._pictures: Pictures | None = None

    def __call__(self, encoder: nn.Module) -> dict[str, float]:
        """AUROC, mean over the draws: of each task, and of the mean over tasks.

        Args:
            encoder: In evaluation mode: (N, C, H, W) → (N, D).

        Returns:
            "<mode>_<task>" for each task and "<mode>_mean", the mean over those tasks that are
            averaged (over all if none is); empty if there is no task.

        Raises:
            ImageError: A radiograph cannot be read.
        """
        if not self.plans:
            return {}
        features = self._features(encoder)
        classify = _CLASSIFY[self._watch.mode]
        figures = {}
        for plan in self.plans:
            scored = features[self._places(plan.test.rows)]
            scores = [
                classify(
                    scored,
                    features[self._places(plan.train.rows[drawn])],
                    plan.train.labels[drawn],
                )
                for drawn in plan.draws[self._watch.labels]
            ]
            figures[plan.task.name] = float(auroc(plan.test.labels, np.array(scores)).mean())
        averaged = [figures[p.task.name] for p in self.plans if p.task.averaged]
        figures["mean"] = float(np.mean(averaged or list(figures.values())))
        return {f"{self._watch.mode}_{name}": value for name, value in figures.items()}

    @property
    def score_key(self) -> str:
        """The figure that stands for an encoder as a whole."""
        return f"{self._watch.mode}_mean"

    def _places(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """Where radiographs are among those that are held."""
        return [self._place[row] for row in rows.tolist()]

    def _features(self, encoder: nn.Module) -> npt.NDArray[np.float32]:
        """float32 (N, D) of all radiographs of all tasks."""
        if self._pictures is None:
            self._pictures = Pictures(
                self._studies, contract=self._contract, size=self._contract.size, **self._settings
            )
        device = next(encoder.parameters()).device
        step = max(1, _PASS // (self._contract.size[0] * self._contract.size[1]))
        features = []
        with torch.no_grad():
            for first in range(0, len(self._studies), step):
                last = min(first + step, len(self._studies))
                pictures = self._pictures.take(range(first, last))
                features.append(encoder(_normalised(pictures, self._contract).to(device)))
        found: npt.NDArray[np.float32] = torch.cat(features).float().cpu().numpy()
        return found


def _tasks(tasks: str) -> Sequence[Task]:
    return standing_tasks() if tasks == "standing" else read_tasks(Path(tasks))


def _at_most(side: Side, images: int, task: Task) -> Side:
    """Part of a side: of each class up to half of `images`, in the order of digests."""
    order = sorted(
        range(len(side.rows)),
        key=lambda i: hashlib.sha256(
            "\0".join((task.name, side.patients[i], side.files[i])).encode()
        ).digest(),
    )
    half = max(1, images // 2)
    kept = sorted(
        i for label in (True, False) for i in [j for j in order if side.labels[j] == label][:half]
    )
    return dataclasses.replace(
        side,
        rows=side.rows[kept],
        labels=side.labels[kept],
        patients=tuple(side.patients[i] for i in kept),
        files=tuple(side.files[i] for i in kept),
    )


def _rows(plan: Plan) -> set[int]:
    """Radiographs that a plan needs; of the labelled side only those that are drawn."""
    drawn = {int(i) for draws in plan.draws.values() for positions in draws for i in positions}
    return {int(plan.train.rows[i]) for i in drawn} | set(plan.test.rows.tolist())


def _normalised(pictures: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """uint8 or uint16 (N, H, W) or (N, C, H, W) → float32 (N, C, H, W) as the contract has it."""
    values = pictures.to(torch.float32) / torch.iinfo(pictures.dtype).max
    values = values if values.ndim == 4 else values[:, None]
    mean, std = (torch.tensor(v)[:, None, None] for v in (contract.mean, contract.std))
    return (values - mean) / std
