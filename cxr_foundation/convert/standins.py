"""What the names in a checkpoint's pickle become: a dozen known values, else inert stand-ins.

Four kinds of names:

- known: values that we make ourselves (tensors, parameters, dictionaries, dtypes);
- inert: classes that honest checkpoints hold beside their tensors (`argparse.Namespace`, numpy
  scalars, `torch.nn` modules, omegaconf): an `Opaque` takes their place. `names` lists them;
- foreign: classes of packages that we do not know, such as a research repository's own network:
  an `Opaque` too, but only as an instance. A file that *calls* a foreign name is refused;
- code: everything else of Python's standard library, torch and numpy. The file is refused.

Nothing is imported for any of the four: the lists decide only whether a file is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from cxr_foundation.convert.dtypes import DTYPES, DType
from cxr_foundation.convert.entries import MAX_DIMENSIONS, Crc, Damaged, Entry
from cxr_foundation.convert.machine import Opaque, plain_key
from cxr_foundation.convert.names import FAMILIES, INERT, OURS, PYTHON2, STORAGES

__all__ = ["Global", "InertWorld", "Storage", "TensorClaim"]


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a file mentions. It is never looked up.

    Attributes:
        name: "module.name" as the file wrote it.
        kind: "known", "inert", "foreign" or "code".
    """

    name: str
    kind: str


@dataclasses.dataclass(eq=False, slots=True)
class Storage:
    """A run of elements in the file, claimed by the pickle and placed by the container.

    Attributes:
        key: Its name in the container.
        dtype: Type of its elements; None if each tensor says its own.
        numel: Elements (bytes, where `dtype` is None).
        start: Byte offset in the file; None until the container has placed it.
        crc: Checksum of the member that holds it.
        base: The storage that this one is a part of, never a part itself, and the part's first
            element.
    """

    key: str
    dtype: DType | None
    numel: int
    start: int | None = None
    crc: Crc | None = None
    base: tuple[Storage, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it claims."""
        return self.numel * (1 if self.dtype is None else self.dtype.itemsize)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TensorClaim:
    """A tensor as the pickle describes it: a view of a storage, offset and stride in elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def entry(self) -> Entry:
        """Where it lies in the file.

        Raises:
            Damaged: Its storage is not in the file.
        """
        storage, start = self.storage, self.offset * self.dtype.itemsize
        if storage.base is not None:
            storage, first = storage.base
            start += first * self.dtype.itemsize
        if storage.start is None:
            raise Damaged(f"the storage {storage.key[:80]!r} is not in the file")
        return Entry(self.dtype, self.shape, self.stride, storage.start + start, storage.crc)


# What one file may ask for; the largest published checkpoints need a tenth of it.
_MAX_NAMES = 10_000
_MAX_WORK = 1_000_000


class InertWorld:
    """What a file's names mean, and which of them were seen.

    Args:
        persistent: Turns a persistent id into a `Storage` or a class's stand-in.

    Attributes:
        named: Every global that the file names, in order.
        suspicious: Those for which the file has to be refused.
    """

    def __init__(self, persistent: Callable[[object], object]) -> None:
        self._place = persistent
        self._made: dict[tuple[str, str], object] = {}
        self._left = _MAX_WORK
        self.named: dict[str, None] = {}
        self.suspicious: dict[str, None] = {}

    def find(self, module: str, name: str) -> object:
        """The stand-in for `module.name`; nothing is imported."""
        made = self._made.get((module, name))
        if made is not None:
            return made
        full = f"{PYTHON2.get(module, module)}.{name}"
        self.named[full] = None
        if len(self._made) >= _MAX_NAMES:
            raise Damaged(f"its pickle names more than {_MAX_NAMES:,} classes")
        kind = _kind(full, name)
        if kind == "code":
            self.suspicious[full] = None
        made = self._made[module, name] = _dtype(full) or Global(full, kind)
        return made

    def persistent(self, key: object) -> object:
        """The storage or class that a persistent id names."""
        self._spend(4)
        return self._place(key)

    def call(self, function: object, arguments: tuple[Any, ...]) -> object:
        """The value of a known call, else an `Opaque`; a foreign name's call is suspicious."""
        while isinstance(function, Global) and function.name in _REBUILD_FROM_TYPE:
            # (function, class, its arguments, state); a loop, as a file may nest them for ever.
            function, _, arguments = _arguments(arguments, 4, 4)[:3]
            if not isinstance(arguments, tuple):
                raise Damaged("a tensor subclass is rebuilt without arguments")
        if not isinstance(function, Global):
            self.suspicious[f"a call of {type(function).__name__}"] = None
            return Opaque("call")
        if function.name in _DICTS:
            self._spend(1 + sum(len(a) for a in arguments if isinstance(a, list | tuple | dict)))
        elif function.name in _KNOWN:
            self._spend(8)
        if function.name in _KNOWN:
            return _KNOWN[function.name](arguments)
        if function.kind == "foreign" or not (function.name in INERT or _is_class(function.name)):
            # Of families too only classes are called: a library's functions fetch and run things.
            self.suspicious[function.name] = None
        return Opaque(function.name)

    def new(self, cls: object) -> object:
        """An inert instance."""
        if not isinstance(cls, Global):
            raise Damaged("an instance of something that is not a class")
        # A subclass of dict (OrderedDict of protocol 4) is filled by the opcodes that follow.
        return {} if cls.name in _DICTS else Opaque(cls.name)

    def build(self, instance: object, state: object) -> None:
        """Keep the state of a stand-in; other values have none that matters to us."""
        if isinstance(instance, Opaque):
            instance.state = state

    def _spend(self, work: int) -> None:
        """Refuse a short pickle that repeats one long call for ever."""
        self._left -= work
        if self._left < 0:
            raise Damaged("its pickle rebuilds more than any checkpoint holds")


def _kind(full: str, name: str) -> str:
    if full in _KNOWN or full in STORAGES or _dtype(full):
        return "known"
    if full in INERT:
        return "inert"
    # "torch.nn", "functional.torch.os.system": a path that leads out of the library again.
    inside = all(map(_is_class, name.split(".")[:-1]))
    if full.startswith(FAMILIES) and inside:
        return "inert"
    return "code" if full.partition(".")[0] in OURS else "foreign"


def _dtype(full: str) -> DType | None:
    return DTYPES.get(full.removeprefix("torch.")) if full.startswith("torch.") else None


def _is_class(full: str) -> bool:
    return full.rpartition(".")[2].lstrip("_")[:1].isupper()


def storage_dtype(value: object) -> DType | None:
    """Type of the elements of a storage class; None for the untyped one.

    Raises:
        Damaged: `value` is no storage class, or one whose elements cannot be read (quantised).
    """
    if not isinstance(value, Global) or value.name not in STORAGES:
        # Never repr() of a file's own value: it may be a list that is a million deep.
        name = value.name if isinstance(value, Global) else type(value).__name__
        raise Damaged(f"the storage type {name!r} is not one that can be read")
    return STORAGES[value.name]


def whole(value: object, what: str) -> int:
    """A whole number from 0 to 2^62."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise Damaged(f"the {what} of a tensor or storage is not a whole number in range")
    return value


def _first(arguments: tuple[Any, ...]) -> object:
    return _arguments(arguments, 1, 4)[0]


def _arguments(arguments: tuple[Any, ...], low: int, high: int) -> tuple[Any, ...]:
    if not low <= len(arguments) <= high:
        raise Damaged("a tensor is rebuilt from the wrong number of arguments")
    return arguments


def claim(
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    dtype: DType | None = None,
) -> TensorClaim:
    """A tensor's claim, checked against what its storage claims.

    Raises:
        Damaged: It reaches outside its storage, or repeats elements to claim more than are there.
    """
    if not isinstance(storage, Storage):
        raise Damaged("a tensor is rebuilt from something that is not a storage")
    kind = dtype or storage.dtype
    if kind is None:
        raise Damaged("a tensor of unknown type")
    if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list):
        raise Damaged("the size of a tensor is not a list of numbers")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise Damaged("the size of a tensor does not fit its strides")
    first = whole(offset, "offset")
    sizes = tuple(whole(n, "size") for n in shape)
    steps = tuple(whole(n, "stride") for n in stride)
    result = TensorClaim(storage, kind, first, sizes, steps)
    extent = Entry(kind, sizes, steps, 0)
    held = storage.nbytes // kind.itemsize
    if extent.numel > held or first * kind.itemsize + extent.span > storage.nbytes:
        raise Damaged(
            f"a tensor of {' x '.join(map(str, sizes))} elements in a storage of {held:,}"
        )
    return result


def _tensor_v1(arguments: tuple[Any, ...]) -> object:
    return claim(*_arguments(arguments, 4, 4))


def _tensor_v2(arguments: tuple[Any, ...]) -> object:
    return claim(*_arguments(arguments, 6, 7)[:4])


def _tensor_v3(arguments: tuple[Any, ...]) -> object:
    storage, offset, shape, stride, _, _, dtype = _arguments(arguments, 7, 8)[:7]
    if not isinstance(dtype, DType):
        raise Damaged("a tensor of unknown type")
    return claim(storage, offset, shape, stride, dtype)


def _dictionary(arguments: tuple[Any, ...]) -> object:
    made: dict[object, object] = {}
    for item in arguments:
        # OrderedDict([[key, value], …]) of old files; a defaultdict's factory is left out.
        for pair in item if isinstance(item, list | tuple) else ():
            if isinstance(pair, list | tuple) and len(pair) == 2:
                made[plain_key(pair[0])] = pair[1]
        if isinstance(item, dict):
            made.update(item)
    return made


def _sequence(arguments: tuple[Any, ...]) -> object:
    # Never a copy: a short pickle could ask for any number of them.
    first = arguments[0] if arguments else ()
    return first if isinstance(first, list | tuple) else Opaque("sequence")


def _unsupported(kind: str) -> Callable[[tuple[Any, ...]], object]:
    def refuse(arguments: tuple[Any, ...]) -> object:
        raise Damaged(f"it holds a {kind} tensor, which no known encoder has")

    return refuse


_REBUILD_FROM_TYPE = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")
# Tensors whose elements are not one run of bytes of the file.
_UNSUPPORTED = {
    "sparse_tensor": "sparse",
    "sparse_csr_tensor": "sparse",
    "nested_tensor": "nested",
    "qtensor": "quantised",
    "meta_tensor_no_storage": "meta",
    "wrapper_subclass": "wrapped",
    "device_tensor_from_numpy": "non-CPU",
    "xla_tensor": "non-CPU",
    "mlc_tensor": "non-CPU",
    "ort_tensor": "non-CPU",
}
_DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
# https://github.com/pytorch/pytorch/blob/v2.6.0/torch/_utils.py gives each function's arguments.
_KNOWN: dict[str, Callable[[tuple[Any, ...]], object]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    **{f"torch._utils._rebuild_{name}": _unsupported(kind) for name, kind in _UNSUPPORTED.items()},
    **dict.fromkeys(_REBUILD_FROM_TYPE, _unsupported("wrapped")),
    "torch.Size": _sequence,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "builtins.list": _sequence,
    "builtins.tuple": _sequence,
    **dict.fromkeys(_DICTS, _dictionary),
}
