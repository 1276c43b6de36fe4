"""MetaImage files (.mha) of two dimensions, the form in which NODE21 is published.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. A header of «Key = Value» lines, the last
of which is ElementDataFile, then the pixels, row by row. Only files that carry their pixels
themselves (LOCAL) are read: a header that names another file could name any file.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images.picture import grey_pixels
from cxr_foundation.images.source import check_size

__all__ = ["is_metaimage", "read_metaimage"]

_HEADER_BYTES = 1 << 14
_STARTS = (b"ObjectType = Image", b"NDims = ", b"ObjectType=Image")
_TYPES: dict[str, np.dtype[Any]] = {
    "MET_UCHAR": np.dtype("u1"),
    "MET_USHORT": np.dtype("u2"),
    "MET_SHORT": np.dtype("i2"),
}


def is_metaimage(data: bytes) -> bool:
    """Whether a file begins as a MetaImage header does."""
    return data.startswith(_STARTS)


def read_metaimage(path: str | os.PathLike[str], data: bytes) -> npt.NDArray[np.float32]:
    """The pixels of a grey MetaImage.

    Args:
        path: For messages.
        data: The file's bytes.

    Returns:
        float32 (H, W) in [0, 1]: 8 bits over 255, 16 bits as for pictures (12 bits if no value is
        larger). The format says nothing of polarity; large is taken as bright.

    Raises:
        UnreadableImage: A damaged header, or other pixels than it promises.
        UnsupportedPixels: More than two dimensions or one channel, another type than unsigned
            integers of 8 or 16 bits (signed ones without negative values are), pixels in another
            file.
    """
    header, start = _header(path, data)
    width, height = _size(path, header)
    kind = _TYPES.get(header.get("ElementType", ""))
    if kind is None or header.get("ElementNumberOfChannels", "1") != "1":
        raise UnsupportedPixels(
            path,
            f"has elements of type {header.get('ElementType', '')[:40]!r} or several channels",
            "Save it as an 8- or 16-bit grey picture.",
        )
    if header["ElementDataFile"].upper() != "LOCAL":
        raise UnsupportedPixels(path, "keeps its pixels in another file", "Save it as one .mha.")
    wanted = width * height * kind.itemsize
    body = memoryview(data)[start:]
    pixels = _inflated(path, body, wanted) if _true(header, "CompressedData") else bytes(body)
    if len(pixels) != wanted:
        raise UnreadableImage(path, f"has {len(pixels):,} bytes of pixels instead of {wanted:,}")
    # The long name is ITK's, the short one the format's own.
    big = _true(header, "BinaryDataByteOrderMSB") or _true(header, "ElementByteOrderMSB")
    values = np.frombuffer(pixels, dtype=kind.newbyteorder(">" if big else "<"))
    values = values.reshape(height, width)
    if kind.kind == "i" and int(values.min()) < 0:
        raise UnsupportedPixels(
            path, "has negative pixels", "Save it as an 8- or 16-bit grey picture."
        )
    return grey_pixels(path, Image.fromarray(values.astype(f"u{kind.itemsize}")))


def _header(path: str | os.PathLike[str], data: bytes) -> tuple[dict[str, str], int]:
    """The header's entries, and where the pixels begin."""
    header: dict[str, str] = {}
    at = 0
    while (end := data.find(b"\n", at, _HEADER_BYTES)) >= 0:
        line = data[at:end].decode("latin-1")
        at = end + 1
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or key in header:
            break
        header[key] = value.strip()
        if key == "ElementDataFile":
            return header, at
    raise UnreadableImage(path, "the MetaImage header is damaged or cut off")


def _size(path: str | os.PathLike[str], header: dict[str, str]) -> tuple[int, int]:
    sides = header.get("DimSize", "").split()
    if header.get("NDims") == "3" and len(sides) == 3 and sides[2] == "1":
        sides = sides[:2]
    elif header.get("NDims") != "2":
        raise UnsupportedPixels(path, "is not a picture of two dimensions", "Save one slice.")
    if len(sides) != 2 or not all(s.isascii() and s.isdigit() and len(s) < 9 for s in sides):
        raise UnreadableImage(path, "the MetaImage header has no usable DimSize")
    width, height = int(sides[0]), int(sides[1])
    check_size(path, height, width)
    return width, height


def _true(header: dict[str, str], key: str) -> bool:
    return header.get(key, "").lower() in ("true", "1")


def _inflated(path: str | os.PathLike[str], body: memoryview, wanted: int) -> bytes:
    """The pixels; not more of a bomb than what the header promises, and one byte."""
    try:
        return zlib.decompressobj().decompress(body, wanted + 1)
    except zlib.error:
        raise UnreadableImage(path, "the compressed pixels are damaged") from None
