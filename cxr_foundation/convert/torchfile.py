"""The containers that torch has written: zip (since 1.6), a stream of pickles, and tar.

https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py reads the same three.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from cxr_foundation.convert.entries import MAX_DIMENSIONS, MAX_TENSORS, CheckpointFile, Damaged
from cxr_foundation.convert.machine import MAX_PICKLE, Machine, Stream
from cxr_foundation.convert.standins import (
    Global,
    InertWorld,
    Storage,
    TensorClaim,
    claim,
    storage_dtype,
    whole,
)
from cxr_foundation.convert.ziparchive import Member, check_member, read_directory, read_member

__all__ = ["LEGACY_MAGIC", "TorchReader"]

# The pickle of MAGIC_NUMBER 0x1950a86a20f9469cfc6c: protocol 2 as torch writes it if not told
# otherwise, or a later one, whose frame may say its length first.
LEGACY_MAGIC = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL
)
_PROTOCOL = 1001
_TAR_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_TAR_BLOCK = 512
# Opcodes of one of the many small pickles that name its storages and tensors; about 10 are used.
_MOST_IN_TAR = 100


class TorchReader:
    """Reads one file; `world` keeps the names that were seen even when reading fails.

    Args:
        file: The file, recognised as one of the three containers or as a bare pickle.
    """

    def __init__(self, file: CheckpointFile) -> None:
        self._file = file
        self._storages: dict[str, Storage] = {}
        self._tar_objects: dict[int, object] = {}
        self.world = InertWorld(self._persistent)

    def read_zip(self) -> object:
        """The object of a torch zip, its tensors as claims with places.

        Raises:
            Damaged: See `ziparchive`; or the archive is not torch's, is a TorchScript program,
                was written by a big-endian machine, or lacks a storage.
        """
        members = read_directory(self._file)
        pickles = [n for n in members if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(pickles) != 1:
            raise Damaged("it is a zip archive, but not one of torch's")
        root = pickles[0].removesuffix("data.pkl")
        if any(n.startswith(f"{root}code/") or n == f"{root}constants.pkl" for n in members):
            raise Damaged("it is a TorchScript program, not a set of weights")
        self._refuse_big_endian(members.get(f"{root}byteorder"))
        pickle = members[pickles[0]]
        check_member(self._file, pickle, MAX_PICKLE)
        value = self._load(pickle.start, pickle.start + pickle.size)
        self._place(members, root)
        return value

    def read_legacy(self) -> object:
        """The object of torch's stream format: five pickles, then the storages one by one."""
        stream = Stream(self._file, 0, self._file.size)
        Machine(stream, self.world).load()
        protocol = Machine(stream, self.world).load()
        system = Machine(stream, self.world).load()
        if protocol != _PROTOCOL or not isinstance(system, dict):
            raise Damaged("its header is not that of a torch file")
        if system.get("little_endian") is not True:
            raise Damaged("it was written by a big-endian machine")
        value = Machine(stream, self.world).load()
        keys = Machine(stream, self.world).load()
        if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
            raise Damaged("its list of storages is damaged")
        if self.world.suspicious:
            return value
        at = stream.position
        for key in keys:
            if key not in self._storages or self._storages[key].start is not None:
                raise Damaged(f"its list of storages names {key[:80]!r} wrongly")
            at = self._place_counted(self._storages[key], at)
        if at != self._file.size:
            raise Damaged(f"{self._file.size - at:,} bytes follow its last storage")
        return value

    def read_tar(self) -> object:
        """The object of the tar format that torch wrote before 0.1.10."""
        members = _tar_members(self._file)
        if set(members) != set(_TAR_MEMBERS):
            raise Damaged("it is a tar archive, but not one of torch's; unpack it first")
        system = self._load(*members["sys_info"])
        self._tar_storages(*members["storages"])
        self._tar_tensors(*members["tensors"])
        value = self._load(*members["pickle"])
        if isinstance(system, dict) and system.get("little_endian", True) is not True:
            raise Damaged("it was written by a big-endian machine")
        return value

    def read_pickle(self) -> object:
        """The object of a bare pickle; it can hold no tensor, but it can name code."""
        return self._load(0, self._file.size)

    def _load(self, start: int, end: int) -> Any:
        stream = Stream(self._file, start, end)
        value = Machine(stream, self.world).load()
        if stream.position != end:
            raise Damaged(f"{end - stream.position:,} bytes follow its pickle")
        return value

    # Persistent ids

    def _persistent(self, key: object) -> object:
        if isinstance(key, int | str) and self._tar_objects:
            return self._tar_object(key)
        if not isinstance(key, tuple) or not key:
            raise Damaged("a storage is named in an unknown way")
        if isinstance(key[0], Global):
            # tar format: (class, source file, source text); the text is not looked at.
            return key[0]
        if key[0] == "module" and len(key) == 4:
            return key[1]
        if key[0] == "storage" and len(key) in (5, 6):
            storage = self._storage(key[2], key[1], key[4])
            view = key[5] if len(key) == 6 else None
            return storage if view is None else self._view(storage, view)
        raise Damaged("a storage is named in an unknown way")

    def _storage(self, key: object, kind: object, numel: object) -> Storage:
        if not isinstance(key, str):
            raise Damaged("a storage without a name")
        made = Storage(key, storage_dtype(kind), whole(numel, "storage"))
        known = self._storages.setdefault(key, made)
        if (known.dtype, known.numel) != (made.dtype, made.numel):
            raise Damaged(f"the storage {key[:80]!r} has two types or sizes")
        return known

    @staticmethod
    def _view(storage: Storage, view: object) -> Storage:
        if not isinstance(view, tuple) or len(view) != 3:
            raise Damaged("a part of a storage is described in an unknown way")
        first, numel = whole(view[1], "offset"), whole(view[2], "size")
        if first + numel > storage.numel:
            raise Damaged(f"a part of {numel:,} elements of a storage of {storage.numel:,}")
        if storage.dtype is None:
            raise Damaged("a part of a storage whose elements have no type")
        base, before = storage.base or (storage, 0)
        return Storage(storage.key, storage.dtype, numel, base=(base, before + first))

    # Where the storages are

    def _place(self, members: Mapping[str, Member], root: str) -> None:
        for key, storage in self._storages.items():
            member = members.get(f"{root}data/{key}")
            if member is None:
                continue
            if member.size != storage.nbytes:
                raise Damaged(
                    f"storage {key[:80]!r} claims {storage.nbytes:,} bytes and has {member.size:,}"
                )
            storage.start, storage.crc = member.start, member.check

    def _place_counted(self, storage: Storage, at: int) -> int:
        """A storage that begins with its own count of elements; returns where it ends."""
        (count,) = struct.unpack("<q", self._file.read(at, 8))
        if count != storage.numel:
            raise Damaged(f"a storage claims {storage.numel:,} elements and has {count:,}")
        end = at + 8 + storage.nbytes
        if end > self._file.size:
            raise Damaged("its last storages are missing; the file is cut short")
        storage.start = at + 8
        return end

    def _refuse_big_endian(self, member: Member | None) -> None:
        if member is not None and read_member(self._file, member, 64) != b"little":
            raise Damaged("it was written by a big-endian machine")

    # tar: storages and tensors have their own members, named by numbers

    def _tar_storages(self, start: int, end: int) -> None:
        stream = Stream(self._file, start, end)
        for _ in range(self._tar_count(stream)):
            key, _, kind = _triple(Machine(stream, self.world, _MOST_IN_TAR).load())
            dtype = storage_dtype(kind)
            (count,) = struct.unpack("<q", stream.take(8))
            storage = Storage(str(key), dtype, whole(count, "storage"), start=stream.position)
            if stream.position + storage.nbytes > end:
                raise Damaged("its last storages are missing; the file is cut short")
            self._tar_add(key, storage)
            stream = Stream(self._file, stream.position + storage.nbytes, end)
        views = Machine(stream, self.world).load()
        if not isinstance(views, list) or len(views) > MAX_TENSORS:
            raise Damaged("its list of parts of storages is damaged")
        for view in views:
            if not isinstance(view, tuple) or len(view) != 4:
                raise Damaged("a part of a storage is described in an unknown way")
            base = self._tar_object(view[1])
            if not isinstance(base, Storage):
                raise Damaged("a part of something that is not a storage")
            self._tar_add(view[0], self._view(base, (None, view[2], view[3])))

    def _tar_tensors(self, start: int, end: int) -> None:
        stream = Stream(self._file, start, end)
        for _ in range(self._tar_count(stream)):
            key, storage, _ = _triple(Machine(stream, self.world, _MOST_IN_TAR).load())
            # The number of dimensions takes eight bytes, of which four are used.
            (dimensions,) = struct.unpack("<i4x", stream.take(8))
            if not 0 <= dimensions <= MAX_DIMENSIONS:
                raise Damaged(f"a tensor of {dimensions} dimensions")
            numbers = struct.unpack(f"<{2 * dimensions}q", stream.take(16 * dimensions))
            (offset,) = struct.unpack("<q", stream.take(8))
            tensor = claim(
                self._tar_object(storage), offset, numbers[:dimensions], numbers[dimensions:]
            )
            self._tar_add(key, tensor)

    def _tar_count(self, stream: Stream) -> int:
        count = whole(Machine(stream, self.world, _MOST_IN_TAR).load(), "count")
        if count > MAX_TENSORS:
            raise Damaged(f"it lists {count:,} tensors; at most {MAX_TENSORS:,} are read")
        return count

    def _tar_add(self, key: object, value: Storage | TensorClaim) -> None:
        if not isinstance(key, int) or key in self._tar_objects:
            raise Damaged("two storages or tensors of one name")
        self._tar_objects[key] = value

    def _tar_object(self, key: object) -> object:
        number = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 24 else key
        if not isinstance(number, int) or number not in self._tar_objects:
            raise Damaged("a storage or tensor that is not in the file")
        return self._tar_objects[number]


def _triple(value: object) -> tuple[Any, Any, Any]:
    if not isinstance(value, tuple) or len(value) != 3:
        raise Damaged("a storage or tensor is described in an unknown way")
    return value


def _tar_members(file: CheckpointFile) -> dict[str, tuple[int, int]]:
    """(start, end) of the regular members of a tar; every header's checksum is checked."""
    members: dict[str, tuple[int, int]] = {}
    at = 0
    while at + _TAR_BLOCK <= file.size:
        block = file.read(at, _TAR_BLOCK)
        if not any(block):
            return members
        try:
            told = int(block[148:156].rstrip(b"\0 ") or b"0", 8)
            size = int(block[124:136].rstrip(b"\0 ") or b"0", 8)
        except ValueError as error:
            raise Damaged("a header of its tar is damaged") from error
        if told != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]) or size < 0:
            raise Damaged("a header of its tar does not match its checksum")
        name = block[:100].rstrip(b"\0").decode("latin-1")
        if block[156:157] not in (b"0", b"\0") or name in members or len(members) > 8:
            raise Damaged("it is a tar archive, but not one of torch's; unpack it first")
        members[name] = (at + _TAR_BLOCK, at + _TAR_BLOCK + size)
        at += _TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK
    raise Damaged("its tar has no end; the file is cut short")
