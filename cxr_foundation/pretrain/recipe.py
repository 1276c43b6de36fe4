"""Recipes: one YAML file per pretraining run, read into frozen records."""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, RecipeError, UnknownName
from cxr_foundation.pretrain.moco import MocoConfig
from cxr_foundation.pretrain.views import ViewConfig
from cxr_foundation.registry import closest

__all__ = ["Recipe", "parse_overrides", "read_recipe", "recipes"]

T = TypeVar("T")
# A recipe is a page of text; more is not one.
_MOST_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """The network that is pretrained.

    Attributes:
        architecture: A `cxr_*` name.
        in_chans: 1, or 3 for grey replicated.
    """

    architecture: str
    in_chans: int = 1

    def __post_init__(self) -> None:
        if self.in_chans not in (1, 3):
            raise ValueError(f"in_chans: {self.in_chans!r} is neither 1 nor 3")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which radiographs, and how they are held.

    Attributes:
        split: Part of the data set's split; all of it where the data set has no split.
        only_may_ship: Leave out every picture whose terms do not allow redistribution.
        sources: Short names of the data sets that are used; None means all.
        size: (height, width) in pixels to which a picture is brought once, before its views.
        bits: 8 or 16 per pixel of that copy.
        in_memory: Keep all copies in memory; otherwise each is made again for every epoch.
    """

    split: str = "pretrain"
    only_may_ship: bool = False
    sources: tuple[str, ...] | None = None
    size: tuple[int, int]
    bits: int = 8
    in_memory: bool = True

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ValueError(f"bits: {self.bits!r} is neither 8 nor 16")
        if not all(16 <= s <= 4096 for s in self.size):
            raise ValueError(f"size: {self.size!r} is not two whole numbers from 16 to 4096")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Optimiser, schedule and loop.

    Attributes:
        epochs: Passes over the data.
        batch: Radiographs per step; an incomplete last batch is left out.
        optimiser: "sgd" or "adamw".
        lr: Learning rate at its highest.
        sgd_momentum: Of "sgd".
        weight_decay: On every parameter.
        schedule: "cosine" to zero, or "constant"; changes at every step.
        warmup_epochs: Epochs over which the rate rises linearly from zero.
        seed: Of weights, order and views.
        precision: "fp32", or "bf16" autocast.
        workers: Processes that make views; 0 makes them between the steps.
        checkpoint_epochs: Epochs between checkpoints.
        log_steps: Steps between log lines.
    """

    epochs: int
    batch: int
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = 0
    checkpoint_epochs: float = 1.0
    log_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "log_steps", "lr", "checkpoint_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for name in ("seed", "workers", "weight_decay", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is below 0")
        if self.batch < 2:
            raise ValueError(f"batch: {self.batch!r} is not above 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishRecipe:
    """What the encoder is called and what its card says beyond what the run knows itself.

    Attributes:
        tag: The part of the name after the dot.
        title: One line for people.
        precision: Of the published file.
        licence: The card's `license`, a Hub identifier; None means unknown, and is not pushed.
        data: Names of the data sets with their terms.
        data_licence: Terms of the data as a whole.
        overlaps: Public test sets whose pictures the encoder may have seen.
        labels_used_for_selection: Whether labels chose the recipe; None means not stated.
        citation: BibTeX or one line; None if there is none.
        notes: Paragraphs for the card's text.
    """

    tag: str
    title: str
    precision: Literal["fp16", "fp32"] = "fp16"
    licence: str | None = None
    data: tuple[str, ...] = ()
    data_licence: str | None = None
    overlaps: tuple[str, ...] = ()
    labels_used_for_selection: bool | None = None
    citation: str | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.tag):
            raise ValueError(f"tag: {self.tag!r} is not lower-case letters, digits and _")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One pretraining run, complete.

    Attributes:
        name: Of the run, for folders and messages.
        method: "moco_v2".
        encoder: The network.
        start: None for random weights, else a model name, a published folder or a checkpoint.
        data: The radiographs.
        contract: What the published encoder is fed; its mean and std are the views' too.
        views: How views are drawn.
        moco: What MoCo v2 adds.
        train: Optimiser, schedule and loop.
        publish: Name, card and file.
    """

    name: str
    method: Literal["moco_v2"]
    encoder: EncoderRecipe
    start: str | None = None
    data: DataRecipe
    contract: InputContract
    views: ViewConfig
    moco: MocoConfig
    train: TrainRecipe
    publish: PublishRecipe

    def __post_init__(self) -> None:
        if not self.contract.complete:
            raise ValueError("contract: mean, std or intensity is not set")
        if self.contract.channels != self.encoder.in_chans:
            raise ValueError("contract: channels and encoder.in_chans differ")
        group = self.moco.split_batch_norm
        if group is not None and (self.train.batch % group or self.train.batch < 2 * group):
            raise ValueError(
                f"moco.split_batch_norm: train.batch ({self.train.batch}) is not two or more whole "
                f"groups of {group}"
            )
        if self.moco.queue < self.train.batch:
            raise ValueError(f"moco.queue: smaller than a batch ({self.train.batch})")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON types; `read_recipe` of its YAML gives an equal recipe."""
        listed = _listed(dataclasses.asdict(self))
        assert isinstance(listed, dict)
        return listed


def recipes() -> list[str]:
    """Names of the pretraining recipes that ship, sorted; each states its method."""
    folder = importlib.resources.files("cxr_foundation.recipes")
    files = [f for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(
        f.name.removesuffix(".yaml") for f in files if "\nmethod:" in f.read_text("utf-8")
    )


def read_recipe(recipe: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by name or by path.

    Args:
        recipe: A name of `recipes()`, or a path that ends in .yaml or .yml.
        overrides: Keys with dots → values: `{"train.epochs": 2}`.

    Raises:
        UnknownName: No recipe of this name ships.
        RecipeError: An unreadable file, an unknown or missing key, a wrong value. The subject is
            "file: key".
    """
    text = _text(recipe)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(str(recipe), f"not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(raw, dict):
        raise RecipeError(str(recipe), "not a mapping of keys")
    for key, value in (overrides or {}).items():
        _override(str(recipe), raw, key, value)
    return _build(Recipe, raw, str(recipe), "")


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`["train.epochs=2"]` → `{"train.epochs": 2}`; values are read as YAML.

    Raises:
        RecipeError: A text without "=", or a value that is not YAML.
    """
    parsed = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(text, "is not KEY=VALUE", "Write for example train.epochs=2.")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(key, f"{value!r} is not a YAML value") from None
    return parsed


def _text(recipe: str | Path) -> str:
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        if str(recipe) not in recipes():
            hint = closest(str(recipe), recipes()) or f"Known: {', '.join(recipes())}."
            raise UnknownName(
                str(recipe), "no recipe of this name", f"{hint} Or name a .yaml file."
            )
        shipped = importlib.resources.files("cxr_foundation.recipes") / f"{recipe}.yaml"
        return shipped.read_text(encoding="utf-8")
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RecipeError(path, f"cannot be read ({error.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise RecipeError(path, f"larger than {_MOST_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RecipeError(path, "not UTF-8") from None


def _override(recipe: str, raw: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    inner = raw
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{recipe}: {key}", f"{parent!r} holds no keys")
    inner[last] = value


def _build(cls: type[T], raw: object, file: str, where: str) -> T:
    """A record from parsed YAML; every key must exist and every value have its field's type."""

    def refuse(key: str, reason: str) -> RecipeError:
        return RecipeError(f"{file}: {where}{key}", reason)

    if not isinstance(raw, dict):
        raise refuse("", "not a mapping of keys")
    if cls is InputContract:
        try:
            return typing.cast(T, InputContract.from_dict(raw))
        except ContractError as error:
            key = error.subject.removeprefix("contract: ")
            raise refuse(key, error.reason) from None
    assert dataclasses.is_dataclass(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    types_of = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            raise refuse(str(key), f"unknown key. {closest(str(key), fields)}".strip())
    for name, field in fields.items():
        if name not in raw and field.default is dataclasses.MISSING:
            raise refuse(name, "missing")
    values = {}
    for key, value in raw.items():
        if dataclasses.is_dataclass(types_of[key]):
            values[key] = _build(types_of[key], value, file, f"{where}{key}.")
            continue
        try:
            values[key] = _convert(types_of[key], value)
        except ValueError as error:
            raise refuse(key, f"{value!r} is not {error}") from None
    try:
        return typing.cast(T, cls(**values))
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise refuse(key, reason) from None


def _convert(kind: Any, value: Any) -> Any:
    """`value` as `kind`; the ValueError's text is what was expected."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"one of {', '.join(args)}")
        return value
    if origin is tuple:
        inner = args[0]
        fixed = None if args[-1] is Ellipsis else len(args)
        if not isinstance(value, list) or (fixed is not None and len(value) != fixed):
            raise ValueError("a list" if fixed is None else f"a list of {fixed}")
        return tuple(_convert(inner, v) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise ValueError(words[kind])
    if kind is float and not abs(value) < float("inf"):
        raise ValueError("a finite number")
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(v) for v in value]
    return value
