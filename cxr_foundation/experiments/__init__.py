"""Experiments: encoders that were made in different ways, compared by one protocol.

`run` leaves a folder with results.json, table.md, curve.png and report.html; the encoders lie below
`arms/` and are not made again when the run is taken up.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from torch import nn
from tqdm import tqdm

from cxr_foundation import pretrain
from cxr_foundation._version import __version__
from cxr_foundation.data import Study, open_data
from cxr_foundation.data.splits import in_our_parts
from cxr_foundation.errors import RecipeError
from cxr_foundation.evaluate import Interval, intervals, protocol, shortcuts
from cxr_foundation.evaluate.score import Mode, Scored, plan_task, score_task
from cxr_foundation.experiments.plan import Arm, Experiment, experiments, read_experiment
from cxr_foundation.experiments.report import figure, page, table
from cxr_foundation.files import atomic_folder
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import loading
from cxr_foundation.models.embed import embed
from cxr_foundation.models.features import FeatureKind, FeatureReader
from cxr_foundation.pretrain import stages
from cxr_foundation.pretrain.recipe_file import read_recipe

__all__ = ["SCHEMA", "experiments", "read_experiment", "run"]

SCHEMA = "cxr_foundation.experiment/1"

_Array: TypeAlias = npt.NDArray[np.float32]


def run(
    experiment: str | Path,
    *,
    data: str | Path,
    output: str | Path,
    files: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    split_train: str = "pretrain",
    split_test: str = "dev",
    resamples: int = intervals.RESAMPLES,
    command: str | None = None,
) -> Path:
    """Make every arm's encoders and compare them.

    Args:
        experiment: Name of one that ships, or a YAML file.
        data: A data set with labels and a split.
        output: Folder of the run; the same one takes a run up again.
        files: Files that arms need and nobody may ship: name → path. Arms whose file is not given
            are reported as not testable.
        overrides: Keys of all pretraining recipes with dots → values, for a smaller or larger
            budget; they are reported.
        seeds: Instead of the experiment's.
        split_train: Part whose labels are drawn; encoders are pretrained by their recipes' part.
        split_test: Part that is scored; "test" is for released results only.
        resamples: Bootstrap resamples of patients.
        command: What the report says was typed.

    Returns:
        The folder with the results: `output` / "results".

    Raises:
        UnknownName, RecipeError: No such experiment, or a wrong one.
        OutputExists: There are results already.
        DataError, ImageError, CheckpointError: As `pretrain.run` and `transfer.classify.run`.
    """
    plan = read_experiment(experiment)
    if plan.mode not in get_args(Mode):
        raise RecipeError(f"{plan.name}: mode", f"{plan.mode!r} is neither probe nor knn")
    kind = FeatureKind.parse(plan.features)
    seeds = tuple(seeds) if seeds is not None else plan.seeds
    output = Path(output)
    with atomic_folder(output / "results") as folder:
        studies = in_our_parts(open_data(data))
        plans = [
            plan_task(
                task,
                studies,
                split_train=split_train,
                split_test=split_test,
                counts=plan.counts,
                draws=plan.draws,
            )
            for task in _tasks(plan)
        ]
        used = sorted({r for p in plans for side in (p.train, p.test) for r in side.rows.tolist()})
        place = np.full(len(studies), -1, dtype=np.int64)
        place[used] = np.arange(len(used))
        chosen = [studies[row] for row in used]
        rows: dict[str, _Array] = {}
        missing: dict[str, str] = {}
        for arm in plan.arms:
            if arm.file is not None and arm.file not in (files or {}):
                missing[arm.name] = f"not testable here: no file {arm.file!r} was given"
                continue
            made = _made(arm, data, output / "arms", seeds, files or {}, overrides or {})
            rows[arm.name] = np.stack([_features(build, chosen, kind) for build in made])
        rows["raw_pixels"] = _raw_pixels(chosen)
        named = {"model" if row == plan.against else row: made for row, made in rows.items()}
        scored = [
            score_task(p, named, place, mode=cast(Mode, plan.mode), resamples=resamples)
            for p in tqdm(plans, desc="tasks")
        ]
        results = {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "command": command or f"cxr experiment {experiment} --data {data} --output {output}",
            "experiment": {
                "name": plan.name,
                "title": plan.title,
                "question": plan.question,
                "against": plan.against,
                "arms": {arm.name: arm.title for arm in plan.arms},
            },
            "overrides": dict(overrides or {}),
            "protocol": {
                "mode": plan.mode,
                "features": str(kind),
                "draws": plan.draws,
                "seeds": list(seeds),
                "split_train": split_train,
                "split_test": split_test,
                "resamples": resamples,
                "tasks": [p.task.name for p in plans],
            },
            "not_testable": missing,
            "rows": _table(scored, plan.against),
        }
        (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))
        (folder / "table.md").write_text(table(results))
        drawn = figure(results)
        (folder / "curve.png").write_bytes(drawn)
        (folder / "report.html").write_text(page(results, drawn), encoding="utf-8")
    return output / "results"


_Build = Callable[[], tuple[nn.Module, Processor]]


def _made(
    arm: Arm,
    data: str | Path,
    folder: Path,
    seeds: Sequence[int],
    files: Mapping[str, str | Path],
    overrides: Mapping[str, Any],
) -> Iterator[_Build]:
    """What builds each of an arm's encoders with its processor; pretraining runs on the way."""
    for seed in seeds:
        own = {**arm.set, **overrides, "train.seed": seed}
        if arm.file is not None:
            own["start"] = str(files[arm.file])
        output = folder / arm.name / str(seed)
        if not arm.trained:
            yield functools.partial(_untrained, arm.recipe, own, output)
            continue
        if not (output / "encoder").exists():
            pretrain.run(arm.recipe, data=data, output=output, overrides=own)
        yield functools.partial(_published, output / "encoder")


def _published(folder: Path) -> tuple[nn.Module, Processor]:
    return loading.load(folder), loading.processor(folder)


def _untrained(name: str, own: Mapping[str, Any], folder: Path) -> tuple[nn.Module, Processor]:
    recipe = read_recipe(name, overrides=own)
    return stages.build(recipe, 0, run=folder).encoder.eval(), Processor(recipe.contract)


def _features(build: _Build, studies: Sequence[Study], kind: FeatureKind) -> _Array:
    encoder, processor = build()
    paths = [study.path for study in studies]
    return embed(FeatureReader(encoder, kind), processor, paths, progress=True)


def _raw_pixels(studies: Sequence[Study]) -> _Array:
    small = shortcuts.thumbnails(study.pixels() for study in studies)
    return shortcuts.raw_pixels(small)[None]


def _tasks(plan: Experiment) -> Sequence[protocol.Task]:
    known = {task.name: task for task in protocol.standing_tasks()}
    unknown = [name for name in plan.tasks if name not in known]
    if unknown:
        raise RecipeError(f"{plan.name}: tasks", f"no standing task is called {unknown[0]!r}")
    return [known[name] for name in plan.tasks or known]


def _table(scored: Sequence[Scored], against: str) -> dict[str, Any]:
    """Per task and for their mean: each row's AUROC and its difference to `against`."""
    # `score_task` calls the row that the others are compared with "model".
    averaged = [s for s in scored if s.task.averaged]
    groups = {s.task.name: [s] for s in scored}
    if len(averaged) > 1:
        groups["mean"] = averaged
    return {
        group: {
            against if row == "model" else row: {
                str(count): _cell(members, row, count) for count in members[0].per_draw[row]
            }
            for row in members[0].per_draw
        }
        for group, members in groups.items()
    }


def _cell(members: Sequence[Scored], row: str, count: protocol.Count) -> dict[str, Any]:
    def mean(values: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        return np.asarray(np.mean(values, axis=0), dtype=np.float64)

    value = mean([m.per_draw[row][count] for m in members]).mean()
    drawn = mean([m.resampled[row][count] for m in members])
    cell: dict[str, Any] = dataclasses.asdict(Interval.of(float(value), drawn))
    if row != "model":
        base = mean([m.per_draw["model"][count] for m in members]).mean()
        paired = drawn - mean([m.resampled["model"][count] for m in members])
        cell["difference"] = dataclasses.asdict(Interval.of(float(value - base), paired))
    return cell
