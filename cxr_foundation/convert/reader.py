"""Opens checkpoints of unknown origin: only tensors come out, and nothing in them is ever run.

No import, no call and no unpickling by Python or torch takes part. What a file is, is read from
its bytes, never from its name.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard, cast

from cxr_foundation.convert.entries import (
    MAX_NAME,
    CheckpointFile,
    Damaged,
    Entry,
    Tensors,
)
from cxr_foundation.convert.machine import Opaque
from cxr_foundation.convert.safetensors_header import read_header
from cxr_foundation.convert.standins import TensorClaim
from cxr_foundation.convert.torchfile import LEGACY_MAGIC, TorchReader
from cxr_foundation.errors import UnreadableCheckpoint, UnsafeCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RawCheckpoint", "examine", "read", "read_checkpoint"]

# Deeper or longer than any honest checkpoint; a list that contains itself has no end.
_MAX_DEPTH = 64
_MAX_CONTAINERS, _MAX_ITEMS = 300_000, 2_000_000
# Buffers of one module that its state leaves out; an attention block has one or two.
_MAX_TEMPORARY = 256
_GIT_LFS = b"version https://git-lfs.github.com/spec/"


@dataclasses.dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as it is in the file.

    Attributes:
        path: The file.
        container: "safetensors", "torch zip", "torch legacy", "torch tar" or "pickle".
        tensors: Tensors by name, nested dictionaries joined by "."; each look-up reads one.
        globals_named: What its pickle names, in order: classes, functions, storage types.
        suspicious: Those of them that are code, or might be.
        size: Bytes of the file.
    """

    path: Path
    container: str
    tensors: Tensors
    globals_named: tuple[str, ...]
    suspicious: tuple[str, ...]
    size: int

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the file as 64 hex digits: of the bytes that the tensors come from."""
        try:
            return self.tensors.file.sha256()
        except Damaged as damage:
            raise UnreadableCheckpoint(self.path, str(damage)) from damage


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name.

    Opens safetensors files and torch's zip, legacy and tar files, also pickled whole modules.
    Nested dictionaries are joined by "."; everything that is not a tensor is left out.

    Returns:
        Dense CPU tensors in the file's own types, each with memory of its own.

    Raises:
        UnreadableCheckpoint: Not a checkpoint, a damaged one, or one without tensors.
        UnsafeCheckpoint: It names code. Nothing of it was run or imported.
    """
    raw = read(path)
    memory, needed = _physical_memory(), raw.tensors.read_bytes
    if memory is not None and needed > memory:
        reason = f"its tensors need {needed:,} bytes and this machine has {memory:,}"
        raise UnreadableCheckpoint(path, reason, "Convert it on a larger machine.")
    return dict(raw.tensors)


def read(path: str | os.PathLike[str]) -> RawCheckpoint:
    """Open a checkpoint; its tensors are read when they are looked up.

    Raises:
        UnreadableCheckpoint: Not a checkpoint, a damaged one, or one without tensors.
        UnsafeCheckpoint: It names code. Nothing of it was run or imported.
    """
    raw = examine(path)
    if raw.suspicious:
        raise UnsafeCheckpoint(path, f"it names code: {_listed(raw.suspicious)}; nothing was run")
    if not raw.tensors:
        raise UnreadableCheckpoint(path, "it holds no tensors", "Name the file with the weights.")
    return raw


def examine(path: str | os.PathLike[str]) -> RawCheckpoint:
    """As `read`, but a file that names code is described instead of refused.

    Raises:
        UnreadableCheckpoint: Not a checkpoint, or a damaged one.
        UnsafeCheckpoint: It names code and is damaged as well.
    """
    file = CheckpointFile(path)
    reader = TorchReader(file)
    try:
        container = _container(file)
        if container == "safetensors":
            tensors = Tensors(file, read_header(file))
        else:
            tensors = Tensors(file, _entries(file, container, reader))
    except Damaged as damage:
        if reader.world.suspicious:
            reason = f"it names code: {_listed(tuple(reader.world.suspicious))}; nothing was run"
            raise UnsafeCheckpoint(path, reason) from damage
        raise UnreadableCheckpoint(path, str(damage)) from damage
    named, suspicious = tuple(reader.world.named), tuple(reader.world.suspicious)
    return RawCheckpoint(Path(path), container, tensors, named, suspicious, file.size)


def _container(file: CheckpointFile) -> str:
    """Which container a file is, by its first bytes."""
    head = file.read(0, min(file.size, 512))
    if not head:
        raise Damaged("it is empty")
    if head.startswith(_GIT_LFS):
        raise Damaged("it is a git-LFS pointer, not the weights; run `git lfs pull`")
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        raise Damaged("it is a web page, not a checkpoint")
    if head.startswith(b"PK\x03\x04"):
        return "torch zip"
    if LEGACY_MAGIC.match(head):
        return "torch legacy"
    if head[257:262] == b"ustar":
        return "torch tar"
    # A header's length in eight bytes, little-endian, then JSON. No pickle has four zero bytes
    # here: zero is not an opcode.
    if head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    if head[8:9] == b"{" or file.path.suffix == ".safetensors":
        return "safetensors"
    raise Damaged("it is not a checkpoint of any known kind")


def _entries(file: CheckpointFile, container: str, reader: TorchReader) -> dict[str, Entry]:
    load = {
        "torch zip": reader.read_zip,
        "torch legacy": reader.read_legacy,
        "torch tar": reader.read_tar,
        "pickle": reader.read_pickle,
    }[container]
    value = load()
    if reader.world.suspicious:
        return {}
    entries: dict[str, Entry] = {}
    for name, tensor in _flatten(value):
        if name in entries:
            raise Damaged(f"it holds two tensors named {name[:80]!r}")
        entries[name] = tensor.entry()
    return entries


def _flatten(value: object) -> Iterator[tuple[str, TensorClaim]]:
    """Tensors of nested containers and modules with their names, in the file's order.

    Walks with a list of its own: the depth of a file must not become the depth of a call.
    """
    if isinstance(value, TensorClaim):
        yield "tensor", value
        return
    waiting: list[tuple[_Place | None, object]] = [(None, value)]
    items = containers = 0
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, TensorClaim):
            yield _joined(path), value
            continue
        if path is not None and path.depth > _MAX_DEPTH:
            raise Damaged(f"its contents are nested deeper than {_MAX_DEPTH}")
        count, children = _children(value)
        items += count
        if items > _MAX_ITEMS:
            raise Damaged("its contents repeat without end")
        holding = [(key, child) for key, child in children if _may_hold_tensors(child)]
        containers += len(holding)
        if containers > _MAX_CONTAINERS:
            raise Damaged("its contents repeat without end")
        depth = 1 if path is None else path.depth + 1
        waiting.extend((_Place(path, _name(key), depth), child) for key, child in reversed(holding))


class _Place(NamedTuple):
    """Where a value was found: each holds only its own name, so that long ones are not copied."""

    parent: _Place | None
    name: str
    depth: int


def _joined(path: _Place | None) -> str:
    """The name of a tensor.

    Raises:
        Damaged: It is longer than any tensor's; it was not joined then.
    """
    names: list[str] = []
    while path is not None:
        names.append(path.name)
        path = path.parent
    if sum(map(len, names)) > MAX_NAME:
        raise Damaged(f"a tensor's name has more than {MAX_NAME} characters")
    return ".".join(reversed(names))


def _may_hold_tensors(value: object) -> bool:
    if isinstance(value, TensorClaim):
        return True
    return bool(value) if isinstance(value, dict | list | tuple) else _is_module(value)


def _is_module(value: object) -> TypeGuard[Opaque]:
    return isinstance(value, Opaque) and isinstance(value.state, dict) and "_modules" in value.state


def _children(value: object) -> tuple[int, Iterable[tuple[object, object]]]:
    if isinstance(value, dict):
        return len(value), value.items()
    if isinstance(value, list | tuple):
        return len(value), enumerate(value)
    if _is_module(value):
        found = _module_children(cast(dict[object, object], value.state))
        return len(found), found
    return 0, ()


def _module_children(state: Mapping[object, object]) -> list[tuple[object, object]]:
    """What `torch.nn.Module.state_dict` would hold: parameters, lasting buffers, submodules."""
    temporary = state.get("_non_persistent_buffers_set")
    left_out: set[str] = set()
    children: list[tuple[object, object]] = []
    for part in ("_parameters", "_buffers", "_modules"):
        held = state.get(part)
        if not isinstance(held, dict) or not held:
            continue
        if part == "_buffers" and isinstance(temporary, list):
            if len(temporary) > _MAX_TEMPORARY:
                raise Damaged(f"a module of it lists {len(temporary):,} buffers")
            left_out = {name for name in temporary if isinstance(name, str)}
        children += [(k, v) for k, v in held.items() if k not in left_out]
    return children


def _name(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and -(1 << 63) <= key < 1 << 64:
        return str(key)
    return f"<{type(key).__name__}>"


def _physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(n[:80] for n in names[:3]) + more
