"""DICOM's Pixel Data to stored values. pydicom's decoders work; what they are told is checked."""

from __future__ import annotations

import dataclasses
import itertools
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from cxr_foundation.errors import UnreadableImage
from cxr_foundation.images.header import Header, label
from cxr_foundation.images.source import LIBRARY_ERRORS, check_size, quiet

__all__ = ["Layout", "decode", "read_layout"]

# Exact ones first, and those that print to the terminal when bytes are damaged last.
_PLUGINS = ("pyjpegls", "pylibjpeg", "pillow", "gdcm", "pydicom")

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How stored values lie in memory: PS3.3 C.7.6.3, the Image Pixel Module.

    Attributes:
        rows: (0028,0010).
        columns: (0028,0011).
        samples: (0028,0002), 1 or 3.
        photometric: (0028,0004).
        planar: (0028,0006), 0 or 1.
        allocated: (0028,0100), 1, 8 or 16 bits.
        stored: (0028,0101), 1 to `allocated` bits.
        shift: Unused bits below the stored ones, from (0028,0102).
        signed: (0028,0103).
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    allocated: int
    stored: int
    shift: int
    signed: bool

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Every value that BitsStored allows, from the bit pattern 0 on: float64."""
        values = np.arange(2**self.stored, dtype=np.float64)
        if self.signed:
            values[2 ** (self.stored - 1) :] -= 2.0**self.stored
        return values


def read_layout(header: Header) -> Layout:
    """The Image Pixel Module, contradictions refused by name.

    Raises:
        UnsupportedPixels: A missing element, several frames, or a layout that is not defined.
        UnreadableImage: A size that no radiograph has.
    """
    # (0028,0008): PS3.3 C.7.6.6. Absent or empty is one frame.
    if header.strings("NumberOfFrames") and header.decimals("NumberOfFrames") != (1.0,):
        raise header.unsupported("does not have exactly one frame", "Export one frame by itself.")
    samples = header.required("SamplesPerPixel")
    photometric = header.string("PhotometricInterpretation")
    if not photometric:
        raise header.unsupported(f"{label('PhotometricInterpretation')} is missing")
    if photometric not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise header.unsupported(f"{label('PhotometricInterpretation')} is none that is known")
    if samples != (3 if photometric in _COLOUR else 1):
        raise header.unsupported(
            f"{label('SamplesPerPixel')} contradicts {label('PhotometricInterpretation')}"
        )
    allocated, stored = header.required("BitsAllocated"), header.required("BitsStored")
    if allocated not in (1, 8, 16):
        raise header.unsupported(f"{label('BitsAllocated')} is not 1, 8 or 16")
    if not 1 <= stored <= allocated:
        raise header.unsupported(f"{label('BitsStored')} does not fit BitsAllocated")
    if samples == 3 and stored != allocated:
        raise header.unsupported(f"{label('BitsStored')} of colour is not BitsAllocated")
    high = header.integer("HighBit")
    high = stored - 1 if high is None else high
    if not stored - 1 <= high < allocated:
        raise header.unsupported(f"{label('HighBit')} does not fit BitsStored and BitsAllocated")
    representation = header.required("PixelRepresentation")
    if representation > 1 or (representation == 1 and samples == 3):
        raise header.unsupported(f"{label('PixelRepresentation')} is not defined for such pixels")
    planar = header.integer("PlanarConfiguration") or 0
    if planar > 1:
        raise header.unsupported(f"{label('PlanarConfiguration')} is neither 0 nor 1")
    rows, columns = header.required("Rows"), header.required("Columns")
    check_size(header.path, rows, columns, samples)
    return Layout(
        rows, columns, samples, photometric, planar, allocated, stored, high + 1 - stored,
        representation == 1,
    )  # fmt: skip


def decode(header: Header, layout: Layout) -> npt.NDArray[Any]:
    """The pixel data as it is stored.

    Returns:
        uint8 or uint16, (H, W), or (H, W, 3) of red, green and blue. The bits above and below
        the stored ones are as the file has them.

    Raises:
        UnreadableImage: Damaged or cut off, or more or less than Rows and Columns ask for.
        UnsupportedPixels: No decoder for the transfer syntax.
    """
    decoder = _decoder(header)
    if decoder.UID.is_encapsulated != (header.fragments is not None):
        raise UnreadableImage(header.path, "the pixel data contradicts the transfer syntax")
    if header.fragments is None:
        _check_native(header, layout)
        plugins = [""]
    else:
        _check_frame(header, layout, decoder.UID)
        plugins = [name for name in _PLUGINS if name in decoder.available_plugins]
    tries = (_try(header, layout, decoder, plugin) for plugin in plugins)
    pixels = next((found for found in tries if found is not None), None)
    if pixels is None:
        raise header.unsupported(
            f"no installed decoder can read its pixels ({decoder.UID.name})", _DECODERS
        )
    expected = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
    if pixels.shape != expected or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise UnreadableImage(header.path, "the compressed picture is not as the header says")
    if header.fragments is not None and decoder.UID != RLELossless:
        _check_range(header, layout, pixels)
    return pixels.view(pixels.dtype.str.replace("i", "u"))


_DECODERS = (
    'Install the decoders: pip install "cxr-foundation-hub[dicom]". If they are installed, the '
    "file is damaged or of a rare kind: export it in an uncompressed transfer syntax."
)


def _decoder(header: Header) -> Decoder:
    """The decoder of pydicom for (0002,0010) TransferSyntaxUID: PS3.5 10 and annex A."""
    with quiet:
        syntax = UID(header.syntax)
    # An unknown UID has no type, and is not quoted: it could be anything.
    if syntax.type != "Transfer Syntax":
        raise header.unsupported("(0002,0010) TransferSyntaxUID is none that is known")
    try:
        return get_decoder(syntax)
    except NotImplementedError:
        raise header.unsupported(f"pixels of transfer syntax {syntax.name} are not read") from None


def _try(header: Header, layout: Layout, decoder: Decoder, plugin: str) -> npt.NDArray[Any] | None:
    """One decoder's picture, None if it gives up."""
    element = header.pixels
    if element is None:
        return None
    native = header.fragments is None
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": layout.planar,
        "bits_allocated": layout.allocated,
        # Unused bits are told to be used: pydicom would mask them without regard to HighBit.
        "bits_stored": (
            layout.allocated if native or decoder.UID == RLELossless else layout.stored
        ),
        "pixel_representation": int(layout.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": (element.vr or b"OW").decode("ascii"),
    }
    if native:
        # A view is enough where nothing is decompressed: the look-up makes the only copy.
        options["view_only"] = True
    try:
        with quiet:
            source = element.value if native else bytes(element.value)
            pixels, _ = decoder.as_array(source, index=0, decoding_plugin=plugin, **options)
    except LIBRARY_ERRORS:
        # Only that it failed is of use: the text may quote the file.
        return None
    return np.asarray(pixels)


def _check_native(header: Header, layout: Layout) -> None:
    """PS3.5 8.1.1: exactly the bytes that the picture needs, and one of padding if that is odd."""
    pixels = layout.rows * layout.columns
    # PS3.3 C.7.6.3.1.2: two pixels share their chroma.
    samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples
    needed = (pixels * samples * layout.allocated + 7) // 8
    found = 0 if header.pixels is None else len(header.pixels.value)
    if found not in (needed, needed + needed % 2):
        raise UnreadableImage(
            header.path,
            f"{layout.rows} x {layout.columns} pixels need {needed} bytes, the file has {found}",
        )


def _check_frame(header: Header, layout: Layout, syntax: UID) -> None:
    """Refuse a compressed frame that claims another size, before a decoder takes memory for it."""
    frame = b"".join(header.fragments or ())
    if not frame:
        raise UnreadableImage(header.path, "the pixel data is empty")
    if syntax == RLELossless:
        _check_rle(header, layout, frame)
        return
    if syntax in JPEG2000TransferSyntaxes or syntax.name.startswith("High-Throughput"):
        claimed = _jpeg2000_size(frame)
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        claimed = _jpeg_size(frame)
    else:
        name = syntax.name
        raise header.unsupported(f"pixels of transfer syntax {name} are not read")
    if claimed is None:
        raise UnreadableImage(header.path, f"its pixels are not {syntax.name}, or damaged")
    if claimed != (layout.rows, layout.columns, layout.samples):
        raise UnreadableImage(
            header.path, "the compressed picture has another size than its header"
        )
    if layout.shift:
        raise header.unsupported(f"{label('HighBit')} has no meaning for compressed pixels")
    # ISO/IEC 10918-1 B.1.1.3, 15444-1 A.4.4: all end with the same marker; writers pad after it.
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise UnreadableImage(header.path, "the compressed picture is cut off")


def _check_rle(header: Header, layout: Layout, frame: bytes) -> None:
    """PS3.5 G.3-G.5: one segment for each byte of a pixel, none longer than its worst case."""
    segments = layout.samples * layout.allocated // 8
    plane = layout.rows * layout.columns
    offsets = struct.unpack_from("<16I", frame.ljust(64, b"\0"))
    bounds = (*offsets[1 : segments + 1], len(frame))
    # A literal run of 128 bytes costs 129, and every row may end with a short one.
    worst = plane * 2 + layout.rows * 2 + 2
    if (
        offsets[0] != segments
        or bounds[0] != 64
        or any(not 0 < b - a <= worst for a, b in itertools.pairwise(bounds))
    ):
        raise UnreadableImage(header.path, "the RLE pixel data is damaged")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) of a JPEG or JPEG-LS frame header: ISO/IEC 10918-1 B.2.2."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, samples = struct.unpack_from(">HHB", frame, at + 5)
            return rows, columns, samples
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) of a JPEG 2000 SIZ segment: ISO/IEC 15444-1 A.5.1."""
    # Some writers leave the JP2 boxes around the codestream.
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 42 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
    (samples,) = struct.unpack_from(">H", frame, at + 40)
    return bottom - top, right - left, samples


def _check_range(header: Header, layout: Layout, pixels: npt.NDArray[Any]) -> None:
    """A codec has no unused bits: a value beyond BitsStored is a contradiction, not an overlay."""
    top = 2 ** (layout.stored - layout.signed) - 1
    signed = pixels.dtype.kind == "i"
    if int(pixels.max()) > top or (signed and int(pixels.min()) < -top - 1):
        raise header.unsupported(f"has pixels beyond {label('BitsStored')}")
