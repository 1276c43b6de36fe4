"""From the names of a wild checkpoint to the names of an encoder: each one used or dropped.

A `Layout` says how a family of checkpoints is recognised (by keys and shapes, never by a file's
name) and which `KeyMap` translates it. A KeyMap works on names alone, so that a file is judged
before any of its tensors is read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_foundation.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FUSED_QKV",
    "ONLY",
    "TRAINING_STATE",
    "Drop",
    "KeyMap",
    "Layout",
    "Make",
    "NameClash",
    "Renamed",
    "Shapes",
    "Taken",
    "by_prefix",
    "layouts",
    "strip",
]

Shapes = Mapping[str, tuple[int, ...]]
ONLY = "weights"
"""What `Layout.encoders` calls the only set of weights of a file that has no pair."""
Network = tuple[str, dict[str, Any]]
"""Stock timm name, and arguments beyond the network's own."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Make:
    """Encoder tensors that are computed from tensors of the file: fused, split, transposed.

    Attributes:
        parts: Names after renaming. The first is a regular expression for a whole name; the
            others are its replacement templates. Unless all are there, nothing is made.
        gives: Template of the encoder's name → function of the parts, in order. It is also
            called with numpy arrays of the same sizes, to know the size without torch, and so
            uses only what both have.
    """

    parts: tuple[str, ...]
    gives: Mapping[str, Callable[..., Tensor]]


def _concatenated(*parts: Any) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(parts)


# Rows of the three projections one below the other: timm's `qkv`, as in
# https://github.com/huggingface/pytorch-image-models/blob/v1.0.20/timm/layers/attention.py
FUSED_QKV = Make(
    parts=(
        r"(.+\.attn)\.query\.(weight|bias)",
        r"\1.key.\2",
        r"\1.value.\2",
    ),
    gives={r"\1.qkv.\2": _concatenated},
)


@dataclasses.dataclass(frozen=True)
class Taken:
    """Where one tensor of the encoder comes from.

    Attributes:
        names: Names in the file.
        function: What makes one tensor of them; None: there is one, and it is taken as it is.
    """

    names: tuple[str, ...]
    function: Callable[..., Tensor] | None = None

    def shape(self, held: Shapes) -> tuple[int, ...]:
        """Sizes of the encoder's tensor, from the file's sizes by name.

        Raises:
            ValueError: The parts do not go together.
        """
        parts = [np.broadcast_to(np.float32(), held[name]) for name in self.names]
        return parts[0].shape if self.function is None else tuple(self.function(*parts).shape)

    def tensor(self, held: Mapping[str, Tensor]) -> Tensor:
        """The encoder's tensor, from the file's tensors by name."""
        parts = [held[name] for name in self.names]
        return parts[0] if self.function is None else self.function(*parts)


@dataclasses.dataclass(frozen=True)
class Renamed:
    """What a KeyMap makes of a file's names.

    Attributes:
        used: What each tensor of the encoder is taken from, by its name in the encoder.
        dropped: Names in the file by rule.
        unexpected: Names in the file that no rule covers.
    """

    used: Mapping[str, Taken]
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
        make: Tensors that are computed; each rule sees the names that the ones before it left.
    """

    wrappers: tuple[str, ...] = ()
    drop: tuple[Drop, ...] = ()
    select: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    make: tuple[Make, ...] = ()

    def apply(self, names: Iterable[str]) -> Renamed:
        """Translate names.

        Raises:
            NameClash: Two of them become one.
        """
        used: dict[str, Taken] = {}
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
                    raise NameClash(f"{used[target].names[0]!r} and {name!r} are both {target!r}")
                used[target] = Taken((name,))
        for make in self.make:
            used = _made(make, used)
        return Renamed(used, {r: tuple(n) for r, n in dropped.items()}, tuple(unexpected))

    def _rule(self, name: str) -> str | None:
        return next((d.rule for d in self.drop if re.fullmatch(d.pattern, name)), None)

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        return name


def _made(rule: Make, used: Mapping[str, Taken]) -> dict[str, Taken]:
    left, made = dict(used), dict[str, Taken]()
    for name in used:
        match = re.fullmatch(rule.parts[0], name)
        if match is None:
            continue
        parts = [name, *(match.expand(part) for part in rule.parts[1:])]
        # A part that another rule has computed cannot be a part again: rules do not nest.
        if not all(part in left and left[part].function is None for part in parts):
            continue
        names = tuple(left.pop(part).names[0] for part in parts)
        made |= {match.expand(give): Taken(names, f) for give, f in rule.gives.items()}
    clash = next((name for name in made if name in left), None)
    if clash is not None:
        raise NameClash(f"{made[clash].names[0]!r} and {left[clash].names[0]!r} are both {clash!r}")
    return {**left, **made}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A family of checkpoints.

    Attributes:
        name: As in cards and for `layout=`.
        title: For people.
        source: Where the layout is known from.
        proof: The package whose own classes write the checkpoint that tests convert
            ("torchvision"); None where it is written from a list of names and sizes, so that the
            layout is unproven on the authors' file.
        rule: Which encoder is taken if the file holds several, in words.
        takes: The encoder that is taken by default; None: the only one, else the caller says.
        encoders: Names of the encoders that a file with these keys holds.
        recognises: Whether keys and shapes are of this family.
        keymap: The KeyMap that takes one of `encoders`.
        classifier: Regular expression for the encoder names of a classification head, which can
            be kept; None where all heads belong to pretraining and are dropped by the KeyMap.
        network: The stock network, where the encoder's names and sizes alone do not tell it. It is
            given sizes by encoder name, and those of what was dropped by the file's own names.
            None from it, or no function: by the common table.
    """

    name: str
    title: str
    source: str
    proof: str | None
    rule: str
    takes: str | None
    encoders: Callable[[Collection[str]], tuple[str, ...]]
    recognises: Callable[[Shapes], bool]
    keymap: Callable[[str], KeyMap]
    classifier: str | None = None
    network: Callable[[Shapes], Network | None] | None = None


layouts: Registry[Layout] = Registry("layout")


# What savers put around a whole state: a dictionary's key, DataParallel, a wrapping module.
_WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "module.")


def by_prefix(
    *,
    name: str,
    title: str,
    source: str,
    proof: str | None,
    rule: str,
    encoders: Mapping[str, str],
    marks: tuple[str, ...],
    never: tuple[str, ...] = (),
    heads: str = r"(fc|classifier|head)(\..+)?",
    drop: tuple[Drop, ...] = (),
    wrappers: tuple[str, ...] = _WRAPPERS,
    rename: tuple[tuple[str, str], ...] = (),
    make: tuple[Make, ...] = (),
    network: Callable[[Shapes], Network | None] | None = None,
) -> Layout:
    """A layout whose encoders each stand below a prefix of their own; the first is the default.

    Args:
        name: As in `Layout`.
        title: As in `Layout`.
        source: As in `Layout`.
        proof: As in `Layout`.
        rule: As in `Layout`.
        encoders: Prefix by the name of an encoder: {"online": "online_encoder.net."}.
        marks: Regular expressions; of each a bare name (without wrappers) has to match in full.
        never: Regular expressions that no bare name may match: marks of a relative.
        heads: Regular expression for names below the prefix that belong to pretraining.
        drop: What else is left out.
        wrappers: As in `KeyMap`.
        rename: As in `KeyMap`, after the prefix.
        make: As in `KeyMap`.
        network: As in `Layout`.
    """

    def held(names: Collection[str]) -> tuple[str, ...]:
        bare = [strip(n, wrappers) for n in names]
        return tuple(e for e, p in encoders.items() if any(n.startswith(p) for n in bare))

    def recognises(shapes: Shapes) -> bool:
        bare = [strip(n, wrappers) for n in shapes]

        def any_of(pattern: str) -> bool:
            match = re.compile(pattern).fullmatch
            return any(match(n) for n in bare)

        return all(any_of(m) for m in marks) and not any(any_of(m) for m in never)

    def keymap(takes: str) -> KeyMap:
        others = tuple(
            Drop(f"{e} encoder", rf"{re.escape(p)}.+") for e, p in encoders.items() if e != takes
        )
        chosen = encoders[takes]
        head = Drop("pretraining head", rf"{re.escape(chosen)}({heads})")
        return KeyMap(
            wrappers=wrappers,
            drop=(TRAINING_STATE, *others, head, *drop),
            select=chosen,
            rename=rename,
            make=make,
        )

    return Layout(
        name=name,
        title=title,
        source=source,
        proof=proof,
        rule=rule,
        takes=next(iter(encoders)),
        encoders=held,
        recognises=recognises,
        keymap=keymap,
        network=network,
    )


def strip(name: str, wrappers: tuple[str, ...]) -> str:
    """A name without any of the prefixes, however often and in whatever order they occur."""
    while True:
        prefix = next((w for w in wrappers if name.startswith(w)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
