"""Named things found by import: `Registry` and `discover`. Standard library only."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from cxr_foundation.errors import UnknownName

__all__ = ["Registry", "closest", "discover"]

T = TypeVar("T")


def closest(name: str, names: Iterable[str]) -> str:
    """«Did you mean 'a' or 'b'?» for a name that is not among `names`, else an empty string."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name; a duplicate name is an error.

    Args:
        kind: What the things are, for messages: "layout", "pretraining method".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a thing under `name`.

        Raises:
            ValueError: `name` is taken.
        """

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            hint = closest(name, self._items) or f"Known: {', '.join(sorted(self._items))}."
            raise UnknownName(name, f"no {self.kind} of this name", hint) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def discover(package: str) -> list[str]:
    """Import every module of `package`, so that its registrations run; returns their names."""
    root = importlib.import_module(package)
    names = [f"{package}.{m.name}" for m in pkgutil.iter_modules(root.__path__)]
    for name in names:
        importlib.import_module(name)
    return names
