"""Bytes of a file that are held to their SHA-256 once, not at every reading.

What is detected: bytes that differ from their digest are refused the first time that this process
asks for them, and again the first time after the file has changed, which the system tells at every
reading by its size and its times of modification and of change (nobody can set back the latter).
Nothing is remembered of a file that changed less than two seconds ago, since a second change could
then have the same time. Of a file that was replaced or removed the process goes on to read the old
one, whose bytes are those of the digests, until it is asked for bytes that this one does not have.

What is not: bytes that change beneath a file system that does not say so, as on a failing disk, in
its cache, or on a network drive that hands out old times; a program that writes into the file
through a memory map, until the system notes the time; and a change in the microseconds between
the question and the reading. `Shards(..., verify=True)` or a new process compares again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time

__all__ = ["OtherBytes", "read"]

# Descriptors that stay open, each with what was compared of its file; most systems allow 256.
_FILES = 64

# Reads without a place in the file that threads and forked processes would share; not on Windows.
_PREAD = hasattr(os, "pread")

# Of file systems' times, FAT's are the coarsest: 2 s.
_SETTLED_NS = 2 * 10**9


class OtherBytes(Exception):
    """The bytes are not those of the digest."""


def read(path: str | os.PathLike[str], *, offset: int, size: int, sha256: str) -> bytes:
    """Bytes of a file.

    Args:
        path: An existing file.
        offset: Of the first byte.
        size: In bytes.
        sha256: What their digest has to be, in hexadecimal; "" for bytes that have none.

    Returns:
        `size` bytes.

    Raises:
        OtherBytes: Their digest is another.
        EOFError: The file ends before.
        OSError: The file cannot be opened or read.
    """
    name = os.fspath(path)
    opened = _opened(name)
    try:
        return opened.read(offset, size, sha256)
    except (EOFError, OtherBytes):
        if not opened.is_replaced():
            raise
        _opened.cache_clear()
        return _opened(name).read(offset, size, sha256)


_Stamp = tuple[int, int, int]


class _Opened:
    """An open file, and which of its bytes were compared.

    No memory map: a file that is cut short or a network drive that is lost beneath one ends the
    process.
    """

    def __init__(self, name: str) -> None:
        self._name, self._descriptor = name, -1
        self._descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        # In one piece: a thread that still adds to the set of an older stamp vouches for nothing.
        self._compared: tuple[_Stamp, set[tuple[int, int, str]]] = ((-1, 0, 0), set())

    def __del__(self) -> None:
        # Not before: another thread may be reading when this file leaves the cache.
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def is_replaced(self) -> bool:
        """Whether there is another file under this name by now."""
        try:
            return not os.path.samestat(os.stat(self._name), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def read(self, offset: int, size: int, sha256: str) -> bytes:
        status = os.fstat(self._descriptor)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, compared = self._compared
        if stamp != known:
            compared = set()
            self._compared = stamp, compared
        data = os.pread(self._descriptor, size, offset) if _PREAD else self._locked(offset, size)
        if len(data) != size:
            raise EOFError
        member = (offset, size, sha256)
        if sha256 and member not in compared:
            # Asked before the digest is computed: the bytes are at least as old.
            now = time.time_ns()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise OtherBytes
            if now > max(stamp[1:]) + _SETTLED_NS:
                compared.add(member)
        return data

    def _locked(self, offset: int, size: int) -> bytes:
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)


_opened = functools.lru_cache(_FILES)(_Opened)
