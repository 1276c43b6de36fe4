"""Which transfer syntaxes can be decoded here, found by decoding: one small picture of each.

A plugin that says it is available may still refuse a syntax or a depth (Pillow: 12-bit JPEG), so
nothing is taken from what pydicom lists. The pictures go through the same code as every file.
"""

from __future__ import annotations

import base64
import dataclasses
import struct

import numpy as np
from pydicom.uid import UID

from cxr_foundation.errors import ImageError
from cxr_foundation.images.codec import Layout, decode
from cxr_foundation.images.header import EXPLICIT, Element, Header

__all__ = ["Syntax", "decodable"]

_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_INSTALL = 'pip install "cxr-foundation-hub[dicom]"'

# 8 x 8 pixels, (row + column) x 16 in 8 bits, x 256 in 12 or 16. Drawn for this file and
# encoded by imagecodecs 2026.3.6; the 8-bit JPEG by Pillow 13.0.0.
_JPEG_8 = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ"
    "BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAB//EABkQAAEF"
    "AAAAAAAAAAAAAAAAAAkAJTRDUv/aAAgBAQAAPwA/G2NuAwZqX//Z"
)
_JPEG_12 = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ"
    "BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAC//EABsQAAEE"
    "AwAAAAAAAAAAAAAAAA0AKThHVmNz/9oACAEBAAA/AD/xuMNxoFsL41W3HUv/2Q=="
)
_JPEG_LOSSLESS = (
    "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAICQz/wwALDAAIAAgBABEA/9oACAEAAAYAAM//AEAoBQCgFAKAUAoAgEAg"
    "EAgEAgKAIBAIBAIBAICgCAQCAQCAQCAoAgEAgEAgEAgKAIBAIBAIBAICgCAQCAQCAQCAoAgEAgEAgEAgAP/Z"
)
_JPEG_LS = (
    "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAIChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgACAEBEQD/+AANAf//"
    "ABIAQwEUAED/2gAIAQEAAAAAr/3/X/v7/f8f3wBgC/3+f1/H7YA/T8vw+77Pq+i/3zfJ8Xwe97ntf57Hrep6Xoed"
    "5n9eV5HjeJ4Xgd9/Hed13Hbdp2TYfs1zWNU1DTNI0X6A/9k="
)
_JPEG_2000 = (
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/"
    "ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAAxAAH/k9/ggBIrZtcPYOVS50ca"
    "TTXEVAr579PAOQvrovWWAIuJ6pWv/9k="
)
_HTJ2K = (
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
    "BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFsAAf+TwAAm"
    "3/YFB3QAAADAABNAABMAHvkDB3QAHvkDB3QAwAATwAATgH748QKCdAB+9OMAo1QAwAAqYAAVQP7+/v6qcYJ1AP79"
    "/f3AMYHstgD/2Q=="
)
# PS3.5 G.3: sixteen offsets, then one run of 128 bytes, here 64 literal ones.
_RLE = struct.pack("<16I", 1, 64, *[0] * 14) + bytes(
    [63, *(16 * (row + column) for row in range(8) for column in range(8)), 128]
)

# UID (PS3.6 A), name, picture, bits. A lossless codestream is a sound one of the lossy syntax too.
_PICTURES: tuple[tuple[str, str, bytes, int], ...] = (
    (EXPLICIT, "uncompressed", b"", 12),
    ("1.2.840.10008.1.2.5", "RLE Lossless", _RLE, 8),
    (_BASELINE, "JPEG Baseline, 8 bits", base64.b64decode(_JPEG_8), 8),
    (_EXTENDED, "JPEG Extended, 12 bits", base64.b64decode(_JPEG_12), 12),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless", base64.b64decode(_JPEG_LOSSLESS), 12),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless SV1", base64.b64decode(_JPEG_LOSSLESS), 12),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", base64.b64decode(_JPEG_LS), 16),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Near-Lossless", base64.b64decode(_JPEG_LS), 16),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", base64.b64decode(_JPEG_2000), 12),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000", base64.b64decode(_JPEG_2000), 12),
    ("1.2.840.10008.1.2.4.201", "HTJ2K Lossless", base64.b64decode(_HTJ2K), 16),
    ("1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL", base64.b64decode(_HTJ2K), 16),
    ("1.2.840.10008.1.2.4.203", "HTJ2K", base64.b64decode(_HTJ2K), 16),
)

# Of the range. JPEG's 8 x 8 transform rounds; all others are exact.
_LOSSY = {_BASELINE: 0.02, _EXTENDED: 0.02}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Syntax:
    """One transfer syntax.

    Attributes:
        uid: As in (0002,0010).
        name: For people.
        decoded: Whether a picture of known pixels came out as it went in.
        remedy: What to do if it did not.
    """

    uid: str
    name: str
    decoded: bool
    remedy: str


def decodable() -> tuple[Syntax, ...]:
    """Every transfer syntax of still pictures, and whether it can be decoded here."""
    return tuple(
        Syntax(
            uid=uid,
            name=name,
            decoded=_decodes(uid, frame, bits),
            remedy=_INSTALL,
        )
        for uid, name, frame, bits in _PICTURES
    )


def _decodes(uid: str, frame: bytes, bits: int) -> bool:
    steps = np.add.outer(np.arange(8), np.arange(8))
    expected = steps * (16 if bits == 8 else 256)
    allocated = 8 if bits == 8 else 16
    layout = Layout(8, 8, 1, "MONOCHROME2", 0, allocated, bits, bits - 1, False)
    try:
        found = decode(_header(uid, frame, expected.astype("<u2").tobytes()), layout)
    except ImageError:
        return False
    error = int(np.abs(found.astype(np.int64) - expected).max())
    return bool(error <= _LOSSY.get(uid, 0.0) * 2**bits)


def _header(uid: str, frame: bytes, native: bytes) -> Header:
    if not UID(uid).is_encapsulated:
        return Header("", uid, True, True, {}, Element(b"OW", memoryview(native)))
    # PS3.5 A.4: an empty offset table, and the frame as one fragment of even length.
    padded = frame + b"\0" * (len(frame) % 2)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(padded)) + padded
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + item
    fragments = (memoryview(padded),)
    return Header("", uid, True, True, {}, Element(b"OB", memoryview(value)), fragments)
