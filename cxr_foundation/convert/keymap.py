"""From the names of a wild checkpoint to the names of an encoder: each one used or dropped.

A `Layout` says how a family of checkpoints is recognised (by keys and shapes, never by a file's
name) and which `KeyMap` translates it. A KeyMap works on names alone, so that a file is judged
before any of its tensors is read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor

from cxr_foundation.registry import Registry

__all__ = [
    "TRAINING_STATE",
    "Drop",
    "KeyMap",
    "Layout",
    "NameClash",
    "Renamed",
    "Shapes",
    "layouts",
    "strip",
]

Shapes = Mapping[str, tuple[int, ...]]


class NameClash(Exception):
    """Two tensors of a file become the same tensor of the encoder."""


@dataclasses.dataclass(frozen=True)
class Drop:
    """Tensors that are left out on purpose.

    Attributes:
        rule: What they are, for the report: "queue", "momentum encoder".
        pattern: Regular expression that their whole name has to match.
    """

    rule: str
    pattern: str


# What training scripts put beside the weights; none of it is part of a network.
TRAINING_STATE = Drop(
    "training state",
    r"(optimizers?|optimizer_states?|lr_schedulers?|scheduler|scaler|fp16_scaler|loss_scaler|"
    r"amp_scaler|amp|callbacks|loops|rng_states?|epoch|iteration|global_step|best_acc1?|"
    r"best_prec1|best_loss|loss)(\..+)?",
)


@dataclasses.dataclass(frozen=True)
class Renamed:
    """What a KeyMap makes of a file's names.

    Attributes:
        used: Name in the file by name in the encoder.
        dropped: Names in the file by rule.
        unexpected: Names in the file that no rule covers.
    """

    used: Mapping[str, str]
    dropped: Mapping[str, tuple[str, ...]]
    unexpected: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Rules that turn a file's names into an encoder's, applied in the order of the attributes.

    Attributes:
        wrappers: Prefixes that are stripped as often as they occur: "module.", "state_dict.".
        drop: Names left out; matched before and after stripping.
        select: Prefix that the encoder's names have, stripped once; others are unexpected.
        rename: (regular expression, replacement), each applied everywhere in a name.
        reshape: (regular expression for the whole encoder name, function of the tensor).
    """

    wrappers: tuple[str, ...] = ()
    drop: tuple[Drop, ...] = ()
    select: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    reshape: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()

    def apply(self, names: Iterable[str]) -> Renamed:
        """Translate names.

        Raises:
            NameClash: Two of them become one.
        """
        used: dict[str, str] = {}
        dropped: dict[str, list[str]] = {}
        unexpected: list[str] = []
        for name in names:
            bare = strip(name, self.wrappers)
            rule = self._rule(name) or self._rule(bare)
            if rule is not None:
                dropped.setdefault(rule, []).append(name)
            elif not bare.startswith(self.select):
                unexpected.append(name)
            else:
                target = self._renamed(bare.removeprefix(self.select))
                if target in used:
                    raise NameClash(f"{used[target]!r} and {name!r} are both {target!r}")
                used[target] = name
        return Renamed(used, {r: tuple(n) for r, n in dropped.items()}, tuple(unexpected))

    def reshaped(self, target: str, tensor: Tensor) -> Tensor:
        """The tensor as the encoder wants it; on a meta tensor it gives the shape alone."""
        for pattern, function in self.reshape:
            if re.fullmatch(pattern, target):
                tensor = function(tensor)
        return tensor

    def _rule(self, name: str) -> str | None:
        return next((d.rule for d in self.drop if re.fullmatch(d.pattern, name)), None)

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A family of checkpoints.

    Attributes:
        name: As in cards and for `layout=`.
        title: For people.
        source: Where the layout is known from.
        rule: Which encoder is taken if the file holds several, in words.
        takes: The encoder that is taken by default; None: the only one, else the caller says.
        encoders: Names of the encoders that a file with these keys holds.
        recognises: Whether keys and shapes are of this family.
        keymap: The KeyMap that takes one of `encoders`.
        classifier: Regular expression for the encoder names of a classification head, which can
            be kept; None where all heads belong to pretraining and are dropped by the KeyMap.
    """

    name: str
    title: str
    source: str
    rule: str
    takes: str | None
    encoders: Callable[[Collection[str]], tuple[str, ...]]
    recognises: Callable[[Shapes], bool]
    keymap: Callable[[str], KeyMap]
    classifier: str | None = None


layouts: Registry[Layout] = Registry("layout")


def strip(name: str, wrappers: tuple[str, ...]) -> str:
    """A name without any of the prefixes, however often and in whatever order they occur."""
    while True:
        prefix = next((w for w in wrappers if name.startswith(w)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
