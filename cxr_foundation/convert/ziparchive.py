"""Zip archives as torch writes them: stored members, one directory, both telling the same story.

A zip names each member twice, before its bytes and in a directory at the end; tools that believe
different ones can be shown different files. Here both have to agree. Members are stored, never
compressed (torch compresses nothing), so a member is a range of the file.

Format: PKWARE APPNOTE 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping

from cxr_foundation.convert.entries import CheckpointFile, Crc, Damaged

__all__ = ["Member", "check_member", "read_directory", "read_member"]

MAX_MEMBERS = 100_000
_MAX_DIRECTORY = 32 << 20
_U32 = 0xFFFFFFFF
# General purpose flags: sizes follow the data (bit 3), names are UTF-8 (bit 11).
_DESCRIPTOR, _UTF8 = 1 << 3, 1 << 11


@dataclasses.dataclass(frozen=True)
class Member:
    """One stored file of an archive.

    Attributes:
        name: Path inside the archive.
        start: Byte offset of its data in the archive.
        size: Bytes.
        crc: CRC-32 that the directory states.
    """

    name: str
    start: int
    size: int
    crc: int

    @property
    def check(self) -> Crc:
        """The checksum and the range that it is of."""
        return Crc(self.start, self.size, self.crc)


def read_directory(file: CheckpointFile) -> Mapping[str, Member]:
    """Members by name.

    Raises:
        Damaged: Compressed, encrypted, duplicate or overlapping members; a directory that does
            not agree with the members' own headers; bytes outside the archive.
    """
    count, start, size = _end_record(file)
    if count > MAX_MEMBERS or size > _MAX_DIRECTORY:
        raise Damaged(f"its zip directory lists {count:,} members")
    directory = file.read(start, size)
    members: dict[str, Member] = {}
    ends: list[tuple[int, int]] = []
    at = 0
    try:
        for _ in range(count):
            member, header, at = _directory_record(file, directory, at)
            if member.name in members:
                raise Damaged(f"its zip directory names {member.name!r} twice")
            members[member.name] = member
            ends.append((header, member.start + member.size))
    except (struct.error, UnicodeDecodeError) as error:
        raise Damaged("its zip directory is damaged") from error
    if at != size:
        raise Damaged("its zip directory is longer than it says")
    ends.sort()
    for (_, end), (following, _) in zip(ends, [*ends[1:], (start, start)], strict=True):
        if end > following:
            raise Damaged("members of its zip overlap")
    return members


def read_member(file: CheckpointFile, member: Member, limit: int) -> bytes:
    """A small member's bytes, checked against its CRC-32."""
    check_member(file, member, limit)
    return file.read(member.start, member.size)


def check_member(file: CheckpointFile, member: Member, limit: int) -> None:
    """Check a small member against its CRC-32 without keeping its bytes."""
    if member.size > limit:
        raise Damaged(f"{member.name!r} has {member.size:,} bytes")
    if file.crc32(member.start, member.size) != member.crc:
        raise Damaged(f"{member.name!r} does not match its CRC-32; the file is damaged")


def _end_record(file: CheckpointFile) -> tuple[int, int, int]:
    """(members, offset, size) of the directory, from the record at the very end of the file."""
    end = file.size - 22
    record = file.read(end, 22) if end >= 0 else b""
    if record[:4] != b"PK\x05\x06" or record[20:22] != b"\0\0":
        raise Damaged("its zip has no directory at its end; the file is cut short")
    disk, first, here, count, size, start = struct.unpack("<HHHHII", record[4:20])
    locator = file.read(end - 20, 20) if end >= 20 else b""
    if locator[:4] == b"PK\x06\x07":
        end = struct.unpack("<Q", locator[8:16])[0]
        record = file.read(end, 56)
        if record[:4] != b"PK\x06\x06":
            raise Damaged("its zip64 directory is damaged")
        small = (here, count, size, start)
        disk, first, here, count, size, start = struct.unpack("<IIQQQQ", record[16:56])
        for told, limit, true in zip(
            small, (0xFFFF, 0xFFFF, _U32, _U32), (here, count, size, start), strict=True
        ):
            if told not in (limit, true):
                raise Damaged("its zip has two directories that differ")
    if disk or first or here != count or start + size != end:
        raise Damaged("its zip directory is not where it says")
    return count, start, size


def _directory_record(file: CheckpointFile, directory: bytes, at: int) -> tuple[Member, int, int]:
    head = directory[at : at + 46]
    if head[:4] != b"PK\x01\x02":
        raise Damaged("its zip directory is damaged")
    flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment = struct.unpack(
        "<HHHHIIIHHH", head[8:34]
    )
    (header,) = struct.unpack("<I", head[42:46])
    raw_name = directory[at + 46 : at + 46 + n_name]
    extra = directory[at + 46 + n_name : at + 46 + n_name + n_extra]
    size, packed, header = _zip64(extra, size, packed, header)
    name = raw_name.decode("utf-8")
    if flags & ~(_DESCRIPTOR | _UTF8):
        raise Damaged(f"zip member {name!r} is encrypted or of an unknown kind")
    if method != 0 or packed != size:
        raise Damaged(f"zip member {name!r} is compressed, which torch never does")
    start = _local_header(file, header, raw_name, flags, crc, size)
    following = at + 46 + n_name + n_extra + n_comment
    return Member(name, start, size, crc), header, following


def _zip64(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Replace the values that did not fit 32 bits by those of the extra field."""
    values = [size, packed, header]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            for n, value in enumerate(values):
                if value == _U32:
                    (values[n],) = struct.unpack("<Q", body[:8])
                    body = body[8:]
        at += 4 + length
    return values[0], values[1], values[2]


def _local_header(
    file: CheckpointFile, header: int, name: bytes, flags: int, crc: int, size: int
) -> int:
    """Check a member's own header against the directory; returns where its data begin."""
    local = file.read(header, 30)
    if local[:4] != b"PK\x03\x04":
        raise Damaged(f"zip member {name.decode()!r} has no header")
    own_flags, method = struct.unpack("<HH", local[6:10])
    own_crc, packed, own_size, n_name, n_extra = struct.unpack("<IIIHH", local[14:30])
    if own_flags != flags or method != 0 or file.read(header + 30, n_name) != name:
        raise Damaged(f"zip member {name.decode()!r} has two names or kinds")
    extra = file.read(header + 30 + n_name, n_extra)
    own_size, packed, _ = _zip64(extra, own_size, packed, 0)
    told = (own_crc, packed, own_size)
    # With a descriptor the header may leave the three numbers at zero.
    if told != (crc, size, size) and not (flags & _DESCRIPTOR and told == (0, 0, 0)):
        raise Damaged(f"zip member {name.decode()!r} has two sizes or checksums")
    start: int = header + 30 + n_name + n_extra
    if start + size > file.size:
        raise Damaged(f"zip member {name.decode()!r} ends after the end of the file")
    return start
