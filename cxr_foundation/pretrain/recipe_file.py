"""Recipes: one YAML file per pretraining run, read into frozen records."""

from __future__ import annotations

import dataclasses
import importlib.resources
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, RecipeError, UnknownName
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.recipe import Recipe, Stage
from cxr_foundation.registry import closest

__all__ = ["parse_overrides", "read_recipe", "recipes"]

T = TypeVar("T")
# A recipe is a page of text; more is not one.
_MOST_BYTES = 1 << 16


def recipes() -> list[str]:
    """Names of the pretraining recipes that ship, sorted; each states its encoder."""
    folder = importlib.resources.files("cxr_foundation.recipes")
    files = [f for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(
        f.name.removesuffix(".yaml") for f in files if "\nencoder:" in f.read_text("utf-8")
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
    return _recipe(raw, str(recipe))


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
    inner: Any = raw
    for parent in parents:
        if isinstance(inner, list):
            if not parent.isdigit() or int(parent) >= len(inner):
                reason = f"{parent!r} is none of 0 to {len(inner) - 1}"
                raise RecipeError(f"{recipe}: {key}", reason)
            inner = inner[int(parent)]
        else:
            inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{recipe}: {key}", f"{parent!r} holds no keys")
    if not isinstance(inner, dict):
        raise RecipeError(f"{recipe}: {key}", "a list is changed entry by entry")
    inner[last] = value


# Keys of a stage; at the top level they are what every stage starts from.
_OF_STAGES = ("method", "data", "views", "second_view", "local_views", "local_count", "train")


def _recipe(raw: dict[str, Any], file: str) -> Recipe:
    shared = {key: raw[key] for key in _OF_STAGES if key in raw}
    listed = raw.get("stages", [{}])
    if not isinstance(listed, list):
        raise RecipeError(f"{file}: stages", "not a list")
    built = []
    for i, own in enumerate(listed):
        where = f"stages.{i}." if "stages" in raw else ""
        if not isinstance(own, dict):
            raise RecipeError(f"{file}: {where}", "not a mapping of keys")
        built.append(_stage(_merged(shared, own), file, where))
    rest = {key: value for key, value in raw.items() if key not in (*_OF_STAGES, "stages")}
    return _build(Recipe, rest, file, "", {"stages": tuple(built)})


def _stage(raw: dict[str, Any], file: str, where: str) -> Stage:
    method = raw.get("method")
    if not isinstance(method, dict) or not isinstance(method.get("name"), str):
        raise RecipeError(f"{file}: {where}method", "is not a mapping with a name")
    try:
        kind = methods()[method["name"]]
    except UnknownName as error:
        raise RecipeError(f"{file}: {where}method.name", error.reason, error.remedy) from None
    own = {key: value for key, value in method.items() if key != "name"}
    settings = _build(kind.Settings, own, file, f"{where}method.")
    views = raw.get("views")
    for key in ("second_view", "local_views"):
        if isinstance(views, dict) and isinstance(raw.get(key), dict):
            raw[key] = {**views, **raw[key]}
    rest = {key: value for key, value in raw.items() if key != "method"}
    return _build(Stage, rest, file, where, {"method": method["name"], "settings": settings})


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `shared`, key by key; the settings of another method are not taken over."""
    merged = dict(shared)
    for key, value in own.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            another = key == "method" and value.get("name") not in (None, before.get("name"))
            value = value if another else {**before, **value}
        merged[key] = value
    return merged


def _build(
    cls: type[T],
    raw: object,
    file: str,
    where: str,
    built: Mapping[str, Any] = types.MappingProxyType({}),
) -> T:
    """A record from parsed YAML; every key must exist and every value have its field's type.

    `built` holds fields that are records already.
    """

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
        if key not in fields or key in built:
            raise refuse(str(key), f"unknown key. {closest(str(key), fields)}".strip())
    for name, field in fields.items():
        if name not in raw and name not in built and field.default is dataclasses.MISSING:
            raise refuse(name, "missing")
    values = dict(built)
    for key, value in raw.items():
        record = _record(types_of[key])
        if record is not None and not (value is None and record is not types_of[key]):
            values[key] = _build(record, value, file, f"{where}{key}.")
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


def _record(kind: Any) -> type[Any] | None:
    """The dataclass that a field holds, also where it may be None."""
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    return next((o for o in options if dataclasses.is_dataclass(o) and isinstance(o, type)), None)


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
