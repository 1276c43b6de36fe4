"""A DICOM file's elements, on an allow-list: nothing else of the header is ever looked at.

pydicom decodes the pixels, but does not read the header: its reader takes claimed lengths on
trust, follows nested sequences by recursion, and quotes values in warnings, log records and
exceptions, which is how a patient's name comes into a log file. This walk is a loop over bounds
that are checked, and keeps some thirty technical elements as raw bytes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images.allowlist import ELEMENTS

__all__ = ["Element", "Header", "is_dicom", "read_header"]

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE00010
_FLOAT_PIXELS = {0x7FE00008, 0x7FE00009}

# PS3.5 7.1.2: value representations with a 16-bit and with a 32-bit length field.
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT"} | {
    b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"
}  # fmt: skip
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

_TAGS = {name: tag for tag, name in ELEMENTS.items()}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Element:
    """One element's raw value.

    Attributes:
        vr: Value representation; None where the transfer syntax is implicit.
        value: The bytes, without delimiters.
    """

    vr: bytes | None
    value: memoryview


@dataclasses.dataclass(frozen=True)
class Header:
    """The elements on the allow-list, each read by name, and where the pixels are.

    Attributes:
        path: For messages.
        syntax: Transfer syntax UID, (0002,0010).
        little: Byte order of numbers.
        explicit: Whether elements carry their value representation.
        elements: Raw elements by keyword.
        pixels: Value of Pixel Data (7FE0,0010); of a compressed one, its items with their
            headers. None if there is no such element.
        fragments: The compressed frame's fragments, None if the pixels are native.
    """

    path: str | os.PathLike[str]
    syntax: str
    little: bool
    explicit: bool
    elements: dict[str, Element]
    pixels: Element | None = None
    fragments: tuple[memoryview, ...] | None = None

    def raw(self, name: str) -> memoryview | None:
        """An element's bytes, None if it is absent or empty."""
        element = self.elements.get(name)
        return element.value if element is not None and len(element.value) else None

    def damaged(self, name: str, why: str) -> UnreadableImage:
        """The error for an element that cannot be read; its value is never quoted."""
        return UnreadableImage(self.path, f"{label(name)} {why}")

    def unsupported(self, reason: str, remedy: str | None = None) -> UnsupportedPixels:
        """The error for pixels that would have to be guessed at."""
        return UnsupportedPixels(self.path, reason, remedy)

    def integers(self, name: str, *, signed: bool = False) -> tuple[int, ...]:
        """16-bit numbers (VR US or SS), empty if the element is."""
        raw = self.raw(name)
        if raw is None:
            return ()
        if len(raw) % 2 or self.elements[name].vr not in (None, b"US", b"SS", b"OW"):
            raise self.damaged(name, "is not made of 16-bit numbers")
        order = "<" if self.little else ">"
        return struct.unpack(f"{order}{len(raw) // 2}{'h' if signed else 'H'}", raw)

    def integer(self, name: str, *, signed: bool = False) -> int | None:
        """One 16-bit number, None if the element is absent or empty."""
        values = self.integers(name, signed=signed)
        if len(values) > 1:
            raise self.damaged(name, "has more than one value")
        return values[0] if values else None

    def required(self, name: str) -> int:
        """One 16-bit number that has to be there."""
        value = self.integer(name)
        if value is None:
            raise self.unsupported(f"{label(name)} is missing")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """Values of a code or number string (VR CS, DS, IS), upper case, empty if absent."""
        raw = self.raw(name)
        if raw is None:
            return ()
        text = bytes(raw).decode("ascii", errors="replace").strip(" \0")
        return tuple(part.strip(" \0").upper() for part in text.split("\\")) if text else ()

    def string(self, name: str) -> str:
        """The first value of a code string, "" if absent."""
        return next(iter(self.strings(name)), "")

    def decimals(self, name: str) -> tuple[float | None, ...]:
        """Numbers (VR DS or IS); None for each that is no finite number."""
        found: list[float | None] = []
        for text in self.strings(name):
            value = float(text) if _NUMBER.fullmatch(text) else math.nan
            found.append(value if math.isfinite(value) else None)
        return tuple(found)

    def first_item(self, name: str) -> Header | None:
        """The first item of a sequence as a header of its own, None if there is none."""
        raw = self.raw(name)
        if raw is None:
            return None
        # PS3.5 6.2.2: a sequence of VR UN is encoded implicitly, whatever the file's syntax.
        explicit = self.explicit and self.elements[name].vr != b"UN"
        walk = _Walk(self.path, raw, self.little, explicit)
        tag, length, start = walk.item_header(0)
        if tag != _ITEM:
            raise self.damaged(name, "does not begin with an item")
        stop = walk.end_of_item(start) if length == _UNDEFINED else walk.bounded(start, length)
        item = _Walk(self.path, raw[:stop], self.little, explicit)
        return dataclasses.replace(
            self, elements=item.collect(start).elements, explicit=explicit, pixels=None
        )


def label(name: str) -> str:
    """«(0028,0010) Rows»: the element as a header viewer lists it."""
    tag = _TAGS[name]
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {name}"


@dataclasses.dataclass(frozen=True)
class _Walk:
    """A walk over elements, in which nothing is believed beyond the end of the data."""

    path: str | os.PathLike[str]
    data: memoryview
    little: bool
    explicit: bool

    def unpack(self, layout: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(layout) > len(self.data):
            raise UnreadableImage(self.path, "the DICOM file is cut off")
        return struct.unpack_from(("<" if self.little else ">") + layout, self.data, at)

    def bounded(self, start: int, length: int) -> int:
        if start + length > len(self.data):
            raise UnreadableImage(
                self.path, "the DICOM file is cut off, or one of its length fields is wrong"
            )
        return start + length

    def item_header(self, at: int) -> tuple[int, int, int]:
        """(tag, length, start of the value) of an item or a delimiter: always implicit."""
        group, number, length = self.unpack("HHI", at)
        return group << 16 | number, length, at + 8

    def element_header(self, at: int, explicit: bool) -> tuple[int, bytes | None, int, int]:
        """(tag, VR, length, start of the value) of the element at `at`."""
        group, number = self.unpack("HH", at)
        tag = group << 16 | number
        if not explicit or group == 0xFFFE:
            (length,) = self.unpack("I", at + 4)
            return tag, None, length, at + 8
        vr = bytes(self.data[at + 4 : at + 6])
        if vr in _SHORT:
            (length,) = self.unpack("H", at + 6)
            return tag, vr, length, at + 8
        if vr in _LONG:
            (length,) = self.unpack("I", at + 8)
            return tag, vr, length, at + 12
        raise UnreadableImage(self.path, "the DICOM header has an unknown value representation")

    def end_of_sequence(self, at: int, explicit: bool) -> int:
        """Where the delimiter of a sequence of undefined length begins; nesting costs no stack."""
        levels = [(_SEQUENCE_END, explicit)]
        while True:
            closing, explicit = levels[-1]
            if closing == _SEQUENCE_END:
                tag, length, start = self.item_header(at)
                inner = (_ITEM_END, explicit)
                if tag not in (_ITEM, _SEQUENCE_END):
                    raise UnreadableImage(self.path, "the DICOM header has a broken sequence")
            else:
                tag, vr, length, start = self.element_header(at, explicit)
                inner = (_SEQUENCE_END, explicit and vr != b"UN")
            if tag == closing:
                levels.pop()
                if not levels:
                    return at
                at = start
            elif length == _UNDEFINED:
                levels.append(inner)
                at = start
            else:
                at = self.bounded(start, length)

    def end_of_item(self, at: int) -> int:
        """Where the delimiter of an item of undefined length begins."""
        while True:
            tag, vr, length, start = self.element_header(at, self.explicit)
            if tag == _ITEM_END:
                return at
            if length == _UNDEFINED:
                at = self.end_of_sequence(start, self.explicit and vr != b"UN") + 8
            else:
                at = self.bounded(start, length)

    def elements(self, at: int) -> Iterator[tuple[int, Element, bool]]:
        """(tag, element, whether its length was undefined), up to and with the pixels."""
        while at < len(self.data):
            tag, vr, length, start = self.element_header(at, self.explicit)
            undefined = length == _UNDEFINED
            if undefined and tag == _PIXELS:
                stop = self.end_of_fragments(start)
            elif undefined:
                stop = self.end_of_sequence(start, self.explicit and vr != b"UN")
            else:
                stop = self.bounded(start, length)
            yield tag, Element(vr, self.data[start:stop]), undefined
            if tag == _PIXELS:
                return
            at = stop + 8 if undefined else stop

    def end_of_fragments(self, at: int) -> int:
        """Where the delimiter of compressed pixel data begins (PS3.5 A.4)."""
        while True:
            tag, length, start = self.item_header(at)
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM or length == _UNDEFINED:
                raise UnreadableImage(self.path, "the compressed pixel data is damaged")
            at = self.bounded(start, length)

    def collect(self, at: int) -> Header:
        """The wanted elements from `at` on."""
        header = Header(self.path, "", self.little, self.explicit, {})
        for tag, element, undefined in self.elements(at):
            name = ELEMENTS.get(tag)
            if name is not None:
                if name in header.elements:
                    raise header.damaged(name, "occurs twice")
                header.elements[name] = element
            if tag in _FLOAT_PIXELS:
                raise header.unsupported("its pixels are floating-point numbers")
            if tag == _PIXELS:
                fragments = _fragments(self, element.value) if undefined else None
                return dataclasses.replace(header, pixels=element, fragments=fragments)
        return header


def _fragments(walk: _Walk, items: memoryview) -> tuple[memoryview, ...]:
    """The fragments of compressed pixel data, without the offset table (PS3.5 A.4)."""
    inside = dataclasses.replace(walk, data=items)
    found, at = [], 0
    while at < len(items):
        _, length, start = inside.item_header(at)
        at = start + length
        found.append(items[start:at])
    return tuple(found[1:])


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are DICOM: PS3.10 7.1's prefix, or a data set that begins at once."""
    return data[128:132] == b"DICM" or _bare_syntax(data) is not None


def _bare_syntax(data: bytes) -> str | None:
    """Transfer syntax of a data set without preamble, None if it does not look like one.

    Such a file begins with group 0002 or 0008, and no other format does so with an element of
    one of DICOM's value representations or of a length that fits.
    """
    if len(data) < 16 or data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return None
    little = data[1] == 0
    if data[4:6] in _SHORT | _LONG:
        return EXPLICIT if little else BIG_ENDIAN
    number, length = struct.unpack_from("<HI", data, 2)
    fits = little and number < 0x3000 and length % 2 == 0 and length < min(len(data), 1024)
    return IMPLICIT if fits else None


def read_header(path: str | os.PathLike[str], data: bytes, *, limit: int) -> Header:
    """Walk over a DICOM file's bytes.

    Args:
        path: For messages.
        data: The whole file, for which `is_dicom` holds.
        limit: Most bytes that a deflated data set may inflate to.

    Raises:
        UnreadableImage: Cut off, damaged, or inflating beyond the limit.
        UnsupportedPixels: No transfer syntax, or floating-point pixels.
    """
    view = memoryview(data)
    at = 132 if data[128:132] == b"DICM" else 0
    syntax = _bare_syntax(data) if at == 0 else None
    # PS3.10 7.1: the file meta information, group 0002, is always explicit little endian.
    meta = _Walk(path, view, little=True, explicit=True)
    while at + 8 <= len(view) and data[at : at + 2] == b"\x02\0":
        tag, _, length, start = meta.element_header(at, True)
        at = meta.bounded(start, length)
        if tag == 0x00020010:
            syntax = bytes(view[start:at]).decode("ascii", errors="replace").strip(" \0")
    if not syntax:
        raise UnsupportedPixels(path, "(0002,0010) TransferSyntaxUID is missing")
    if syntax == DEFLATED:
        view, at = memoryview(_inflate(path, view[at:], limit)), 0
    walk = _Walk(path, view, little=syntax != BIG_ENDIAN, explicit=syntax != IMPLICIT)
    return dataclasses.replace(walk.collect(at), syntax=syntax)


def _inflate(path: str | os.PathLike[str], data: memoryview, limit: int) -> bytes:
    """PS3.5 A.5: the data set as a raw deflate stream."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, limit)
    except zlib.error:
        raise UnreadableImage(path, "the deflated data set is damaged") from None
    if stream.unconsumed_tail:
        raise UnreadableImage(path, f"the deflated data set exceeds {limit / 2**20:.0f} MiB")
    if not stream.eof:
        raise UnreadableImage(path, "the deflated data set is cut off")
    return inflated
