"""Self-supervised pretraining: one recipe in, one published folder out."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock, FileLock, Timeout

from cxr_foundation import data as datasets
from cxr_foundation.data.splits import in_our_parts
from cxr_foundation.errors import (
    NoImages,
    OutputExists,
    OutputFailed,
    PushRefused,
    RecipeError,
)
from cxr_foundation.files import atomic_write
from cxr_foundation.pretrain import distributed, dry_run, order, publish, run_report, stages, starts
from cxr_foundation.pretrain.cost import DryRun
from cxr_foundation.pretrain.pictures import data_digest
from cxr_foundation.pretrain.probing import Probe
from cxr_foundation.pretrain.recipe import DataRecipe, Recipe, Stage
from cxr_foundation.pretrain.recipe_file import read_recipe

__all__ = ["estimate", "run"]

_RUN, _LOCK = "run.json", ".lock"
# A run that was killed lets go of its folder when the last of its workers has noticed.
_LOCK_SECONDS = 10
# Keys that change how fast a run is, and nothing in what comes out of it.
_FREE = re.compile(r"\.train\.(workers|log_steps|checkpoint_epochs)$")


def run(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    push_to: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = True,
    order_epochs: int | None = None,
) -> Path:
    """Pretrain an encoder and publish it into a folder.

    A run that was cut off goes on from its newest whole checkpoint when it is started again with
    the same recipe, data and output; on a CPU every later bit is the same as without the cut.

    Started by torchrun, all processes train one encoder; `train.batch` is that of each. Only the
    first writes, and all need to see its folder.

    Args:
        recipe: Name of a recipe that ships, or a YAML file.
        data: A folder of shards, one with index.csv (and splits.csv), such a file, or a plain
            folder of pictures and DICOM files.
        output: The run's folder: checkpoints, tensorboard logs, and the published folder
            `encoder`. `runs/<name of the recipe>` if left out.
        push_to: "org/name" on the Hub, where the published folder goes in one commit.
        overrides: Keys of the recipe with dots → values: `{"train.epochs": 2}`.
        resume: False refuses an output that holds checkpoints.
        order_epochs: First try each stage alone for so many epochs, score it with the recipe's
            `watch`, and put the stages in that order (`pretrain.order`); None keeps the recipe's.

    Returns:
        The published folder. The run's folder also holds report.html, and ordered.yaml if the
        stages were ordered.

    Raises:
        RecipeError: A wrong key or value; a run that was started with another recipe, start, other
            data or other versions; a loss that is not finite; features that have collapsed.
        CheckpointError, SourceError, UnknownName: What the recipe starts from cannot be had, or
            does not set every tensor of the encoder.
        DataError: No pictures, a bad index, a patient on two sides of the split, or no labels to
            order stages by.
        ImageError: A picture that cannot be read.
        OutputExists: The run is finished, or `resume` is False and it was started.
        OutputFailed: The disk is full or not writable.
        ContractError: Shards that were made by another intensity rule, aspect or size.
        PushRefused: `push_to` without a licence in the recipe; nothing was started.
        MissingExtra: accelerate or matplotlib is not installed.
    """
    plan = _plan(recipe, overrides)
    if push_to is not None and plan.publish.licence is None:
        raise PushRefused(
            f"{plan.name}: publish.licence",
            "the recipe names no licence",
            "Set it to what the owners of the data allow, or leave push_to out.",
        )
    run_report.require_matplotlib()
    folder = Path(output) if output is not None else Path("runs") / plan.name
    if order_epochs is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"{plan.name}: stages",
            "their order is found by one process",
            "Start without torchrun; then train the run's ordered.yaml with it.",
        )
    lock = FileLock(folder / _LOCK, timeout=_LOCK_SECONDS)
    try:
        with distributed.together():
            return _run(
                plan,
                folder,
                lock,
                data=data,
                push_to=push_to,
                resume=resume,
                order_epochs=order_epochs,
            )
    finally:
        lock.release()


def estimate(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    images: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> DryRun:
    """What a run would cost in memory and time, here and on a large GPU; nothing is written.

    Args:
        recipe: Name of a recipe that ships, or a YAML file.
        data: As of `run`; None measures with drawn pictures.
        images: Radiographs that time and bill are told for; None takes as many as `data` has.
        overrides: As of `run`.

    Raises:
        RecipeError: A wrong key or value, neither data nor images, or a batch that does not fit.
        DataError: No pictures, or a bad index.
        ImageError: A picture that cannot be read.
    """
    plan = _plan(recipe, overrides)
    named = data is not None or all(stage.data.path for stage in plan.stages)
    sets = [_studies_of(stage, plan.name, data) for stage in plan.stages] if named else None
    return dry_run.measure(plan, sets, images=images, hardware=_hardware())


def _plan(recipe: str | Path, overrides: Mapping[str, Any] | None) -> Recipe:
    plan = read_recipe(recipe, overrides=overrides)
    starts.check_architecture(plan)
    return plan


def _run(
    plan: Recipe,
    folder: Path,
    lock: BaseFileLock,
    *,
    data: str | Path | None,
    push_to: str | None,
    resume: bool,
    order_epochs: int | None,
) -> Path:
    published = folder / "encoder"
    if distributed.on_first(lambda: os.path.lexists(published)):
        raise OutputExists(published, "this run is finished")
    start = distributed.on_first(lambda: starts.read(plan))
    sets = [_studies_of(stage, plan.name, data) for stage in plan.stages]
    digests = distributed.on_first(lambda: _digests(plan, sets))
    probe = _probe(plan, data) if plan.watch.epochs is not None or order_epochs else None
    if order_epochs is not None and probe is not None:
        order.check(plan, probe, epochs=order_epochs)
    distributed.on_first(
        lambda: _claim(folder, lock, plan, digests, start, resume=resume, order_epochs=order_epochs)
    )
    if order_epochs is not None and probe is not None:
        plan, places = order.by_probe(plan, sets, run=folder, probe=probe, epochs=order_epochs)
        sets, digests = [sets[i] for i in places], [digests[i] for i in places]
    report = _report(plan, folder, sets, digests)
    figures = [
        stages.run_stage(plan, number, studies, run=folder, probe=probe, report=report)
        for number, studies in enumerate(sets)
    ]
    if distributed.rank() == 0:
        report()
    facts = publish.Facts(
        studies=sets,
        digests=digests,
        figures=figures,
        versions=_versions(),
        hardware=_hardware(),
        processes=distributed.world_size(),
        start=start,
    )
    return distributed.on_first(
        lambda: publish.write(
            published, stages.encoder_of(plan, run=folder), plan, facts, push_to=push_to
        )
    )


def _studies_of(stage: Stage, name: str, data: str | Path | None) -> list[datasets.Study]:
    where = stage.data.path or data
    if where is None:
        raise NoImages(name, "no radiographs were named", "Pass data= or --data FOLDER.")
    return choose(_studies(where), stage.data)


def _probe(recipe: Recipe, data: str | Path | None) -> Probe:
    """Scores encoders on the labelled radiographs that the recipe's `watch` names."""
    first = recipe.stages[0].data
    where = recipe.watch.data or first.path or data
    assert where is not None
    return Probe(
        _studies(where),
        watch=recipe.watch,
        contract=recipe.contract,
        bits=first.bits,
        in_memory=first.in_memory,
    )


def _report(
    recipe: Recipe,
    folder: Path,
    sets: Sequence[Sequence[datasets.Study]],
    digests: Sequence[str],
) -> Callable[[], None]:
    """Writes the run's report anew, from what lies in its folder."""
    about = run_report.About(
        images=[len(studies) for studies in sets],
        digests=digests,
        versions=_versions(),
        hardware=_hardware(),
    )
    folders = [stages.folder_of(folder, i, stage) for i, stage in enumerate(recipe.stages)]
    return lambda: run_report.write(folder / "report.html", recipe, about, stages=folders)


def _digests(recipe: Recipe, sets: Sequence[Sequence[datasets.Study]]) -> list[str]:
    """Of each stage's radiographs; pictures that several stages share are read once."""
    known: dict[tuple[DataRecipe, int], str] = {}
    digests = []
    for stage, studies in zip(recipe.stages, sets, strict=True):
        key = (stage.data, len(studies))
        known[key] = known[key] if key in known else data_digest(studies)
        digests.append(known[key])
    return digests


def _studies(data: str | Path) -> list[datasets.Study]:
    return in_our_parts(datasets.open_data(data))


def choose(studies: list[datasets.Study], recipe: DataRecipe) -> list[datasets.Study]:
    """The radiographs that a recipe asks for, in the order of their paths.

    Raises:
        NoImages: None is left.
        BadIndex: The data set has a split, but not this part.
    """
    if any(s.split is not None for s in studies):
        studies = datasets.by_split(studies, recipe.split)
    left = [s for s in studies if recipe.sources is None or s.source in recipe.sources]
    if not left:
        known = ", ".join(sorted({s.source or "unnamed" for s in studies}))
        raise NoImages(
            "data.sources",
            f"none of {len(studies)} pictures is of these; there are: {known}",
            "Use all with --set data.sources=null.",
        )
    kept = [s for s in left if datasets.may_ship(s)] if recipe.only_may_ship else left
    if not kept:
        raise NoImages(
            "data.only_may_ship",
            f"none of {len(left)} pictures is known to be redistributable",
            "For an encoder of your own: --set data.only_may_ship=false.",
        )
    return sorted(kept, key=lambda s: s.path.as_posix())


def _claim(
    folder: Path,
    lock: BaseFileLock,
    recipe: Recipe,
    digests: Sequence[str],
    start: starts.Start | None,
    *,
    resume: bool,
    order_epochs: int | None,
) -> None:
    """Take the run's folder, or take it up again.

    Raises:
        RecipeError: The folder is of another run.
        OutputExists: It holds something else, another run is at work in it, or `resume` is False.
        OutputFailed: It is not writable.
    """
    settings = recipe.to_dict()
    ours: dict[str, Any] = {
        "recipe": settings,
        "data": {"sha256": list(digests)},
        "versions": _versions(),
        "processes": distributed.world_size(),
        "start": None if start is None else start.to_dict(),
    }
    if order_epochs is not None:
        # Where the stages are ordered by it, what is watched does change what comes out.
        ours["order"] = {"epochs": order_epochs, "watch": settings["watch"]}
    note = folder / _RUN
    try:
        new = not note.exists()
        if new and folder.exists():
            if not folder.is_dir() or any(p.name != _LOCK for p in folder.iterdir()):
                raise OutputExists(folder, "is there, and is no pretraining run")
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputExists(
            folder, "another run is at work in it", "Wait for it, or choose another output."
        ) from None
    except OSError as error:
        raise OutputFailed(folder, f"the place is not writable ({error.strerror})") from error
    if new:
        with atomic_write(note) as path:
            path.write_text(json.dumps(ours, indent=1))
        return
    if not resume:
        raise OutputExists(folder, "this run was started before")
    try:
        before = json.loads(note.read_text())
    except ValueError:
        raise OutputExists(folder, f"its {_RUN} is damaged") from None
    old, now = _flat(before), _flat(ours)
    changed = sorted(k for k in old.keys() | now.keys() if old.get(k) != now.get(k))
    changed = [k for k in changed if not k.startswith("recipe.watch.") and not _FREE.search(k)]
    if changed:
        shown = "; ".join(f"{k}: {old.get(k)!r} → {now.get(k)!r}" for k in changed[:8])
        raise RecipeError(
            folder, f"this run was started differently ({shown})", "Choose another output."
        )


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        value = {str(i): inner for i, inner in enumerate(value)}
    if not isinstance(value, dict):
        return {where.removesuffix("."): value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{where}{key}.").items()}


def _versions() -> dict[str, str]:
    from cxr_foundation._version import __version__

    libraries = ("torch", "timm", "transformers", "accelerate", "numpy")
    return {"cxr_foundation": __version__, **{name: version(name) for name in libraries}}


def _hardware() -> str:
    device = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    processes = distributed.world_size()
    return device if processes == 1 else f"{processes} processes, each on {device}"
