"""One stage of a run: from the encoder that it starts with to the one that it leaves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import nn

from cxr_foundation.data import Study
from cxr_foundation.errors import RecipeError
from cxr_foundation.files import atomic_folder
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.models.loading import create_model, load
from cxr_foundation.pretrain import checkpoints, engine
from cxr_foundation.pretrain.method import Method, methods
from cxr_foundation.pretrain.pictures import Batches, Pictures
from cxr_foundation.pretrain.recipe import Recipe, Stage
from cxr_foundation.pretrain.views import Views

__all__ = ["build", "encoder_of", "folder_of", "run_stage"]

_WEIGHTS, _FIGURES = "encoder.safetensors", "figures.json"


def folder_of(run: Path, number: int, stage: Stage) -> Path:
    """Where a stage keeps its checkpoints, logs and, when it is done, its `result`."""
    return run / "stages" / f"{number + 1}-{stage.method}"


def run_stage(
    recipe: Recipe, number: int, studies: Sequence[Study], *, run: Path
) -> dict[str, float]:
    """Train one stage, or take it up again; a stage that is done is only read.

    Args:
        recipe: Of the run.
        number: Of the stage, from 0; the one before it must be done.
        studies: The stage's radiographs.
        run: Folder of the run.

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
    )
    model = build(recipe, number, run=run)
    figures = engine.train(
        model,
        pictures=pictures,
        batches=Batches(pictures, _views(recipe, stage)),
        recipe=stage.train,
        folder=folder / "checkpoints",
        resume=checkpoints.newest(folder / "checkpoints"),
        name=recipe.name,
    )
    state = {name: t.cpu().contiguous() for name, t in model.result().state_dict().items()}
    with atomic_folder(result) as done_folder:
        safetensors.torch.save_file(state, done_folder / _WEIGHTS, metadata={"format": "pt"})
        (done_folder / _FIGURES).write_text(json.dumps(figures, indent=1))
    return figures


def build(recipe: Recipe, number: int, *, run: Path) -> Method:
    """The untrained method of a stage; equal recipes give equal weights.

    Raises:
        RecipeError: `start` is an encoder of another architecture, or the method cannot take it.
        UnknownName: `start` is no model.
    """
    stage = recipe.stages[number]
    seed = stage.train.seed
    # timm's initialisation draws from torch's global generator; it is put back as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = _network(recipe, _view_size(recipe, stage))
    before = _state_before(recipe, number, run)
    if before is not None:
        encoder.load_state_dict(before, strict=True)
    try:
        return methods()[stage.method].build(
            encoder,
            settings=stage.settings,
            view=(recipe.encoder.in_chans, *_view_size(recipe, stage)),
            generator=torch.Generator().manual_seed(seed),
        )
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise RecipeError(f"{recipe.name}: stages.{number}.{key}", reason) from None


def encoder_of(recipe: Recipe, *, run: Path) -> nn.Module:
    """The encoder that the last stage left, as timm builds it, in evaluation mode."""
    encoder = _network(recipe, recipe.contract.size)
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
    if recipe.start is None:
        return None
    name, in_chans = recipe.encoder.architecture, recipe.encoder.in_chans
    if Path(recipe.start).exists():
        return load(recipe.start, architecture=name, in_chans=in_chans, num_classes=0).state_dict()
    return create_model(recipe.start, in_chans=in_chans, num_classes=0).state_dict()


def _network(recipe: Recipe, view: tuple[int, int]) -> nn.Module:
    """A network of timm with random weights, ready for views of this size."""
    stock, model_args = STOCK[recipe.encoder.architecture]
    arguments: dict[str, Any] = dict(model_args)
    if recipe.encoder.drop_path:
        arguments["drop_path_rate"] = recipe.encoder.drop_path
    arguments |= {"in_chans": recipe.encoder.in_chans, "num_classes": 0}
    network: nn.Module = timm.create_model(stock, pretrained=False, **arguments)
    sized = "dynamic_img_size" in inspect.signature(type(network).__init__).parameters
    if sized and tuple(view) != tuple(recipe.contract.size):
        # Position embeddings keep the contract's size; each view's are interpolated from them.
        network = timm.create_model(stock, pretrained=False, **arguments, dynamic_img_size=True)
    return network


def _view_size(recipe: Recipe, stage: Stage) -> tuple[int, int]:
    return stage.views.size or recipe.contract.size


def _views(recipe: Recipe, stage: Stage) -> list[Views]:
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
