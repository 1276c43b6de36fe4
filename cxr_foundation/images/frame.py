"""What a compressed frame says of itself, read before a decoder takes memory for it.

PS3.5 8.2 asks that the codestream's own size, samples, bits and sign are those of the header.
Where they are not, a decoder has to prefer one of the two: such a file is refused.
"""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

__all__ = [
    "Claim",
    "jpeg2000_claim",
    "jpeg_claim",
    "rle_is_sound",
    "rle_segments",
    "unboxed",
    "unpacked",
]

_SOC_SIZ = b"\xff\x4f\xff\x51"


class Claim(NamedTuple):
    """A codestream's own account of its picture.

    Attributes:
        rows: Height.
        columns: Width.
        samples: Channels.
        precision: Bits of a sample.
        signed: Whether samples are signed; None where the codec does not say.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool | None


def jpeg_claim(frame: bytes) -> Claim | None:
    """Of a JPEG or JPEG-LS frame header, ISO/IEC 10918-1 B.2.2; None if there is none."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, at + 4)
            return Claim(rows, columns, samples, precision, None)
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def unboxed(frame: bytes) -> bytes:
    """A JPEG 2000 codestream without the JP2 boxes that some writers leave around it.

    PS3.5 A.4.4 forbids them, and pydicom's walk over them never ends where one claims no length.
    """
    at = frame.find(_SOC_SIZ, 0, 4096)
    return frame[at:] if at > 0 else frame


def jpeg2000_claim(frame: bytes) -> Claim | None:
    """Of a JPEG 2000 SIZ segment, ISO/IEC 15444-1 A.5.1; None if there is none."""
    if not frame.startswith(_SOC_SIZ) or len(frame) < 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    # Ssiz of the first component: bit 7 is the sign, the others are the depth less one.
    samples, depth = struct.unpack_from(">HB", frame, 40)
    return Claim(bottom - top, right - left, samples, (depth & 0x7F) + 1, bool(depth & 0x80))


def rle_is_sound(frame: bytes, *, segments: int, rows: int, columns: int) -> bool:
    """PS3.5 G.3-G.5: one segment for each byte of a pixel, none longer than its worst case."""
    offsets = struct.unpack_from("<16I", frame.ljust(64, b"\0"))
    if offsets[0] != segments or not 1 <= segments <= 15 or offsets[1] != 64:
        return False
    bounds = (*offsets[1 : segments + 1], len(frame))
    # A literal run of 128 bytes costs 129, and every row may end with a short one.
    worst = rows * columns * 2 + rows * 2 + 2
    return all(0 < b - a <= worst for a, b in itertools.pairwise(bounds))


def rle_segments(frame: bytes) -> list[bytes]:
    """The segments of a frame for which `rle_is_sound` holds."""
    count, *offsets = struct.unpack_from("<16I", frame)
    bounds = (*offsets[:count], len(frame))
    return [frame[a:b] for a, b in itertools.pairwise(bounds)]


def unpacked(segment: bytes, size: int) -> bytes | bytearray | None:
    """A segment's bytes, PS3.5 G.3.2; None if they are not `size`, or if a run is cut off.

    A byte of zero behind the last run is padding (G.3.1); so is a second one, which a writer adds
    that makes the fragment even as well (A.4). Anything else is an overrun.
    """
    for _ in range(2):
        # One byte more is asked for, so that a segment that runs over is seen.
        found = _packbits(segment, size + 1)
        if found is not None and len(found) == size:
            return found
        if not segment.endswith(b"\0\0"):
            break
        segment = segment[:-1]
    return None


def _packbits(segment: bytes, most: int) -> bytes | bytearray | None:
    try:
        from imagecodecs import packbits_decode

        found: bytes | bytearray = packbits_decode(segment, out=most)
        return found
    except ImportError:
        return _packbits_slowly(segment, most)
    except (RuntimeError, ValueError):
        return None


def _packbits_slowly(segment: bytes, most: int) -> bytearray | None:
    found, at = bytearray(), 0
    while at < len(segment) and len(found) <= most:
        head = segment[at]
        # Up to 127: that many and one more as they are. Above 128: one byte, 257 less `head` times.
        used, times = (head + 1, 1) if head < 128 else (1, 257 - head) if head > 128 else (0, 0)
        run = segment[at + 1 : at + 1 + used]
        if len(run) < used and segment[at:] != b"\0":
            return None
        found += run * times
        at += 1 + used
    return found if len(found) <= most else None
