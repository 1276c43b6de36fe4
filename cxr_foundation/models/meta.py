"""Networks without memory: all names, sizes and types, and no values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["on_meta"]

_VALUES_ONLY = {
    getattr(Tensor, f"{name}_")
    for name in ("normal", "uniform", "erfinv", "clamp", "mul", "add", "div", "fill", "zero")
}


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Build networks on the meta device, without their initialisation.

    Initialising a ViT-B there takes twice as long as building it, for values that do not exist.
    """
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    """Leaves out what would only change the values of a tensor that has none."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _VALUES_ONLY and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
