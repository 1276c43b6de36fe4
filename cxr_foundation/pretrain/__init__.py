"""Self-supervised pretraining: one recipe in, one published folder out."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cxr_foundation import data as datasets
from cxr_foundation.data.splits import in_our_parts
from cxr_foundation.errors import NoImages, OutputExists, PushRefused, RecipeError
from cxr_foundation.files import atomic_write
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import publish, stages
from cxr_foundation.pretrain.pictures import data_digest
from cxr_foundation.pretrain.recipe import DataRecipe, Recipe, Stage
from cxr_foundation.pretrain.recipe_file import read_recipe
from cxr_foundation.registry import closest

__all__ = ["run"]

_RUN = "run.json"
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
) -> Path:
    """Pretrain an encoder and publish it into a folder.

    A run that was cut off goes on from its newest whole checkpoint when it is started again with
    the same recipe, data and output; on a CPU every later bit is the same as without the cut.

    Args:
        recipe: Name of a recipe that ships, or a YAML file.
        data: A folder of shards, one with index.csv (and splits.csv), such a file, or a plain
            folder of pictures and DICOM files.
        output: The run's folder: checkpoints, tensorboard logs, and the published folder
            `encoder`. `runs/<name of the recipe>` if left out.
        push_to: "org/name" on the Hub, where the published folder goes in one commit.
        overrides: Keys of the recipe with dots → values: `{"train.epochs": 2}`.
        resume: False refuses an output that holds checkpoints.

    Returns:
        The published folder.

    Raises:
        RecipeError: A wrong key or value; a run that was started with another recipe, other data
            or other versions; a loss that is not finite.
        DataError: No pictures, a bad index, or a patient on two sides of the split.
        ImageError: A picture that cannot be read.
        OutputExists: The run is finished, or `resume` is False and it was started.
        OutputFailed: The disk is full or not writable.
        ContractError: Shards that were made by another intensity rule, aspect or size.
        PushRefused: `push_to` without a licence in the recipe; nothing was started.
    """
    plan = read_recipe(recipe, overrides=overrides)
    if plan.encoder.architecture not in STOCK:
        raise RecipeError(
            f"{plan.name}: encoder.architecture",
            f"{plan.encoder.architecture!r} is none of ours",
            closest(plan.encoder.architecture, STOCK) or f"Known: {', '.join(STOCK)}.",
        )
    if push_to is not None and plan.publish.licence is None:
        raise PushRefused(
            f"{plan.name}: publish.licence",
            "the recipe names no licence",
            "Set it to what the owners of the data allow, or leave push_to out.",
        )
    folder = Path(output) if output is not None else Path("runs") / plan.name
    published = folder / "encoder"
    if published.exists():
        raise OutputExists(published, "this run is finished")
    sets = [_studies_of(stage, plan.name, data) for stage in plan.stages]
    digests = _digests(plan, sets)
    _claim(folder, plan, digests, resume=resume)
    figures = [
        stages.run_stage(plan, number, studies, run=folder) for number, studies in enumerate(sets)
    ]
    facts = publish.Facts(
        studies=sets,
        digests=digests,
        figures=figures,
        versions=_versions(),
        hardware=_hardware(),
    )
    encoder = stages.encoder_of(plan, run=folder)
    return publish.write(published, encoder, plan, facts, push_to=push_to)


def _studies_of(stage: Stage, name: str, data: str | Path | None) -> list[datasets.Study]:
    where = stage.data.path or data
    if where is None:
        raise NoImages(name, "no radiographs were named", "Pass data= or --data FOLDER.")
    return choose(_studies(where), stage.data)


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


def _claim(folder: Path, recipe: Recipe, digests: Sequence[str], *, resume: bool) -> None:
    """Take the run's folder, or take it up again.

    Raises:
        RecipeError: The folder is of another run.
        OutputExists: It holds something else, or `resume` is False.
    """
    ours = {"recipe": recipe.to_dict(), "data": {"sha256": list(digests)}, "versions": _versions()}
    note = folder / _RUN
    if not note.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputExists(folder, "is there, and is no pretraining run")
        with atomic_write(note) as path:
            path.write_text(json.dumps(ours, indent=1))
        return
    if not resume:
        raise OutputExists(folder, "this run was started before")
    try:
        before = json.loads(note.read_text())
    except ValueError:
        raise OutputExists(folder, f"its {_RUN} is damaged") from None
    old, new = _flat(before), _flat(ours)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    changed = [k for k in changed if not k.startswith("recipe.watch.") and not _FREE.search(k)]
    if changed:
        shown = "; ".join(f"{k}: {old.get(k)!r} → {new.get(k)!r}" for k in changed[:8])
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
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
