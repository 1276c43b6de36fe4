"""Checkpoints from the wild → encoders: opened inertly, recognised by keys, verified strictly.

`read_checkpoint` opens a file of unknown origin and gives its tensors. `convert` turns it into
the state of a stock timm network: every tensor of the network is set from the file, and every
tensor of the file is used or dropped by a named rule, else nothing comes out. `inspect` says
what either would do. A layout is one file of this package that registers itself in `layouts`.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cxr_foundation import catalog
from cxr_foundation.convert.dtypes import DTYPES, DType
from cxr_foundation.convert.entries import Vetted
from cxr_foundation.convert.keymap import Drop, KeyMap, Layout, layouts
from cxr_foundation.convert.plan import Plan, detect, make_plan
from cxr_foundation.convert.reader import RawCheckpoint, examine, read, read_checkpoint
from cxr_foundation.convert.report import Report, listed
from cxr_foundation.errors import CheckpointError, KeyMismatch
from cxr_foundation.registry import discover

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Converted",
    "Drop",
    "KeyMap",
    "Layout",
    "RawCheckpoint",
    "Report",
    "convert",
    "detect",
    "inspect",
    "layouts",
    "read",
    "read_checkpoint",
]


# Larger than any encoder: a sparse file of terabytes is described without reading it through.
_MAX_HASHED = 16 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """An encoder taken from a checkpoint.

    Attributes:
        architecture: Stock timm name.
        model_args: Arguments of that network: `in_chans`, and `img_size` or others only where
            they are not the network's own.
        num_classes: 0 for an encoder; the number of classes where the head was kept.
        state: Tensors by the network's own names, in its order, each with memory of its own.
        report: What became of every tensor of the file.
    """

    architecture: str
    model_args: Mapping[str, Any]
    num_classes: int
    state: dict[str, Tensor]
    report: Report


def convert(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    layout: str | None = None,
    takes: str | None = None,
    num_classes: int | None = None,
    dtype: str | torch.dtype | None = "float32",
) -> Converted:
    """Turn a checkpoint into the state of a stock timm network.

    Args:
        path: A checkpoint file of any known layout.
        architecture: Stock timm name that the file is claimed to be; it is then held to that
            network as it stands, image size included. None: read from the shapes.
        model_args: Further claims, such as `{"in_chans": 1}` or `{"img_size": 512}`. Channels
            that are not claimed are read from the file.
        layout: Name in `layouts`; None: recognised by keys.
        takes: Which encoder, where a file holds several; None: by the layout's rule.
        num_classes: None drops the classification head. A number keeps it and requires that it
            has so many classes.
        dtype: Type of floating-point tensors, such as "float16"; None keeps the file's.

    Raises:
        UnreadableCheckpoint: Not a checkpoint, or a damaged one.
        UnsafeCheckpoint: It names code. Nothing of it was run or imported.
        UnknownLayout: No layout fits, or no stock network.
        KeyMismatch: A tensor is missing, left over, of another size or type, not finite, or a
            weight is all zero.
        UnknownName: No such architecture, layout or encoder.
    """
    cast = None if dtype is None else DTYPES[str(dtype).removeprefix("torch.")]
    raw = read(path)
    plan = make_plan(
        raw,
        architecture=architecture,
        model_args=model_args,
        layout=layout,
        takes=takes,
        num_classes=num_classes,
    )
    if plan.problem is not None:
        raise KeyMismatch(path, plan.problem)
    state, nonfinite, all_zero = {}, [], []
    for target in plan.expected:
        state[target] = tensor = _tensor(raw, plan, target, cast)
        values = _vetted(tensor)
        if not values.finite:
            nonfinite.append(target)
        elif values.zero and _is_weight(plan, target):
            all_zero.append(target)
    report = dataclasses.replace(
        _describe(raw, plan, cast), nonfinite=tuple(nonfinite), all_zero=tuple(all_zero)
    )
    broken = _broken(report)
    if broken is not None:
        raise KeyMismatch(path, broken, "The file is damaged or was never trained.")
    return Converted(
        architecture=plan.architecture,
        model_args=plan.model_args,
        num_classes=num_classes or 0,
        state=state,
        report=report,
    )


def inspect(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    layout: str | None = None,
    takes: str | None = None,
) -> Report:
    """Describe a checkpoint; the arguments are those of `convert`, and nothing is run.

    A file that cannot be converted is described too: `Report.problem` says why. One tensor at a
    time is in memory.

    Raises:
        UnreadableCheckpoint: Not a checkpoint, or a damaged one.
        UnsafeCheckpoint: It names code and is damaged as well.
    """
    raw = examine(path)
    if raw.suspicious:
        problem = f"it names code: {listed(raw.suspicious)}; nothing was run"
        return dataclasses.replace(_describe(raw, None, None), problem=problem)
    try:
        plan = make_plan(
            raw,
            architecture=architecture,
            model_args=model_args,
            layout=layout,
            takes=takes,
            num_classes=None,
        )
    except CheckpointError as error:
        return dataclasses.replace(_describe(raw, None, None), problem=error.reason)
    nonfinite, all_zero = [], []
    for target, taken in plan.fitting.items():
        values = [raw.tensors.vetted(name) for name in taken.names]
        if not all(v.finite for v in values):
            nonfinite.append(target)
        elif all(v.zero for v in values) and _is_weight(plan, target):
            all_zero.append(target)
    report = dataclasses.replace(
        _describe(raw, plan, DTYPES["float32"]),
        nonfinite=tuple(nonfinite),
        all_zero=tuple(all_zero),
    )
    return dataclasses.replace(report, problem=plan.problem or _broken(report))


def _tensor(raw: RawCheckpoint, plan: Plan, target: str, cast: DType | None) -> Tensor:
    wanted = plan.expected[target]
    if target in plan.filled:
        import torch

        return torch.zeros(wanted.shape, dtype=wanted.dtype.torch)
    tensor = plan.used[target].tensor(raw.tensors).contiguous()
    if not wanted.dtype.is_floating_point:
        return tensor.to(wanted.dtype.torch)
    return tensor if cast is None else tensor.to(cast.torch)


def _vetted(tensor: Tensor) -> Vetted:
    if not tensor.numel() or not tensor.is_floating_point():
        return Vetted(finite=True, zero=not bool(tensor.any()))
    # Both ends in one pass; a value that is no number becomes both.
    ends = tensor.aminmax()
    finite = bool(ends.min.isfinite()) and bool(ends.max.isfinite())
    return Vetted(finite=finite, zero=not ends.min and not ends.max)


def _is_weight(plan: Plan, target: str) -> bool:
    """Whether a tensor is a matrix or kernel: all zero, it would let nothing through.

    Vectors may be zero: biases, and the last batch-norm weight of a residual block, start so.
    """
    return target.endswith("weight") and len(plan.expected[target].shape) >= 2


def _broken(report: Report) -> str | None:
    if report.nonfinite:
        count = f"{len(report.nonfinite)} of {report.used}"
        return f"NaN or infinite values in {count} tensors ({listed(report.nonfinite)})"
    if report.all_zero:
        count = f"{len(report.all_zero)} of {report.used}"
        return f"nothing but zeros in {count} tensors ({listed(report.all_zero)})"
    return None


def _describe(raw: RawCheckpoint, plan: Plan | None, cast: DType | None) -> Report:
    dtypes = collections.Counter(d.name for d in raw.tensors.dtypes.values())
    sha256 = raw.sha256 if raw.size <= _MAX_HASHED else None
    card = None if sha256 is None else catalog.by_sha256(sha256)
    report = Report(
        path=os.fspath(raw.path),
        sha256=sha256,
        size=raw.size,
        container=raw.container,
        globals_named=raw.globals_named,
        suspicious=raw.suspicious,
        tensors=len(raw.tensors),
        dtypes=dict(sorted(dtypes.items())),
        known_as=None if card is None else card.name,
        licence=None if card is None else card.licences.weights,
    )
    if plan is None:
        return report
    return dataclasses.replace(
        report,
        layout=plan.layout.name,
        unproven=plan.layout.proof is None,
        takes=plan.takes,
        rule=plan.layout.rule,
        architecture=plan.architecture,
        model_args=plan.model_args,
        used=len(plan.fitting),
        dropped={rule: len(names) for rule, names in plan.dropped.items()},
        missing=plan.missing,
        unexpected=plan.unexpected,
        mismatched=plan.mismatched,
        filled=plan.filled,
        cast_to=None if cast is None else cast.name,
    )


discover(__name__)
