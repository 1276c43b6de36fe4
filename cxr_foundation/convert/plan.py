"""The judgement of a file by names, sizes and types, before any of its tensors is read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from cxr_foundation.convert.dtypes import DType
from cxr_foundation.convert.keymap import (
    ONLY,
    Layout,
    NameClash,
    Renamed,
    Shapes,
    Taken,
    layouts,
)
from cxr_foundation.convert.networks import Wanted, network_of, tensors_of
from cxr_foundation.convert.reader import RawCheckpoint
from cxr_foundation.convert.report import listed
from cxr_foundation.errors import KeyMismatch, UnknownLayout, UnknownName

__all__ = ["Plan", "detect", "make_plan"]

_CLASSIFIER = "classification head"
_FLOATS = {"float64", "float32", "float16", "bfloat16"}
_INTEGERS = {"int64", "int32"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which tensor of a file becomes which of a network, and what does not fit.

    Attributes:
        layout: The layout.
        takes: Which of the file's encoders.
        architecture: Stock timm name.
        model_args: Arguments that the network is built with.
        expected: Sizes and types of the network's tensors, in its order.
        used: What each tensor is taken from, by its name in the network.
        dropped: Names in the file by rule.
        missing, unexpected, mismatched, filled: See `Report`.
    """

    layout: Layout
    takes: str
    architecture: str
    model_args: Mapping[str, Any]
    expected: Mapping[str, Wanted]
    used: Mapping[str, Taken]
    dropped: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    filled: tuple[str, ...]

    @property
    def fitting(self) -> Mapping[str, Taken]:
        """What the network's tensors are taken from, where size and type fit."""
        wrong = {line.partition(":")[0] for line in self.mismatched}
        return {t: s for t, s in self.used.items() if t in self.expected and t not in wrong}

    @property
    def problem(self) -> str | None:
        """What keeps the file from setting the network, with counts and the first names."""
        parts = [
            f"{len(names)} {what} ({listed(names)})"
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another size or type", self.mismatched),
            )
            if names
        ]
        if not parts:
            return None
        sets = f"{len(self.fitting)} of {len(self.expected) - len(self.filled)}"
        return f"sets {sets} tensors of {self.architecture}: {', '.join(parts)}"


def detect(shapes: Shapes) -> Layout:
    """The one layout that recognises these keys and shapes.

    Args:
        shapes: Sizes by name in the file.

    Raises:
        UnknownLayout: None does, or more than one.
    """
    found = [layout for layout in layouts.values() if layout.recognises(shapes)]
    if len(found) == 1:
        return found[0]
    first = listed(tuple(shapes))
    if not found:
        raise UnknownLayout("checkpoint", f"no known layout has keys like {first}")
    names = ", ".join(sorted(layout.name for layout in found))
    raise UnknownLayout("checkpoint", f"several layouts fit: {names}", "Say which with layout=.")


def make_plan(
    raw: RawCheckpoint,
    *,
    architecture: str | None,
    model_args: Mapping[str, Any] | None,
    layout: str | None,
    takes: str | None,
    num_classes: int | None,
) -> Plan:
    """Judge a file; the arguments are those of `convert`.

    Raises:
        UnknownLayout: No layout or no network of the table fits.
        KeyMismatch: The file holds several encoders and nobody says which, or two of its tensors
            become one.
        UnknownName: No such layout, encoder or architecture.
    """
    chosen = _layout(raw, layout, architecture)
    encoder = _encoder(raw, chosen, takes)
    keymap = chosen.keymap(encoder)
    try:
        renamed = keymap.apply(raw.tensors)
    except NameClash as clash:
        raise KeyMismatch(raw.path, f"two tensors become one: {clash}") from clash
    shapes, mixed = _shapes(raw, renamed.used)
    args = dict(model_args or {})
    if architecture is None:
        left_out = {n: raw.tensors.shapes[n] for names in renamed.dropped.values() for n in names}
        found = (chosen.network and chosen.network({**left_out, **shapes})) or network_of(shapes)
        if found is None:
            raise UnknownLayout(raw.path, f"no stock network has tensors like {_stem(shapes)}")
        # What the caller says outranks what the shapes suggest; the strict check follows.
        architecture, args = found[0], {**found[1], **args}
    expected, args = tensors_of(architecture, args, shapes=shapes, num_classes=num_classes or 0)
    used, dropped = _without_classifier(chosen, renamed, expected)
    dtypes = {target: raw.tensors.dtypes[taken.names[0]] for target, taken in used.items()}
    absent = [t for t in expected if t not in used]
    filled = tuple(t for t in absent if _is_old_counter(t, used))
    return Plan(
        layout=chosen,
        takes=encoder,
        architecture=architecture,
        model_args=args,
        expected=expected,
        used=used,
        dropped=dropped,
        missing=tuple(sorted(set(absent) - set(filled))),
        unexpected=tuple(sorted({*renamed.unexpected, *(t for t in used if t not in expected)})),
        mismatched=(*mixed, *_mismatched(expected, shapes, dtypes)),
        filled=filled,
    )


def _layout(raw: RawCheckpoint, layout: str | None, architecture: str | None) -> Layout:
    if layout is not None:
        return layouts[layout]
    try:
        return detect(raw.tensors.shapes)
    except UnknownLayout as error:
        # A network that the caller names needs no fingerprint: timm's own names either fit it
        # to the last tensor or the file is refused.
        if architecture is not None and not _recognised(raw):
            return layouts["timm"]
        raise UnknownLayout(raw.path, error.reason, error.remedy) from None


def _recognised(raw: RawCheckpoint) -> bool:
    return any(layout.recognises(raw.tensors.shapes) for layout in layouts.values())


def _encoder(raw: RawCheckpoint, layout: Layout, takes: str | None) -> str:
    held = layout.encoders(tuple(raw.tensors))
    if takes is not None:
        if takes not in held:
            hint = f"It holds {', '.join(held)}." if held else ""
            raise UnknownName(takes, f"{raw.path.name} holds no encoder of this name", hint)
        return takes
    if layout.takes is not None and held != (ONLY,):
        return layout.takes
    if len(held) > 1:
        reason = f"it holds several sets of weights: {', '.join(held)}"
        raise KeyMismatch(raw.path, reason, "Say which with takes=; none is taken by guess.")
    return held[0]


def _shapes(
    raw: RawCheckpoint, used: Mapping[str, Taken]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Sizes by name in the encoder, and those tensors whose parts do not go together."""
    shapes, mixed = {}, []
    for target, taken in used.items():
        held = raw.tensors.shapes
        try:
            shapes[target] = taken.shape(held)
        except (ValueError, IndexError) as error:
            shapes[target] = held[taken.names[0]]
            parts = " and ".join(str(list(held[name])) for name in taken.names)
            mixed.append(f"{target}: {parts} do not go together ({type(error).__name__})")
    return shapes, tuple(mixed)


def _stem(shapes: Shapes) -> str:
    return ", ".join(f"{n} {list(s)}" for n, s in list(shapes.items())[:3])


def _without_classifier(
    layout: Layout, renamed: Renamed, expected: Mapping[str, Wanted]
) -> tuple[dict[str, Taken], dict[str, tuple[str, ...]]]:
    """Drop the classification head by name, unless the network was built with one."""
    head = {
        target: taken
        for target, taken in renamed.used.items()
        if layout.classifier is not None
        and target not in expected
        and re.fullmatch(layout.classifier, target)
    }
    used = {t: s for t, s in renamed.used.items() if t not in head}
    dropped = dict(renamed.dropped)
    if head:
        dropped[_CLASSIFIER] = tuple(name for taken in head.values() for name in taken.names)
    return used, dropped


def _is_old_counter(target: str, used: Mapping[str, Taken]) -> bool:
    """A batch norm's counter of batches, which torch before 0.4.1 did not save.

    Inference never reads it. It may be absent only beside statistics that are there.
    """
    stem, _, leaf = target.rpartition(".")
    return leaf == "num_batches_tracked" and f"{stem}.running_mean" in used


def _mismatched(
    expected: Mapping[str, Wanted], shapes: Shapes, dtypes: Mapping[str, DType]
) -> tuple[str, ...]:
    found = []
    for target in sorted(dtypes):
        if target not in expected:
            continue
        wanted, held = expected[target], dtypes[target].name
        if shapes[target] != wanted.shape:
            found.append(f"{target}: {list(shapes[target])} instead of {list(wanted.shape)}")
        elif held not in (_FLOATS if wanted.dtype.is_floating_point else _INTEGERS):
            found.append(f"{target}: {held} instead of {wanted.dtype}")
    return tuple(found)
