"""What a conversion did, or would do, with every tensor of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["Report", "listed"]


def listed(names: tuple[str, ...], limit: int = 3) -> str:
    """The first few names, sorted, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A checkpoint file, described without running any of it.

    Attributes:
        path: The file as it was named.
        sha256: 64 hex digits of the file; None for files above 16 GiB.
        size: Bytes of the file.
        container: "safetensors", "torch zip", "torch legacy", "torch tar" or "pickle".
        globals_named: Classes and functions that its pickle names.
        suspicious: Those of them that are code, or might be; the file is refused for them.
        tensors: Number of tensors in the file.
        dtypes: Number of tensors by type, as in the file.
        known_as: Name of the card whose file this is, by its sha256; None if there is none.
        licence: Licence of the weights by that card.
        layout: Name of the layout; None if none fits.
        unproven: Whether the layout is known from a list of names and sizes alone.
        takes: Which of the file's encoders is taken.
        rule: By which rule the layout takes one of several, unless it is told another.
        architecture: Stock timm name; None if it is not known.
        model_args: Arguments of that network.
        used: Number of the encoder's tensors that are set from the file.
        dropped: Number of tensors left out, by the rule that names them.
        missing: Encoder tensors that the file does not set.
        unexpected: Tensors that neither the encoder nor a rule accounts for.
        mismatched: Tensors of another size or type than the encoder's, with both.
        filled: Counters of batches that old files lack; set to 0.
        nonfinite: Encoder tensors with NaN or infinite values.
        all_zero: Encoder weights (matrices and kernels) of zeros only.
        cast_to: Type that the encoder's floating-point tensors were cast to; None: as in the file.
        problem: Why the file cannot be converted; None if it can.
    """

    path: str
    sha256: str | None
    size: int
    container: str
    globals_named: tuple[str, ...] = ()
    suspicious: tuple[str, ...] = ()
    tensors: int = 0
    dtypes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    known_as: str | None = None
    licence: str | None = None
    layout: str | None = None
    unproven: bool = False
    takes: str | None = None
    rule: str | None = None
    architecture: str | None = None
    model_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    used: int = 0
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] = ()
    all_zero: tuple[str, ...] = ()
    cast_to: str | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v
            for k, v in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        }

    def lines(self) -> list[str]:
        """The report for people, one fact a line."""
        args = ", ".join(f"{k}={v}" for k, v in self.model_args.items())
        dtypes = ", ".join(f"{n} {name}" for name, n in self.dtypes.items())
        facts = {
            "file": f"{self.path} ({self.size:,} bytes, {self.container})",
            "sha256": self.sha256 or "not taken",
            "code": listed(self.suspicious) or "none; nothing was run",
            "tensors": f"{self.tensors} ({dtypes})" if dtypes else str(self.tensors),
            "licence": self._licence(),
            "layout": self._layout(),
            **({"rule": self.rule} if self.rule else {}),
            "architecture": f"{self.architecture} ({args})" if self.architecture else "unknown",
            "used": str(self.used) + (f", cast to {self.cast_to}" if self.cast_to else ""),
            "dropped": ", ".join(f"{n} {rule}" for rule, n in self.dropped.items()) or "none",
        }
        for name in ("missing", "unexpected", "mismatched", "filled", "nonfinite", "all_zero"):
            names = getattr(self, name)
            if names:
                facts[name.replace("_", " ")] = f"{len(names)}: {listed(names)}"
        facts["verdict"] = self.problem or "converts: every encoder tensor is set from the file"
        return [f"{key:<13} {_printable(value)}" for key, value in facts.items()]

    def _licence(self) -> str:
        if self.known_as is None:
            return "unknown: no card has this sha256"
        return f"{self.licence or 'unknown'} (the file of {self.known_as})"

    def _layout(self) -> str:
        if self.layout is None:
            return "unknown"
        mark = " (unproven on the authors' file)" if self.unproven else ""
        return f"{self.layout}, {self.takes}{mark}"


def _printable(text: str) -> str:
    """A file's name and the names in it must not drive the reader's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
