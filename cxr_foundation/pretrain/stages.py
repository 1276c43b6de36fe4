"""One stage of a run: from the encoder that it starts with to the one that it leaves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import nn

from cxr_foundation.data import Study
from cxr_foundation.errors import RecipeError
from cxr_foundation.files import atomic_folder
from cxr_foundation.pretrain import checkpoints, distributed, engine, starts
from cxr_foundation.pretrain.method import Method, methods
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.probing import Probe
from cxr_foundation.pretrain.recipe import Recipe, Stage
from cxr_foundation.pretrain.views import Views
from cxr_foundation.pretrain.watch import Watch

__all__ = ["build", "encoder_of", "folder_of", "run_stage", "view_size", "views_of"]

_WEIGHTS, _FIGURES = "encoder.safetensors", "figures.json"


def folder_of(run: Path, number: int, stage: Stage) -> Path:
    """Where a stage keeps its checkpoints, logs and, when it is done, its `result`."""
    return run / "stages" / f"{number + 1}-{stage.method}"


def run_stage(
    recipe: Recipe,
    number: int,
    studies: Sequence[Study],
    *,
    run: Path,
    probe: Probe | None = None,
    report: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Train one stage, or take it up again; a stage that is done is only read.

    Args:
        recipe: Of the run.
        number: Of the stage, from 0; the one before it must be done.
        studies: The stage's radiographs.
        run: Folder of the run.
        probe: Scores the encoder while it is trained, as `recipe.watch` says.
        report: Called whenever there is something new to report.

    Returns:
        The stage's last figures, as `engine.train` gives them.
    """
    stage = recipe.stages[number]
    folder = folder_of(run, number, stage)
    result = folder / "result"
    if result.exists():
        done: dict[str, float] = json.loads((result / _FIGURES).read_text())
        return done
    pictures = Pictures(
        studies,
        contract=recipe.contract,
        size=stage.data.size,
        bits=stage.data.bits,
        in_memory=stage.data.in_memory,
        colour=stage.data.colour,
        bad=stage.data.bad,
        classes=getattr(stage.settings, "classes", ()),
    )
    model = build(recipe, number, run=run)
    batches = Batches(pictures, views_of(recipe, stage))
    watch = Watch(
        model,
        recipe=recipe,
        number=number,
        pictures=pictures,
        batches=batches,
        probe=probe,
        folder=folder,
        report=report,
    )
    figures = engine.train(
        model,
        pictures=pictures,
        batches=batches,
        recipe=stage.train,
        folder=folder / "checkpoints",
        resume=distributed.on_first(lambda: checkpoints.newest(folder / "checkpoints")),
        name=recipe.name,
        watchers=[watch],
    )
    return distributed.on_first(lambda: _keep(model.result(), figures, result))


def _keep(encoder: nn.Module, figures: dict[str, float], result: Path) -> dict[str, float]:
    state = {name: t.cpu().contiguous() for name, t in encoder.state_dict().items()}
    with atomic_folder(result) as done_folder:
        safetensors.torch.save_file(state, done_folder / _WEIGHTS, metadata={"format": "pt"})
        (done_folder / _FIGURES).write_text(json.dumps(figures, indent=1))
    return figures


def build(recipe: Recipe, number: int, *, run: Path) -> Method:
    """The untrained method of a stage; equal recipes give equal weights.

    Raises:
        RecipeError: timm cannot build the encoder, `start` is another one, or the method cannot
            take it.
        CheckpointError, SourceError, UnknownName: `start` cannot be had; see `starts.tensors`.
    """
    stage = recipe.stages[number]
    seed = stage.train.seed
    # timm's initialisation draws from torch's global generator; it is put back as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = _network(recipe, *_view_sizes(recipe, stage))
    before = _state_before(recipe, number, run)
    if before is not None:
        encoder.load_state_dict(before, strict=True)
    try:
        return methods()[stage.method].build(
            encoder,
            settings=stage.settings,
            view=(recipe.encoder.in_chans, *view_size(recipe, stage)),
            generator=torch.Generator().manual_seed(seed),
        )
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise RecipeError(f"{recipe.name}: stages.{number}.{key}", reason) from None


def encoder_of(recipe: Recipe, *, run: Path) -> nn.Module:
    """The encoder that the last stage left, as timm builds it, in evaluation mode."""
    encoder = _network(recipe)
    last = len(recipe.stages)
    state = _state_before(recipe, last, run)
    assert state is not None
    encoder.load_state_dict(state, strict=True)
    return encoder.eval()


def _state_before(recipe: Recipe, number: int, run: Path) -> Mapping[str, torch.Tensor] | None:
    """Tensors that stage `number` starts from; None for random weights."""
    if number:
        result = folder_of(run, number - 1, recipe.stages[number - 1]) / "result"
        return safetensors.torch.load_file(result / _WEIGHTS)
    return starts.tensors(recipe)


def _network(recipe: Recipe, *views: tuple[int, int]) -> nn.Module:
    """A network of timm with random weights, ready for views of these sizes.

    Its tensors are those of the contract's size, whatever the views': a ViT interpolates its
    position embeddings for each view, a Swin pads to the windows that it has.

    Raises:
        RecipeError: timm cannot build it, or it takes one size only.
    """
    stock, arguments = starts.network_of(recipe)
    network = _built(recipe, stock, arguments)
    # Some of timm's networks have random depth unless they are told otherwise.
    if _default(network, "drop_path_rate", 0.0) != recipe.encoder.drop_path:
        arguments["drop_path_rate"] = recipe.encoder.drop_path
        network = _built(recipe, stock, arguments)
    others = {tuple(view) for view in views} - {tuple(recipe.contract.size)}
    cfg = timm.get_pretrained_cfg(stock)
    if not others or cfg is None or not cfg.fixed_input_size:
        return network
    for name, value in (("dynamic_img_size", True), ("strict_img_size", False)):
        if _takes(network, name):
            return _built(recipe, stock, {**arguments, name: value})
    shown = " and ".join(" x ".join(map(str, view)) for view in sorted(others))
    size = " x ".join(map(str, recipe.contract.size))
    raise RecipeError(
        f"{recipe.name}: views.size",
        f"{recipe.encoder.architecture} takes pictures of {size} pixels only, not {shown}",
        "Leave size out, or change the contract's.",
    )


def _built(recipe: Recipe, stock: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(stock, pretrained=False, **arguments, num_classes=0)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = f"timm cannot build {stock} with {dict(arguments)} ({type(error).__name__})"
        raise RecipeError(f"{recipe.name}: encoder", reason) from error
    return network


def _takes(network: nn.Module, name: str) -> bool:
    """Whether a network's class, or one that it derives from, has an argument of this name."""
    return any(name in inspect.signature(kind).parameters for kind in type(network).__mro__[:-1])


def _default(network: nn.Module, name: str, otherwise: float) -> object:
    """What a network's class takes for an argument that is not given."""
    for kind in type(network).__mro__[:-1]:
        if name in (known := inspect.signature(kind).parameters):
            return known[name].default
    return otherwise


def view_size(recipe: Recipe, stage: Stage) -> tuple[int, int]:
    """(height, width) of a stage's full views."""
    return stage.views.size or recipe.contract.size


def views_of(recipe: Recipe, stage: Stage) -> list[Views]:
    """The views that a stage's method takes, full ones first."""
    contract = recipe.contract
    assert contract.mean is not None and contract.std is not None
    configs = [stage.views]
    if methods()[stage.method].full_views == 2:
        configs.append(stage.second_view or stage.views)
    if stage.local_views is not None:
        configs += [stage.local_views] * stage.local_count
    return [
        Views(
            config,
            size=config.size or contract.size,
            mean=contract.mean,
            std=contract.std,
            seed=stage.train.seed,
        )
        for config in configs
    ]


def _view_sizes(recipe: Recipe, stage: Stage) -> list[tuple[int, int]]:
    """(height, width) of all views of a stage."""
    configs = [stage.views, stage.second_view, stage.local_views]
    return [config.size or recipe.contract.size for config in configs if config is not None]
