"""Registers the architectures with timm and transformers, now or when they are imported.

The package's only import hook. What registers is imported right after the module that it needs:
then, and not before, its libraries are loaded anyway.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["install"]

# `transformers.models.auto` itself would come too early: its import must not cost one of timm,
# and no repository of timm's layout is looked at before its configuration class is imported.
_REGISTERS = {
    "timm.models": "cxr_foundation.models.architectures",
    "transformers.models.timm_wrapper.configuration_timm_wrapper": "cxr_foundation.models.auto",
}


def install() -> None:
    """Register with whichever of timm and transformers is imported, and wait for the other."""
    waiting = {name: ours for name, ours in _REGISTERS.items() if name not in sys.modules}
    for name, ours in _REGISTERS.items():
        if name not in waiting:
            importlib.import_module(ours)
    if waiting and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(waiting))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: it lets the others find, and has the module say when it is there."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self.waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                self._announce(spec.loader, fullname)
                return spec
        return None

    def _announce(self, loader: importlib.abc.Loader, fullname: str) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the class's own again, for reloads
            execute(module)
            ours = self.waiting.pop(fullname, None)
            if not self.waiting and self in sys.meta_path:
                sys.meta_path.remove(self)
            if ours is not None:
                importlib.import_module(ours)

        # On this one instance: importlib calls it, and nothing else sees a foreign loader.
        loader.exec_module = exec_module  # type: ignore[method-assign]
