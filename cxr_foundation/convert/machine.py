"""A pickle machine that cannot run anything: it only builds lists, dicts and stand-ins.

Python's own unpickler imports what a file names and calls what it imported. This one has no
import and no call: a name becomes a `Global` record, and what would be a call is handed to a
`World`, which either builds one of a dozen known values or returns an inert `Opaque`.

Opcodes: https://github.com/python/cpython/blob/v3.11.9/Lib/pickletools.py. Those of protocols 0
and 1 that only write text are refused: torch has always written protocol 2 or later.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from cxr_foundation.convert.entries import CheckpointFile, Damaged

__all__ = ["Machine", "Opaque", "Stream", "World", "plain_key"]

# The largest published checkpoints (with optimiser) need about 400,000 opcodes in 10 MB.
MAX_OPCODES = 2_000_000
MAX_PICKLE = 64 << 20
# Names of classes and of tensors are far shorter. Longer text (a class's source in files of old,
# an array's bytes) is left unread: many megabytes of it could be repeated without end.
_MAX_LINE = 1024
_MAX_TEXT = 1 << 16
_MAX_DIGITS = 1 << 10
# The hash of a larger whole number is its remainder: millions with one hash would fill a dict
# in quadratic time. Keys that old versions of torch wrote are addresses, below 2^48.
_MAX_KEY = 1 << 60
_MARK = object()


class Opaque:
    """An object that was not made: its class's name, and the state that it would have got."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: object = None

    def __repr__(self) -> str:
        return f"<{self.name}>"


def plain_key(key: object) -> object:
    """A dictionary's key, or a stand-in for one that must not be hashed.

    Hashing a deep tuple of the file's making may crash, and hashing chosen numbers may take hours.
    """
    if isinstance(key, int):
        return key if -_MAX_KEY < key < _MAX_KEY else Opaque("key")
    return key if isinstance(key, str | float | bytes | None) else Opaque("key")


class World(Protocol):
    """What a file's names and calls mean; nothing here may run code of the file's choosing."""

    def find(self, module: str, name: str) -> object:
        """The stand-in for a global."""

    def call(self, function: object, arguments: tuple[Any, ...]) -> object:
        """The stand-in for the result of a call."""

    def new(self, cls: object) -> object:
        """The stand-in for an instance made without a call."""

    def build(self, instance: object, state: object) -> None:
        """Give an instance its state."""

    def persistent(self, key: object) -> object:
        """The storage or class that a persistent id names."""


class Stream:
    """Bytes [start, end) of a file, taken from front to back and never past the end."""

    def __init__(self, file: CheckpointFile, start: int, end: int) -> None:
        self._file = file
        self.position = start
        self._end = end
        self._buffer = b""
        self._at = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        if length > len(self._buffer) - self._at:
            self._fill(length)
        start = self._at
        self._at += length
        self.position += length
        return self._buffer[start : self._at]

    def skip(self, length: int) -> None:
        """Pass over the next `length` bytes without reading them."""
        if length > self._end - self.position:
            raise Damaged("the pickle ends in the middle; the file is cut short")
        self.position += length
        self._at = min(self._at + length, len(self._buffer))

    def line(self) -> str:
        """Text up to the next line feed, which is taken and left out."""
        self._fill(min(_MAX_LINE, self._end - self.position))
        stop = self._buffer.find(b"\n", self._at, self._at + _MAX_LINE)
        if stop < 0:
            raise Damaged("a name in the pickle never ends")
        text = self.take(stop - self._at).decode("utf-8")
        self.take(1)
        return text

    def _fill(self, length: int) -> None:
        left = self._end - self.position
        if length > left:
            raise Damaged("the pickle ends in the middle; the file is cut short")
        if length > len(self._buffer) - self._at:
            self._buffer = self._file.read(self.position, min(left, max(length, 1 << 16)))
            self._at = 0


class Machine:
    """Reads one pickle from a stream.

    Args:
        stream: Where the pickle begins; afterwards where it ended.
        world: What names and calls mean.
        most: Opcodes that are read before giving up.
    """

    def __init__(self, stream: Stream, world: World, most: int = MAX_OPCODES) -> None:
        self._stream = stream
        self._world = world
        self._most = most
        self._stack: list[Any] = []
        self._memo: dict[int, object] = {}

    def load(self) -> Any:
        """The value of the pickle, made of plain containers, scalars and stand-ins.

        Raises:
            Damaged: It is not a pickle of protocol 2 to 5, is cut, or claims too much.
        """
        begin = self._stream.position
        try:
            for _ in range(self._most):
                code = self._stream.take(1)
                if code == b".":
                    return self._pop()
                operation = self._OPERATIONS.get(code)
                if operation is None:
                    raise Damaged(f"pickle opcode {code!r} is not one that torch writes")
                operation(self)
                if self._stream.position - begin > MAX_PICKLE:
                    raise Damaged(f"its pickle is larger than {MAX_PICKLE:,} bytes")
        except (IndexError, KeyError, UnicodeDecodeError) as error:
            raise Damaged("its pickle is damaged") from error
        raise Damaged(f"its pickle has more than {self._most:,} opcodes")

    # Numbers and lengths

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._stream.take(struct.calcsize(form)))[0]

    def _sized(self, form: str, most: int = _MAX_TEXT) -> bytes | None:
        length = self._unpack(form)
        if length <= most:
            return self._stream.take(length)
        self._stream.skip(length)
        return None

    def _integer(self, form: str) -> None:
        raw = self._sized(form, _MAX_DIGITS)
        number = Opaque("int") if raw is None else int.from_bytes(raw, "little", signed=True)
        self._stack.append(number)

    def _bytes(self, form: str) -> None:
        raw = self._sized(form)
        self._stack.append(Opaque("bytes") if raw is None else raw)

    def _text(self, form: str, encoding: str) -> None:
        raw = self._sized(form)
        self._stack.append(Opaque("str") if raw is None else raw.decode(encoding, "surrogatepass"))

    # The stack

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise Damaged("its pickle is damaged: a mark where a value belongs")
        return value

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise Damaged(f"its pickle is damaged: no {kind.__name__} where one belongs")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Damaged("its pickle is damaged: a mark is missing")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _pop_or_mark(self) -> None:
        self._stack.pop()

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    # The memo is a dict: a huge index costs nothing.

    def _put(self, index: int) -> None:
        if self._stack[-1] is _MARK:
            raise Damaged("its pickle is damaged: a mark where a value belongs")
        self._memo[index] = self._stack[-1]

    # Containers

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise Damaged("its pickle is damaged: a key without a value")
        target = self._stack[-1]
        if isinstance(target, Opaque):
            return
        self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def _append_to_list(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], Opaque):
            self._append(items)

    def _dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items)

    # Names and objects

    def _global(self) -> None:
        module = self._stream.line()
        self._stack.append(self._world.find(module, self._stream.line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Damaged("its pickle is damaged: a global without a name")
        if max(len(name), len(module)) > _MAX_LINE:
            raise Damaged("a name in the pickle never ends")
        self._stack.append(self._world.find(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise Damaged("its pickle is damaged: a call without arguments")
        self._stack.append(self._world.call(function, arguments))

    def _object(self) -> None:
        items = self._pop_mark()
        self._stack.append(self._world.call(items[0], tuple(items[1:])))

    def _new(self, operands: int) -> None:
        for _ in range(operands):
            self._pop()
        self._stack.append(self._world.new(self._pop()))

    def _build(self) -> None:
        state = self._pop()
        self._world.build(self._stack[-1], state)

    def _persistent(self) -> None:
        self._stack.append(self._world.persistent(self._pop()))

    # The number in the protocol opcode and the length of a frame say nothing that is needed.
    _OPERATIONS: ClassVar[dict[bytes, Callable[[Machine], object]]] = {
        b"\x80": lambda m: m._protocol(),
        b"\x95": lambda m: m._unpack("<Q"),
        b"(": lambda m: m._stack.append(_MARK),
        b"0": lambda m: m._pop_or_mark(),
        b"1": lambda m: m._pop_mark(),
        b"2": lambda m: m._stack.append(m._stack[-1]),
        b"q": lambda m: m._put(m._unpack("<B")),
        b"r": lambda m: m._put(m._unpack("<I")),
        b"\x94": lambda m: m._put(len(m._memo)),
        b"h": lambda m: m._stack.append(m._memo[m._unpack("<B")]),
        b"j": lambda m: m._stack.append(m._memo[m._unpack("<I")]),
        b"N": lambda m: m._stack.append(None),
        b"\x88": lambda m: m._stack.append(True),
        b"\x89": lambda m: m._stack.append(False),
        b"J": lambda m: m._stack.append(m._unpack("<i")),
        b"K": lambda m: m._stack.append(m._unpack("<B")),
        b"M": lambda m: m._stack.append(m._unpack("<H")),
        b"\x8a": lambda m: m._integer("<B"),
        b"\x8b": lambda m: m._integer("<I"),
        b"G": lambda m: m._stack.append(m._unpack(">d")),
        # Strings of Python 2 are text where it matters (keys) and never decoded strictly.
        b"T": lambda m: m._text("<I", "latin-1"),
        b"U": lambda m: m._text("<B", "latin-1"),
        b"X": lambda m: m._text("<I", "utf-8"),
        b"\x8c": lambda m: m._text("<B", "utf-8"),
        b"\x8d": lambda m: m._text("<Q", "utf-8"),
        b"B": lambda m: m._bytes("<I"),
        b"C": lambda m: m._bytes("<B"),
        b"\x8e": lambda m: m._bytes("<Q"),
        b"\x96": lambda m: m._bytes("<Q"),
        b"]": lambda m: m._stack.append([]),
        b"a": lambda m: m._append_to_list([m._pop()]),
        b"e": lambda m: m._append_to_list(m._pop_mark()),
        b"l": lambda m: m._stack.append(m._pop_mark()),
        b")": lambda m: m._stack.append(()),
        b"t": lambda m: m._stack.append(tuple(m._pop_mark())),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"}": lambda m: m._stack.append({}),
        b"d": lambda m: m._dict(),
        b"s": lambda m: m._set_items([m._pop(), m._pop()][::-1]),
        b"u": lambda m: m._set_items(m._pop_mark()),
        # Sets become lists: their members are never hashed.
        b"\x8f": lambda m: m._stack.append([]),
        b"\x90": lambda m: m._append_to_list(m._pop_mark()),
        b"\x91": lambda m: m._stack.append(m._pop_mark()),
        b"c": lambda m: m._global(),
        b"\x93": lambda m: m._stack_global(),
        b"R": lambda m: m._reduce(),
        b"o": lambda m: m._object(),
        b"\x81": lambda m: m._new(1),
        b"\x92": lambda m: m._new(2),
        b"b": lambda m: m._build(),
        b"Q": lambda m: m._persistent(),
    }

    def _protocol(self) -> None:
        version = self._unpack("<B")
        if not 2 <= version <= 5:
            raise Damaged(f"pickle protocol {version} is not one that torch writes")
