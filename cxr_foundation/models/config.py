"""The `config.json` of a published folder, read with suspicion: anybody may have written it.

Nothing outside the folder is opened, nothing in it is run, and no network is asked for that is
larger than a real one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timm.models import is_model, list_models

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, UnknownName, UnreadableCheckpoint
from cxr_foundation.registry import closest

__all__ = ["CONFIG", "OURS", "WEIGHTS", "PublishedConfig", "read_config", "weights_of"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OURS = "cxr_foundation"

_MAX_CONFIG = 1 << 20
_MAX_LABELS = 100_000
_LARGEST = 1e9
# A network is built before its weights are looked at, without memory but not without time: sizes
# may be large, counts of blocks may not.
_SIZES = re.compile(r"size|dim|shape|features|channels|width|chans|num_classes")
_MAX_SIZE, _MAX_COUNT, _MAX_ITEMS = 16_384, 256, 16
# Arguments of timm's loader, not of a network: what they decide is decided by the caller.
_NOT_OF_NETWORKS = {
    "cache_dir",
    "checkpoint_path",
    "device",
    "feature_cfg",
    "features_only",
    "kwargs_filter",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_custom_load",
    "pretrained_filter_fn",
    "pretrained_strict",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """What a `config.json` says.

    Attributes:
        architecture: timm's name of the network.
        model_args: Its arguments, without `num_classes`.
        num_classes: 0 for an encoder.
        label_names: Names of the classes, or None.
        pretrained_cfg: Input and layer names in timm's words; no place of weights.
        contract: The input contract; None in a folder that is not of this package.
    """

    architecture: str
    model_args: Mapping[str, Any]
    num_classes: int
    label_names: tuple[str, ...] | None
    pretrained_cfg: Mapping[str, Any]
    contract: InputContract | None


def read_config(folder: str | os.PathLike[str]) -> PublishedConfig:
    """Read and validate the `config.json` of a published folder, trusted or not.

    Keys of no interest here, such as `auto_map`, are ignored: no code is loaded, no address is
    followed, no file is opened by a name that stands in it.

    Raises:
        UnreadableCheckpoint: No such folder or file, not JSON, or a value that cannot be.
        UnknownName: timm has no such architecture.
        ContractError: The input contract is invalid.
    """
    path = _inside(Path(folder), CONFIG)
    if path.stat().st_size > _MAX_CONFIG:
        raise _bad(path, "", f"is larger than {_MAX_CONFIG:,} bytes")
    try:
        raw = json.loads(
            path.read_bytes().decode("utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise _bad(path, "", f"is not sound JSON ({str(error)[:120]})") from error
    if not isinstance(raw, dict):
        raise _bad(path, "", "is not a JSON object")
    return _validated(path, raw)


def weights_of(folder: str | os.PathLike[str]) -> Path:
    """The `model.safetensors` of a folder; no other file of weights is ever looked at.

    Raises:
        UnreadableCheckpoint: It is not there, or leads out of the folder.
    """
    return _inside(Path(folder), WEIGHTS)


def _validated(path: Path, raw: dict[str, Any]) -> PublishedConfig:
    architecture = raw.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w{1,128}", architecture):
        raise _bad(path, "architecture", "is not the name of a network")
    if not is_model(architecture):
        hint = closest(architecture, list_models()) or "See timm.list_models()."
        raise UnknownName(architecture, f"timm has no architecture of this name ({path})", hint)
    cfg = raw.get("pretrained_cfg")
    if not isinstance(cfg, dict):
        raise _bad(path, "pretrained_cfg", "is missing or not an object")
    classes = raw.get("num_classes", cfg.get("num_classes"))
    if type(classes) is not int or not 0 <= classes <= _MAX_LABELS:
        raise _bad(path, "num_classes", "is missing or not a whole number from 0 up")
    args = raw.get("model_args") or {}
    if not isinstance(args, dict):
        raise _bad(path, "model_args", "is not an object")
    for key, value in args.items():
        _check_argument(path, key, value)
    channels = args.get("in_chans", 3)
    if type(channels) is not int or not 1 <= channels <= 16:
        raise _bad(path, "model_args.in_chans", "is not a whole number from 1 to 16")
    ours = raw.get(OURS)
    contract = None
    if ours is not None:
        if not isinstance(ours, dict) or not isinstance(ours.get("contract"), dict):
            raise _bad(path, f"{OURS}.contract", "is missing or not an object")
        contract = _contract(path, ours["contract"])
    return PublishedConfig(
        architecture=architecture,
        model_args={k: v for k, v in args.items() if k != "num_classes"},
        num_classes=classes,
        label_names=_labels(path, raw.get("label_names"), classes),
        pretrained_cfg=_input(path, cfg),
        contract=contract,
    )


def _check_argument(path: Path, key: str, value: Any) -> None:
    """An argument is a flag, a word or a few numbers, none larger than a real network has."""
    if key in _NOT_OF_NETWORKS:
        raise _bad(path, f"model_args.{key}", "is not an argument of a network")
    items = value if isinstance(value, list) else [value]
    limit = _MAX_SIZE if _SIZES.search(key) else _MAX_COUNT
    numbers = [v for v in items if isinstance(v, int | float) and not isinstance(v, bool)]
    plain = all(v is None or isinstance(v, bool | int | float | str) for v in items)
    words = all(len(v) <= 64 and v.isprintable() for v in items if isinstance(v, str))
    if not re.fullmatch(r"\w{1,64}", key) or not plain or not words or len(items) > _MAX_ITEMS:
        raise _bad(path, f"model_args.{key}", "is not a flag, a word or a few numbers")
    if any(abs(v) > limit for v in numbers) or (limit == _MAX_COUNT and sum(numbers) > limit):
        raise _bad(path, f"model_args.{key}", f"asks for more than {limit:,}")


def _labels(path: Path, names: Any, classes: int) -> tuple[str, ...] | None:
    if names is None or classes == 0:
        return None
    if isinstance(names, dict):
        names = list(names.values())
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise _bad(path, "label_names", "is not a list of names")
    if len(names) != classes:
        raise _bad(path, "label_names", f"has {len(names)} names for {classes} classes")
    if len(set(names)) != len(names):
        raise _bad(path, "label_names", "names a class twice")
    return tuple(names)


def _input(path: Path, cfg: dict[str, Any]) -> dict[str, Any]:
    """The part of timm's `pretrained_cfg` that is used, each value checked."""
    kept: dict[str, Any] = {}
    size = cfg.get("input_size", [3, 224, 224])
    if not _wholes(size, 3) or not 1 <= size[0] <= 16 or not all(1 <= s <= 8192 for s in size[1:]):
        raise _bad(path, "pretrained_cfg.input_size", "is not channels, height and width")
    kept["input_size"] = tuple(size)
    for key in ("mean", "std"):
        values = cfg.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) not in (1, size[0]):
            raise _bad(path, f"pretrained_cfg.{key}", "is not one number for each channel")
        if not all(_is_finite(v) for v in values):
            raise _bad(path, f"pretrained_cfg.{key}", "has a value that is not a finite number")
        if key == "std" and not all(v > 0 for v in values):
            raise _bad(path, "pretrained_cfg.std", "has a value that is not above 0")
        kept[key] = tuple(values)
    for key in ("interpolation", "crop_mode", "tag", "license"):
        if isinstance(cfg.get(key), str):
            kept[key] = cfg[key][:64]
    pct = cfg.get("crop_pct")
    if pct is not None:
        if type(pct) not in (int, float) or not 0 < pct <= 16:
            raise _bad(path, "pretrained_cfg.crop_pct", "is not a number above 0")
        kept["crop_pct"] = float(pct)
    if isinstance(cfg.get("fixed_input_size"), bool):
        kept["fixed_input_size"] = cfg["fixed_input_size"]
    return kept


def _contract(path: Path, raw: dict[str, Any]) -> InputContract:
    try:
        if any(isinstance(n, int) and abs(n) > _LARGEST for n in _numbers(raw)):
            raise _bad(path, f"{OURS}.contract", "holds a number larger than any pixel")
        return InputContract.from_dict(raw)
    except ContractError as error:
        # Both quote the file, which may hold a megabyte of anything.
        raise ContractError(f"{path}: {error.subject[:100]}", error.reason[:200]) from error
    except TypeError as error:
        raise ContractError(f"{path}: contract", "has a value of the wrong type") from error


def _inside(folder: Path, name: str) -> Path:
    """A plain file of the folder. Links are followed only within it, or into its Hub cache."""
    path = folder / name
    if not folder.is_dir():
        raise UnreadableCheckpoint(folder, "no such folder", "Name a published folder.")
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    if not any(h in real.parents for h in homes):
        raise UnreadableCheckpoint(path, "leads out of the folder", "Put the file itself there.")
    try:
        kind = real.stat().st_mode
    except OSError:
        remedy = "A published folder has config.json and model.safetensors; no other is read."
        raise UnreadableCheckpoint(folder, f"has no {name}", remedy) from None
    if not stat.S_ISREG(kind):
        raise UnreadableCheckpoint(path, "is not a file")
    return path


def _bad(path: Path, key: str, reason: str) -> UnreadableCheckpoint:
    subject = f"{path}: {key[:100]}" if key else path
    return UnreadableCheckpoint(subject, reason, "Fetch the folder again, or ask who made it.")


def _numbers(raw: Mapping[str, Any]) -> Iterator[Any]:
    for value in raw.values():
        yield from value if isinstance(value, list) else [value]


def _wholes(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(v) is int for v in value)


def _is_finite(value: Any) -> bool:
    # A whole number of a thousand digits is no float: even asking whether it is finite raises.
    return type(value) in (int, float) and abs(value) <= _LARGEST and math.isfinite(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands there twice")
    return made
