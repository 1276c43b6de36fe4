"""Writes small DICOM files byte by byte, with nothing but struct: no reader checks its own writer.

PS3.5 7 (data elements), 8 (pixel data), A (transfer syntaxes), G (RLE); PS3.10 7.1 (the file).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"

# PS3.6 6: tag and value representation of what the cases set.
ELEMENTS = {
    "ImageType": (0x00080008, "CS"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "Modality": (0x00080060, "CS"),
    "PresentationIntentType": (0x00080068, "CS"),
    "PatientName": (0x00100010, "PN"),
    "ImagerPixelSpacing": (0x00181164, "DS"),
    "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"),
    "PlanarConfiguration": (0x00280006, "US"),
    "NumberOfFrames": (0x00280008, "IS"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "PixelSpacing": (0x00280030, "DS"),
    "PixelAspectRatio": (0x00280034, "IS"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "HighBit": (0x00280102, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "PixelPaddingValue": (0x00280120, "US"),
    "PixelPaddingRangeLimit": (0x00280121, "US"),
    "PixelIntensityRelationshipSign": (0x00281041, "SS"),
    "WindowCenter": (0x00281050, "DS"),
    "WindowWidth": (0x00281051, "DS"),
    "RescaleIntercept": (0x00281052, "DS"),
    "RescaleSlope": (0x00281053, "DS"),
    "VOILUTFunction": (0x00281056, "CS"),
    "RedPaletteColorLookupTableDescriptor": (0x00281101, "US"),
    "GreenPaletteColorLookupTableDescriptor": (0x00281102, "US"),
    "BluePaletteColorLookupTableDescriptor": (0x00281103, "US"),
    "RedPaletteColorLookupTableData": (0x00281201, "OW"),
    "GreenPaletteColorLookupTableData": (0x00281202, "OW"),
    "BluePaletteColorLookupTableData": (0x00281203, "OW"),
    "LossyImageCompression": (0x00282110, "CS"),
    "ModalityLUTSequence": (0x00283000, "SQ"),
    "LUTDescriptor": (0x00283002, "US"),
    "LUTData": (0x00283006, "OW"),
    "VOILUTSequence": (0x00283010, "SQ"),
    "PresentationLUTShape": (0x20500020, "CS"),
    "FloatPixelData": (0x7FE00008, "OF"),
    "PixelData": (0x7FE00010, "OW"),
}
_LONG = {"OB", "OF", "OW", "SQ", "UN"}

Value = str | int | bytes | Sequence[int] | Sequence[Mapping[str, "Value"]]


class Encapsulated(bytes):
    """Pixel data that is already in items: written with undefined length."""


def encapsulated(frame: bytes, *, fragments: int = 1, offsets: bool = False) -> Encapsulated:
    """PS3.5 A.4: an offset table, empty or of one frame, and the frame's fragments."""
    frame += b"\0" * (len(frame) % 2)
    size = -(-len(frame) // fragments)
    size += size % 2
    pieces = [struct.pack("<I", 0) if offsets else b""]
    pieces += [frame[at : at + size] for at in range(0, len(frame), size)]
    return Encapsulated(b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(p)) + p for p in pieces))


def rle(planes: Sequence[bytes]) -> bytes:
    """PS3.5 G: one segment for each plane of bytes, the most significant first; runs of literals.

    Equal neighbours are written as runs, so that both kinds of code occur.
    """
    segments = []
    for plane in planes:
        out, at = bytearray(), 0
        while at < len(plane):
            run = 1
            while run < 128 and at + run < len(plane) and plane[at + run] == plane[at]:
                run += 1
            if run > 1:
                out += bytes([257 - run, plane[at]])
            else:
                out += bytes([0, plane[at]])
            at += run
        segments.append(bytes(out) + b"\0" * (len(out) % 2))
    places, place = [], 64
    for segment in segments:
        places.append(place)
        place += len(segment)
    header = struct.pack("<16I", len(segments), *places, *[0] * (15 - len(places)))
    return header + b"".join(segments)


def dataset(
    elements: Mapping[str, Value], *, syntax: str, undefined: bool = True, un: bool = False
) -> bytes:
    """The elements in the order of their tags.

    Args:
        elements: Values by keyword. Text as it stands; numbers of 16 bits, one or several; bytes
            as they are in a little endian file, turned here where the syntax is big endian.
        syntax: Transfer syntax UID.
        undefined: Whether sequences and items have undefined length.
        un: Whether sequences are written as UN, as by archives that did not know them.
    """
    order = ">" if syntax == BIG else "<"
    explicit = syntax != IMPLICIT
    out = b""
    for keyword in sorted(elements, key=lambda k: ELEMENTS[k][0]):
        (tag, vr), value = ELEMENTS[keyword], elements[keyword]
        endless = False
        if vr == "SQ":
            inner = IMPLICIT if un else syntax
            items = [dataset(i, syntax=inner, undefined=undefined) for i in value]
            raw = b""
            for item in items:
                length = 0xFFFFFFFF if undefined else len(item)
                raw += struct.pack(order + "HHI", 0xFFFE, 0xE000, length) + item
                raw += struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0) if undefined else b""
            endless, vr = undefined, "UN" if un else vr
        elif isinstance(value, bytes):
            raw = bytes(value)
            if isinstance(value, Encapsulated):
                endless, vr = True, "OB"
            elif order == ">":
                raw = b"".join(raw[at : at + 2][::-1] for at in range(0, len(raw), 2))
        elif isinstance(value, str):
            raw = value.encode("ascii")
            raw += (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)
        else:
            numbers = [value] if isinstance(value, int) else list(value)
            if any(n < 0 for n in numbers):
                vr = "SS"
            raw = struct.pack(f"{order}{len(numbers)}H", *(n & 0xFFFF for n in numbers))
        raw += b"\0" * (len(raw) % 2)
        length = 0xFFFFFFFF if endless else len(raw)
        out += struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if not explicit:
            out += struct.pack(order + "I", length)
        elif vr in _LONG:
            out += vr.encode() + b"\0\0" + struct.pack(order + "I", length)
        else:
            out += vr.encode() + struct.pack(order + "H", length)
        out += raw
        if endless:
            out += struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
    return out


def file(
    elements: Mapping[str, Value],
    *,
    syntax: str = EXPLICIT,
    meta: bool = True,
    undefined: bool = True,
    un: bool = False,
) -> bytes:
    """A whole DICOM file; without `meta` a data set that begins at once."""
    body = dataset(elements, syntax=syntax, undefined=undefined, un=un)
    if not meta:
        return body
    if syntax == DEFLATED:
        stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = stream.compress(body) + stream.flush()
        body += b"\0" * (len(body) % 2)
    about = b"".join(
        struct.pack("<HH", 2, number) + b"UI" + struct.pack("<H", len(raw)) + raw
        for number, text in (
            (2, str(elements.get("SOPClassUID", ""))),
            (3, str(elements.get("SOPInstanceUID", ""))),
            (0x10, syntax),
            (0x12, "1.2.826.0.1.3680043.8.498.1"),
        )
        if (raw := text.encode() + b"\0" * (len(text) % 2))
    )
    version = struct.pack("<HH", 2, 1) + b"OB\0\0" + struct.pack("<I", 2) + b"\0\1"
    about = version + about
    length = struct.pack("<HH", 2, 0) + b"UL" + struct.pack("<HI", 4, len(about))
    return bytes(128) + b"DICM" + length + about + body
