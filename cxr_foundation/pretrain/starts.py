"""What a run starts from: any encoder there is, its tensors all from one file, and its history.

A recipe's `start` is

* `timm:NAME`, weights that timm has for a network ("timm:resnet50.a1_in1k"), supervised or not,
  through timm's own cache; `timm:hf-hub:org/name` likewise;
* a model of the catalogue ("cxr_resnet18.moco_open"), the bundled ones among them;
* a published folder;
* a checkpoint file of any layout that `convert` knows, timm's and torchvision's among them.

Every tensor of the encoder comes from it, or an error says which does not: three channels become
one only where that is exact (`models.channels`), and nothing but position tables is resampled for
another size of pictures. What is known of it goes with the run: name, hash, licence, and which test
pictures it may have seen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub import errors as hub_errors
from timm.models import (
    PretrainedCfg,
    get_pretrained_cfg,
    load_model_config_from_hf,
    model_entrypoint,
)
from torch import Tensor, nn

from cxr_foundation import catalog
from cxr_foundation.catalog import Checkpoint
from cxr_foundation.convert import Converted, convert
from cxr_foundation.errors import (
    CardError,
    KeyMismatch,
    RecipeError,
    SourceUnavailable,
    UnknownLayout,
    UnknownName,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.models.architectures import STOCK, cfg_of
from cxr_foundation.models.build import assemble, without_weights
from cxr_foundation.models.config import read_config, weights_of
from cxr_foundation.models.loading import weights_path
from cxr_foundation.pretrain.recipe import Recipe
from cxr_foundation.registry import closest

__all__ = ["Start", "check_architecture", "network_of", "read", "tensors"]

_TIMM = "timm:"
_FIELDS = ("mean", "std", "licence", "method", "data", "overlaps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What is known of the encoder that a run starts from.

    Attributes:
        name: As the recipe names it; of a file or folder without the way to it.
        sha256: Of its file; None if timm does not tell which file it was.
        licence: Of its weights; None if unknown.
        method: How it was trained; None if unknown.
        data: What it was trained on; None if unknown.
        overlaps: Public test sets whose pictures it may have seen; None if unknown.
        mean: Per channel of the recipe's encoder, what it was fed; None if unknown.
        std: Likewise.
    """

    name: str
    sha256: str | None
    licence: str | None = None
    method: str | None = None
    data: tuple[str, ...] | None = None
    overlaps: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the tensors are, and the network that they are for in timm's words."""

    start: Start
    weights: Path | Mapping[str, Tensor]
    stock: str
    model_args: Mapping[str, Any]
    cfg: PretrainedCfg


def check_architecture(recipe: Recipe) -> None:
    """Refuse a network that nobody knows.

    Raises:
        RecipeError: `encoder.architecture` is neither one of ours nor timm's.
    """
    name = recipe.encoder.architecture
    key = f"{recipe.name}: encoder.architecture"
    if "." in name:
        reason = f"{name!r} names weights, not a network"
        raise RecipeError(key, reason, f"Write {name.partition('.')[0]}, and the weights in start.")
    if name not in STOCK and not timm.is_model(name):
        hint = closest(name, [*STOCK, *timm.list_models()]) or f"Ours are {', '.join(STOCK)}."
        raise RecipeError(key, f"{name!r} is none of ours and none of timm's", hint)


def network_of(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """Stock name of a recipe's network, and its arguments beyond timm's own.

    `img_size` is among them where a network is built for one size and the contract has another.
    """
    name = recipe.encoder.architecture
    stock, own = STOCK.get(name, (name, {}))
    args: dict[str, Any] = {**own, "in_chans": recipe.encoder.in_chans}
    cfg = get_pretrained_cfg(stock)
    if cfg is not None and cfg.fixed_input_size:
        built = args.get("img_size", tuple(cfg.input_size[1:]))
        height, width = recipe.contract.size
        if built not in ((height, width), [height, width]) and (built, built) != (height, width):
            args["img_size"] = height if height == width else (height, width)
    return stock, args


def read(recipe: Recipe) -> Start | None:
    """What is known of a recipe's start; None for random weights. Raises as `tensors` does."""
    found = _opened(recipe)
    return None if found is None else found[0]


def tensors(recipe: Recipe) -> dict[str, Tensor] | None:
    """Every tensor of the recipe's encoder from its start; None for random weights.

    Raises:
        RecipeError: The start is of another architecture, or the recipe contradicts what it says.
        CheckpointError: A file that is unsafe or damaged, that does not set every tensor, or whose
            channels cannot be adapted exactly.
        SourceError: It cannot be fetched.
        UnknownName: No model, file or folder has this name.
    """
    found = _opened(recipe)
    return None if found is None else dict(found[1].state_dict())


def _opened(recipe: Recipe) -> tuple[Start, nn.Module] | None:
    if recipe.start is None:
        return None
    source = _source(recipe, recipe.start)
    held, wanted = source.cfg.input_size[0], recipe.encoder.in_chans
    source = dataclasses.replace(source, start=_with_facts(recipe, source.start, channels=held))
    _check_network(recipe, source)
    fed: dict[str, Any] = {"mean": source.start.mean, "std": source.start.std}
    cfg = dataclasses.replace(source.cfg, **fed)
    if held != wanted and (cfg.mean is None or cfg.std is None):
        raise RecipeError(
            f"{recipe.name}: encoder.in_chans",
            f"{source.start.name} takes {held} channels, and nothing says how they were "
            f"normalised, so that {wanted} cannot be made of them exactly",
            f"Use {held}, or state start_facts.mean and start_facts.std.",
        )
    stock, args = network_of(recipe)
    make = functools.partial(
        model_entrypoint(stock), pretrained_cfg=cfg, **{**args, "num_classes": 0}
    )
    with torch.random.fork_rng():
        model = assemble(make, source.weights, stock=stock, cfg=cfg, subject=source.start.name)
    told = model.pretrained_cfg if isinstance(model.pretrained_cfg, dict) else {}
    return dataclasses.replace(source.start, **_input_of(told)), model


def _source(recipe: Recipe, start: str) -> _Source:
    if start.startswith(_TIMM):
        return _from_timm(start)
    path = Path(start)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(recipe, path)
    if len(path.parts) > 1:
        reason = f"{start!r} is no file and no folder"
        raise RecipeError(f"{recipe.name}: start", reason, "Check the path.")
    return _from_catalogue(start)


def _from_timm(start: str) -> _Source:
    name = start.removeprefix(_TIMM)
    foreign = name.startswith("hf-hub:")
    if not foreign and not timm.is_model_pretrained(name):
        hint = closest(name, timm.list_models(pretrained=True)) or "See timm.list_pretrained()."
        raise UnknownName(start, "timm has no weights of this name", hint)
    try:
        # With its own head and channels: asked for others, timm's loader is not strict any more.
        model = timm.create_model(name, pretrained=True)
        args = load_model_config_from_hf(name.removeprefix("hf-hub:"))[2] if foreign else {}
    except (hub_errors.HTTPError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
        raise SourceUnavailable(
            start,
            f"timm cannot fetch or load it ({type(error).__name__}: {_first_line(error)})",
            "Check the network and the name, or name a file: start: PATH.",
        ) from error
    told: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    file = _file_of(told)
    architecture = told.get("architecture") or name.partition(".")[0]
    return _Source(
        start=Start(
            name=start,
            sha256=None if file is None else sha256_of(file),
            licence=told.get("license"),
            **_input_of(told),
        ),
        weights=model.state_dict(),
        stock=architecture,
        model_args=args or {},
        cfg=_cfg(architecture, told),
    )


def _file_of(cfg: Mapping[str, Any]) -> Path | None:
    """The file in timm's cache that a model was loaded from, if timm's description leads to it."""
    if cfg.get("file"):
        return Path(cfg["file"])
    if cfg.get("hf_hub_id"):
        repo, _, revision = cfg["hf_hub_id"].partition("@")
        names = [cfg.get("hf_hub_filename"), "model.safetensors", "pytorch_model.bin"]
        for name in filter(None, names):
            found = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    return None


def _from_catalogue(name: str) -> _Source:
    card = catalog.checkpoint(name)
    stock, args = STOCK[card.architecture]
    file = weights_path(card)
    return _Source(
        start=_told_by(card, name=card.name, sha256=card.source.sha256 or sha256_of(file)),
        weights=file,
        stock=stock,
        model_args=args,
        cfg=cfg_of(card),
    )


def _told_by(card: Checkpoint, *, name: str, sha256: str) -> Start:
    """What a card says; what it calls unknown is unknown."""
    data, overlaps = (
        None if f"training.{key}" in card.unknown else value
        for key, value in (("data", card.training.data), ("overlaps", card.training.overlaps))
    )
    return Start(
        name=name,
        sha256=sha256,
        licence=card.licences.weights,
        method=card.training.method,
        data=data,
        overlaps=overlaps,
        mean=card.contract.mean,
        std=card.contract.std,
    )


def _from_folder(folder: Path) -> _Source:
    config, weights = read_config(folder), weights_of(folder)
    stock, own = STOCK.get(config.architecture, (config.architecture, {}))
    sha256 = sha256_of(weights)
    start = Start(name=folder.name, sha256=sha256, **_input_of(config.pretrained_cfg))
    readme = folder / "README.md"
    if readme.is_file():
        try:
            card = catalog.read_card(readme)
        except CardError:
            card = None
        if isinstance(card, Checkpoint):
            start = _told_by(card, name=card.name, sha256=sha256)
        elif card is not None:
            licence = card.license_name if card.license == "other" else card.license
            start = dataclasses.replace(start, licence=None if licence == "unknown" else licence)
    return _Source(
        start=start,
        weights=weights,
        stock=stock,
        model_args={**own, **config.model_args},
        cfg=_cfg(stock, {**config.pretrained_cfg, "num_classes": config.num_classes}),
    )


def _from_file(recipe: Recipe, path: Path) -> _Source:
    stock, args = network_of(recipe)
    converted = _converted(path, stock, args)
    sha256 = converted.report.sha256 or sha256_of(path)
    card = catalog.by_sha256(sha256)
    start = Start(name=path.name, sha256=sha256)
    if card is not None:
        start = _told_by(card, name=card.name, sha256=sha256)
    channels = converted.model_args["in_chans"]
    cfg = without_weights(get_pretrained_cfg(converted.architecture))
    cfg = dataclasses.replace(cfg, input_size=(channels, *cfg.input_size[1:]))
    return _Source(
        start=start,
        weights=converted.state,
        stock=converted.architecture,
        model_args=converted.model_args,
        cfg=cfg,
    )


def _converted(path: Path, stock: str, args: Mapping[str, Any]) -> Converted:
    """By its shapes where they tell the network; else held to the recipe's.

    Shapes know the common networks only, and not those that differ in what has no shape.
    """
    try:
        found = convert(path)
        if found.architecture == stock:
            return found
    except (KeyMismatch, UnknownLayout):
        pass  # what the second attempt finds is what counts
    claims = {key: value for key, value in args.items() if key not in ("in_chans", "img_size")}
    return convert(path, architecture=stock, model_args=claims)


def _cfg(stock: str, told: Mapping[str, Any]) -> PretrainedCfg:
    """What timm says of a network, with channels and size of the weights at hand."""
    bare = without_weights(get_pretrained_cfg(stock), num_classes=told.get("num_classes") or 0)
    size = told.get("input_size")
    return dataclasses.replace(bare, input_size=tuple(size)) if size else bare


def _input_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(cfg[key]) if cfg.get(key) else None for key in ("mean", "std")}


def _with_facts(recipe: Recipe, start: Start, *, channels: int) -> Start:
    """Fill in from the recipe what the start does not say itself.

    Raises:
        RecipeError: The two contradict each other, or mean and std are of other channels.
    """
    known: dict[str, Any] = {}
    for key in _FIELDS if recipe.start_facts is not None else ():
        stated, own = getattr(recipe.start_facts, key), getattr(start, key)
        if stated is None:
            continue
        where = f"{recipe.name}: start_facts.{key}"
        if key in ("mean", "std"):
            stated = stated * channels if len(stated) == 1 else stated
            if len(stated) != channels:
                raise RecipeError(where, f"{len(stated)} numbers for {channels} channels")
        if own is not None and own != stated:
            reason = f"{stated!r}, but {start.name} says {own!r}"
            raise RecipeError(where, reason, "Leave it out: the start says it itself.")
        known[key] = stated
    return dataclasses.replace(start, **known)


def _check_network(recipe: Recipe, source: _Source) -> None:
    """Tensors that fit do not make two networks the same: names and arguments are compared.

    Raises:
        RecipeError: They differ.
    """
    stock, args = network_of(recipe)
    key = f"{recipe.name}: start"
    if source.stock != stock:
        reason = f"{source.start.name} is {source.stock}, not {recipe.encoder.architecture}"
        raise RecipeError(key, reason, "Set encoder.architecture to it, or choose another start.")
    ours, theirs = _arguments(args), _arguments(source.model_args)
    if ours != theirs:
        reason = f"{source.start.name} is {stock} with the arguments {theirs}, not {ours}"
        raise RecipeError(key, reason, "Choose another start or another architecture.")


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those that make a network what it is, besides channels and size."""
    free = ("in_chans", "img_size", "num_classes", "pretrained_cfg")
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
        if key not in free
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:160]
