"""Tar as shards use it: plain files, one after another. Nothing is ever extracted.

POSIX.1-1988 (ustar): https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, "ustar
Interchange Format". The library's `tarfile` stops at a damaged header as if the archive ended
there, follows links and unpacks compressed files; here each of these is refused.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cxr_foundation.errors import BadShard

__all__ = ["BLOCK", "END", "Member", "header_of", "members", "padding_of"]

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two blocks of zeros end an archive."""

MAX_MEMBERS = 2_000_000
"""Most files in one archive; shards have thousands."""

# A pax header has a few short records; times with fractions are what Python's tarfile writes.
_MAX_PAX = 64 * 1024
_HARMLESS = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class Member(NamedTuple):
    """One file of an archive.

    Attributes:
        name: As the archive writes it; relative, without "..", printable.
        offset: Of its first byte in the archive.
        size: In bytes.
    """

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """Walk an archive's headers, without reading what is between them.

    Raises:
        BadShard: Not an archive, a compressed one, one that is cut off or damaged, or one with
            anything but plain files: links, devices, other places, special permissions.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadShard(path, "is not a regular file")
        with open(path, "rb") as file:
            yield from _walk(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise BadShard(path, f"cannot be read ({error.strerror})", "Check the path.") from None


def header_of(name: str, size: int) -> bytes:
    """A ustar header of 512 bytes with no time, no owner and mode 644."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0" + bytes(100),
        b"ustar\0" + b"00",
    )
    header = b"".join(fields).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def padding_of(size: int) -> int:
    """Bytes from the end of a file of `size` bytes to the next block."""
    return -size % BLOCK


def _walk(path: Path, file: BinaryIO, total: int) -> Iterator[Member]:
    if total == 0:
        raise BadShard(path, "is empty", "Fetch or write it again.")
    count, offset, pax_name = 0, 0, None
    while True:
        file.seek(offset)
        header = file.read(BLOCK)
        if offset == 0 and header.startswith((_GZIP, _BZIP2, _XZ, _ZSTD)):
            raise BadShard(
                path, "is compressed", "Unpack it to a plain .tar; PNG is dense already."
            )
        if len(header) < BLOCK:
            if offset == 0:
                raise BadShard(path, "is not a tar file")
            raise BadShard(path, f"is cut off after {total:,} bytes: it has no end mark")
        if header == bytes(BLOCK):
            _check_end(path, file, total)
            return
        if not _checksum_fits(header):
            what = (
                "is not a tar file" if offset == 0 else f"has a damaged header at byte {offset:,}"
            )
            raise BadShard(path, what)
        size, kind = _number(path, header[124:136]), header[156:157]
        start = offset + BLOCK
        offset = start + size + padding_of(size)
        if offset > total:
            raise BadShard(path, f"is cut off: {offset:,} bytes are claimed, {total:,} are there")
        if kind == b"x":
            pax_name = _pax(path, file, start, size)
            continue
        name = _checked(path, pax_name or _name(header))
        pax_name = None
        count += 1
        if count > MAX_MEMBERS:
            raise BadShard(path, f"has more than {MAX_MEMBERS:,} files")
        if kind == b"5" and size == 0:
            continue
        if kind not in (b"0", b"\0"):
            raise BadShard(path, f"{name!r} is a link, a device or of another special kind")
        if _number(path, header[100:108]) & _SPECIAL_BITS:
            raise BadShard(path, f"{name!r} has set-uid, set-gid or sticky permissions")
        yield Member(name, start, size)


def _check_end(path: Path, file: BinaryIO, total: int) -> None:
    if file.read(BLOCK) != bytes(BLOCK):
        raise BadShard(path, "is cut off in its end mark")
    # tar pads to a record of 10,240 bytes; whatever else follows would be seen by no reader.
    rest = file.read(32 * BLOCK)
    if rest.strip(b"\0") or file.tell() < total:
        raise BadShard(path, "has more data after its end mark")


def _checksum_fits(header: bytes) -> bool:
    try:
        claimed = int(header[148:156].split(b"\0", 1)[0].strip() or b"-1", 8)
    except ValueError:
        return False
    return claimed == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _number(path: Path, field: bytes) -> int:
    try:
        number = int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise BadShard(path, "has a header with a number that is none")
    return number


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
        return prefix + b"/" + name
    return name


def _pax(path: Path, file: BinaryIO, start: int, size: int) -> bytes | None:
    """The name that an extended header gives to the next file; None if it gives none."""
    if size > _MAX_PAX:
        raise BadShard(path, "has an extended header of absurd size")
    file.seek(start)
    rest, name = file.read(size), None
    while rest:
        digits, _, _ = rest.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        key, equals, value = rest[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(rest) or not value.endswith(b"\n"):
            raise BadShard(path, "has a damaged extended header")
        if key == b"path":
            name = value[:-1]
        elif key.decode("latin-1") not in _HARMLESS:
            raise BadShard(path, "has an extended header that changes more than times and owners")
        rest = rest[length:]
    return name


def _checked(path: Path, raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BadShard(path, "has a file whose name is not UTF-8") from None
    if not name or len(name) > 255 or any(unicodedata.category(c)[0] == "C" for c in name):
        raise BadShard(path, "has a file whose name is empty, too long or not printable")
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise BadShard(path, f"{name!r} would lie outside the folder")
    return name.removeprefix("./")
