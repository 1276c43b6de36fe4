"""Tensors that lie at known places of a file, read one at a time and only when asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import stat
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_foundation.convert.dtypes import DType
from cxr_foundation.errors import UnreadableCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CheckpointFile", "Crc", "Damaged", "Entry", "Tensors", "Vetted", "contiguous_stride"]

# More tensors than any published chest X-ray checkpoint holds with its optimiser (below 5,000);
# a header of 100,000 empty ones is the usual flood.
MAX_TENSORS = 20_000
MAX_NAME = 512
MAX_DIMENSIONS = 16
_CHUNK = 1 << 20


class Damaged(Exception):
    """What is wrong with a file; the reader turns it into an `UnreadableCheckpoint`."""


class CheckpointFile:
    """A regular file, opened once: what is checked and what is read are the same bytes.

    Attributes:
        path: The file.
        size: Its size in bytes when it was opened.

    Raises:
        UnreadableCheckpoint: There is no such file, or it is a folder, a pipe or a device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            # Asked before opening: opening a named pipe would wait for a writer for ever.
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise UnreadableCheckpoint(path, "not a regular file", "Name one checkpoint file.")
            self._file = open(self.path, "rb", buffering=0)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "no valid path"
            raise UnreadableCheckpoint(path, reason, "Check the path.") from error
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length).

        Raises:
            Damaged: The range is not inside the file; nothing is allocated then.
        """
        buffer = bytearray(self._inside(start, length))
        self.read_into(start, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from `start` on."""
        self._inside(start, len(buffer))
        self._file.seek(start)
        done = 0
        while done < len(buffer):
            count = self._file.readinto(buffer[done:])
            if not count:
                raise Damaged("the file became shorter while it was read")
            done += count

    def crc32(self, start: int, length: int) -> int:
        """CRC-32 of a range, read in pieces of 1 MiB."""
        crc = 0
        for piece in self.pieces(start, length):
            crc = zlib.crc32(piece, crc)
        return crc

    def sha256(self) -> str:
        """SHA-256 of the file as 64 lower-case hex digits."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    def pieces(self, start: int, length: int) -> Iterator[memoryview]:
        """A range piece by piece; each is overwritten by the next."""
        end = start + self._inside(start, length)
        buffer = memoryview(bytearray(min(_CHUNK, length)))
        while start < end:
            piece = buffer[: end - start]
            self.read_into(start, piece)
            yield piece
            start += len(piece)

    def _inside(self, start: int, length: int) -> int:
        if start < 0 or length < 0 or start + length > self.size:
            raise Damaged(f"it claims bytes up to {start + length:,}, but has {self.size:,}")
        return length


@dataclasses.dataclass(frozen=True)
class Crc:
    """The CRC-32 that an archive states for bytes [start, start + length)."""

    start: int
    length: int
    value: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a file; every claim is checked before any memory is taken.

    Attributes:
        dtype: As in the file.
        shape: Sizes.
        stride: Strides in elements.
        start: Byte offset of the first element in the file.
        crc: Checksum of the archive member that holds it, if the container has one.
    """

    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    crc: Crc | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Bytes from the first to the last element."""
        if not self.numel:
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class Vetted:
    """What the values of a tensor are like.

    Attributes:
        finite: None of them is infinite or no number.
        zero: All of them are zero.
    """

    finite: bool
    zero: bool


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense row-major tensor."""
    stride: list[int] = []
    step = 1
    for n in reversed(shape):
        stride.append(step)
        step *= n
    return tuple(reversed(stride))


class Tensors(Mapping[str, "Tensor"]):
    """Tensors by name. Each look-up reads that one tensor, as a dense copy of its own.

    Attributes:
        file: Where they lie.
        shapes: Sizes by name; nothing is read for them.
        dtypes: Types by name.
        read_bytes: Memory that all tensors take once they are read.

    Raises:
        Damaged: Names or claims that no honest checkpoint has.
    """

    def __init__(self, file: CheckpointFile, entries: Mapping[str, Entry]) -> None:
        self.file = file
        self._entries = dict(entries)
        self._checked: set[Crc] = set()
        self.shapes = {name: e.shape for name, e in self._entries.items()}
        self.dtypes = {name: e.dtype for name, e in self._entries.items()}
        self.read_bytes = sum(e.numel * e.dtype.itemsize for e in self._entries.values())
        self._check()

    def _check(self) -> None:
        if len(self) > MAX_TENSORS:
            raise Damaged(f"it lists {len(self):,} tensors; at most {MAX_TENSORS:,} are read")
        for name, entry in self._entries.items():
            if not name or len(name) > MAX_NAME or not name.isprintable() or ".." in name:
                raise Damaged(f"the tensor name {name[:80]!r} is not a plain name")
            if len(entry.shape) > MAX_DIMENSIONS:
                raise Damaged(f"tensor {name!r} has {len(entry.shape)} dimensions")
            # An empty tensor takes no bytes, so that the file does not bound its other sizes.
            if math.prod(max(n, 1) for n in entry.shape) >= 1 << 62:
                raise Damaged(f"tensor {name!r} is larger than any tensor can be")
            if entry.start + entry.span > self.file.size:
                raise Damaged(f"tensor {name!r} ends after the end of the file")
        # Many views of one storage would otherwise turn a small file into any amount of memory.
        if self.read_bytes > 8 * self.file.size:
            raise Damaged(
                f"its tensors claim {self.read_bytes:,} bytes, the file has {self.file.size:,}"
            )

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        try:
            return self._read(entry)
        except Damaged as damage:
            raise UnreadableCheckpoint(self.file.path, f"tensor {name!r}: {damage}") from damage

    def vetted(self, name: str) -> Vetted:
        """What the values of a tensor are like, read in pieces; of whole numbers nothing is asked.

        Raises:
            UnreadableCheckpoint: The bytes do not match their checksum.
        """
        entry = self._entries[name]
        try:
            return self._vetted(entry)
        except Damaged as damage:
            raise UnreadableCheckpoint(self.file.path, f"tensor {name!r}: {damage}") from damage

    def _vetted(self, entry: Entry) -> Vetted:
        if entry.stride != contiguous_stride(entry.shape):
            # A view leaves out elements of its run of bytes: they must not be judged with it.
            tensor = self._read(entry)
            finite = not tensor.is_floating_point() or bool(tensor.isfinite().all())
            return Vetted(finite=finite, zero=not bool(tensor.any()))
        largest, crc = 0, 0
        for piece in self.file.pieces(entry.start, entry.span):
            if entry.crc is not None:
                crc = zlib.crc32(piece, crc)
            largest = max(largest, int(entry.dtype.bits(piece).max(initial=0)))
        self._check_crc(entry, crc)
        infinity = entry.dtype.infinity
        return Vetted(finite=infinity is None or largest < infinity, zero=largest == 0)

    def _check_crc(self, entry: Entry, found: int) -> None:
        """Hold the archive's member to its CRC-32, given that of the tensor's own bytes."""
        crc = entry.crc
        if crc is None or crc in self._checked:
            return
        if (crc.start, crc.length) != (entry.start, entry.span):
            found = self.file.crc32(crc.start, crc.length)
        if found != crc.value:
            raise Damaged("the bytes do not match their CRC-32; the file is damaged")
        self._checked.add(crc)

    def _read(self, entry: Entry) -> Tensor:
        import torch

        try:
            raw = torch.empty(entry.span, dtype=torch.uint8)
        except RuntimeError as error:
            raise Damaged(f"there is no memory for its {entry.span:,} bytes") from error
        buffer = raw.numpy().data
        self.file.read_into(entry.start, buffer)
        if entry.crc is not None and entry.crc not in self._checked:
            self._check_crc(entry, zlib.crc32(buffer))
        if not entry.numel:
            return torch.empty(entry.shape, dtype=entry.dtype.torch)
        flat = raw.view(entry.dtype.torch)
        # Of a view only its own elements are kept, never the storage that it was cut from.
        dense = entry.stride == contiguous_stride(entry.shape)
        view = flat.as_strided(entry.shape, entry.stride)
        return view if dense else view.clone(memory_format=torch.contiguous_format)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
