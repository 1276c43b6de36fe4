"""The order of a curriculum, found by trying each of its methods alone.

Sirotkin et al., "Improved skin lesion recognition by a Self-Supervised Curricular Deep Learning
approach" (arXiv 2112.12086), train a series of pretext tasks one after the other and speak of "a
simple methodology to establish an ordering"; what it is could not be read here, so this rule is our
own. Each stage is trained alone, from what the run starts with, for the same small number of
epochs, and its encoder is scored with few labels on the dev part. Stages are put in the order of
their scores, the lowest first: what a stage has learnt is partly overwritten by the next, and the
encoder that is published is the last one's, so the task that serves best by itself comes last and
the others give it its start. Equal scores keep the recipe's order.

Labels have then chosen the recipe, and the card says so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from cxr_foundation.data import Study
from cxr_foundation.errors import BadLabels, RecipeError
from cxr_foundation.files import atomic_write
from cxr_foundation.pretrain import stages
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.probing import Probe
from cxr_foundation.pretrain.recipe import Recipe

__all__ = ["ORDERED", "alone", "by_probe", "check"]

ORDERED = "ordered.yaml"
"""In the run's folder: the recipe that it trains."""

_SCORE = "score.json"


def check(recipe: Recipe, probe: Probe, *, epochs: int) -> None:
    """Refuse what cannot be ordered, before anything is trained.

    Raises:
        RecipeError: One stage only, or no epochs.
        BadLabels: None of the tasks can be scored.
    """
    if len(recipe.stages) < 2:
        raise RecipeError(f"{recipe.name}: stages", "one stage has no order")
    if epochs < 1:
        raise RecipeError("order_epochs", f"{epochs} is below 1")
    if not probe.plans:
        reasons = "; ".join(f"{task}: {why}" for task, why in probe.left_out.items())
        raise BadLabels(
            f"{recipe.name}: watch.tasks",
            f"no task can be scored, so stages cannot be ordered ({reasons})",
            "Set watch.data to labelled radiographs and watch.tasks to a file of their tasks.",
        )


def by_probe(
    recipe: Recipe, sets: Sequence[Sequence[Study]], *, run: Path, probe: Probe, epochs: int
) -> tuple[Recipe, list[int]]:
    """Try each stage alone and put them in the order of their scores.

    Trials that are done are only read, so that a run that is cut off goes on where it was.

    Args:
        recipe: Of the run.
        sets: The radiographs of each stage.
        run: Folder of the run; it will hold `order/` and the ordered recipe.
        probe: Scores encoders.
        epochs: That each stage is tried for.

    Returns:
        The ordered recipe, and which stage of `recipe` is at each of its places.
    """
    scores = []
    for number, studies in enumerate(sets):
        folder = run / "order" / f"{number + 1}-{recipe.stages[number].method}"
        scores.append(_score(alone(recipe, number, epochs=epochs), studies, folder, probe))
    order = sorted(range(len(scores)), key=lambda number: scores[number])
    tried = ", ".join(
        f"{methods()[recipe.stages[number].method].title} {scores[number]:.3f}" for number in order
    )
    note = (
        f"The order of the stages was chosen with labels: each was trained alone for {epochs} "
        f"epochs and scored on the {recipe.watch.score} part ({probe.score_key}, AUROC), the "
        f"lowest first: {tried}."
    )
    ordered = dataclasses.replace(
        recipe,
        stages=tuple(recipe.stages[number] for number in order),
        publish=dataclasses.replace(
            recipe.publish,
            labels_used_for_selection=True,
            notes=f"{recipe.publish.notes.strip()}\n\n{note}".strip(),
        ),
    )
    text = yaml.safe_dump(ordered.to_dict(), sort_keys=False, allow_unicode=True)
    with atomic_write(run / ORDERED) as path:
        path.write_text(text, encoding="utf-8")
    return ordered, order


def alone(recipe: Recipe, number: int, *, epochs: int) -> Recipe:
    """One stage of a recipe as a recipe, its schedule pressed into fewer or more epochs."""
    stage = recipe.stages[number]
    warmup = stage.train.warmup_epochs * epochs / stage.train.epochs
    train = dataclasses.replace(stage.train, epochs=epochs, warmup_epochs=warmup)
    return dataclasses.replace(
        recipe,
        stages=(dataclasses.replace(stage, train=train),),
        watch=dataclasses.replace(recipe.watch, epochs=None),
    )


def _score(recipe: Recipe, studies: Sequence[Study], folder: Path, probe: Probe) -> float:
    """Train a recipe of one stage and score its encoder, or read what was scored before."""
    note = folder / _SCORE
    if note.exists():
        return float(json.loads(note.read_text())[probe.score_key])
    stages.run_stage(recipe, 0, studies, run=folder)
    encoder = stages.encoder_of(recipe, run=folder)
    figures = probe(encoder.to("cuda" if torch.cuda.is_available() else "cpu"))
    with atomic_write(note) as path:
        path.write_text(json.dumps(figures, indent=1))
    return figures[probe.score_key]
