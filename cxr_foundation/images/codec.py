"""DICOM's Pixel Data to stored values. pydicom's decoders work; what they are told is checked."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from cxr_foundation.errors import UnreadableImage
from cxr_foundation.images.frame import (
    Claim,
    jpeg2000_claim,
    jpeg_claim,
    rle_is_sound,
    rle_segments,
    unboxed,
    unpacked,
)
from cxr_foundation.images.header import Header, label
from cxr_foundation.images.source import LIBRARY_ERRORS, check_size, quiet

__all__ = ["Layout", "decode", "read_layout"]

# Exact ones first. Left out are gdcm, which ends the whole process on some damaged JPEG frames (an
# exception that C++ does not catch), and pylibjpeg for RLE, which panics on a damaged run. RLE is
# unpacked here; pydicom is left with its colours.
_PLUGINS = ("pyjpegls", "pylibjpeg", "pillow", "pydicom")
_RLE_PLUGINS = ("pydicom",)

# Of imagecodecs, for one sample a pixel: libjpeg-turbo 3 and CharLS are exact, and several times as
# quick as what pydicom finds (benchmarks/decode.py). Its OpenJPEG takes less time on a core than
# any other binding, and several cores. Colour stays with pydicom, which knows who turns YBR into
# RGB; nobody has to in these two. Its quicker HTJ2K decoder, OpenJPH, is left out: where a frame is
# damaged, it gives a picture of what happened to be in memory.
_PLAIN_RGB = {JPEGLossless, JPEGLosslessSV1}
_JPEG_2000 = (*JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
_FAST = {
    JPEGBaseline8Bit: "jpeg8_decode",
    JPEGExtended12Bit: "jpeg8_decode",
    JPEGLossless: "jpeg8_decode",
    JPEGLosslessSV1: "jpeg8_decode",
    JPEGLSLossless: "jpegls_decode",
    JPEGLSNearLossless: "jpegls_decode",
    **dict.fromkeys(_JPEG_2000, "jpeg2k_decode"),
}

_RLE_DAMAGED = "the RLE pixel data is damaged"
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
        allocated: (0028,0100), 1, 8, 16 or 32 bits.
        stored: (0028,0101), 1 to `allocated` bits, at most 16.
        high: (0028,0102), place of the topmost stored bit.
        signed: (0028,0103).
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def shift(self) -> int:
        """Unused bits below the stored ones in what `decode` gives."""
        return 0 if self.allocated == 32 else self.high + 1 - self.stored

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
    if allocated not in (1, 8, 16, 32):
        raise header.unsupported(f"{label('BitsAllocated')} is not 1, 8, 16 or 32")
    if not 1 <= stored <= allocated:
        raise header.unsupported(f"{label('BitsStored')} does not fit BitsAllocated")
    if stored > 16:
        raise header.unsupported(f"{label('BitsStored')} is above 16, as of no radiograph")
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
        rows, columns, samples, photometric, planar, allocated, stored, high,
        representation == 1,
    )  # fmt: skip


def decode(header: Header, layout: Layout) -> npt.NDArray[Any]:
    """The pixel data as it is stored.

    No compressed syntax has a checksum. A frame that is cut off or contradicts its header is
    refused, and so is RLE that does not give exactly the picture. Changed bytes within a JPEG,
    JPEG-LS or JPEG 2000 codestream are refused only where the decoder loses its way; else some of
    the pixels are wrong, and nothing says so.

    Returns:
        uint8 or uint16, (H, W), or (H, W, 3) of red, green and blue. The bits above and below
        the stored ones are as the file has them; only 32-bit words come out without.

    Raises:
        UnreadableImage: Damaged or cut off, or more or less than Rows and Columns ask for.
        UnsupportedPixels: No decoder for the transfer syntax, or a codestream whose bits or sign
            contradict the header.
    """
    decoder = _decoder(header)
    if header.pixels is None or decoder.UID.is_encapsulated != (header.fragments is not None):
        raise UnreadableImage(header.path, "the pixel data contradicts the transfer syntax")
    claim = None
    if header.fragments is None:
        _check_native(header, layout)
        pixels = _try(header, layout, decoder, "", header.pixels.value)
    else:
        frame = unboxed(b"".join(header.fragments))
        claim = _check_frame(header, layout, decoder.UID, frame)
        is_rle = decoder.UID == RLELossless
        pixels = (
            _unpacked(header, layout, frame) if is_rle else _try_fast(layout, decoder.UID, frame)
        )
        for plugin in _RLE_PLUGINS if is_rle else _PLUGINS:
            if pixels is None and plugin in decoder.available_plugins:
                pixels = _try(header, layout, decoder, plugin, encapsulate([frame]))
    if pixels is None:
        raise header.unsupported(
            f"no installed decoder can read its pixels ({decoder.UID.name}, {decoder.UID})",
            _DECODERS,
        )
    expected = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
    if pixels.shape != expected or pixels.dtype.kind not in "iu":
        raise UnreadableImage(header.path, "the compressed picture is not as the header says")
    if layout.allocated == 32 and claim is None:
        low = layout.high + 1 - layout.stored
        return np.asarray(pixels >> low & (2**layout.stored - 1), dtype=np.uint16)
    if pixels.dtype.itemsize > 2:
        raise UnreadableImage(header.path, "the compressed picture is not as the header says")
    if claim is not None:
        _check_range(header, layout, claim, pixels)
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
        raise header.unsupported(
            f"pixels of transfer syntax {syntax.name}, {syntax}, are not read"
        ) from None


def _try_fast(layout: Layout, syntax: UID, frame: bytes) -> npt.NDArray[Any] | None:
    """The quickest exact decoder's grey picture, None if it is not installed or gives up."""
    name = _FAST.get(syntax)
    colour = layout.samples == 3
    if name is None or (colour and not (layout.photometric == "RGB" and syntax in _PLAIN_RGB)):
        return None
    options: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if colour else {}
    if syntax in _JPEG_2000:
        options["numthreads"] = _threads()
    try:
        import imagecodecs

        return np.asarray(getattr(imagecodecs, name)(frame, **options))
    except LIBRARY_ERRORS:
        return None


def _threads() -> int:
    """As many as there are cores, or OMP_NUM_THREADS; one in a worker, beside whom others work."""
    if multiprocessing.parent_process() is not None:
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and asked != "0" else os.cpu_count() or 1


def _unpacked(header: Header, layout: Layout, frame: bytes) -> npt.NDArray[Any] | None:
    """Grey RLE by planes of bytes, the most significant first: PS3.5 G.2.

    Returns:
        None for colour: its planes are only measured, since pydicom knows how to turn it into RGB.

    Raises:
        UnreadableImage: A plane that ends before the picture does or runs over it. pydicom would
            cut off the latter.
    """
    size, width = layout.rows * layout.columns, layout.allocated // 8
    words = np.empty((size, layout.samples * width), dtype=np.uint8)
    for place, segment in enumerate(rle_segments(frame)):
        plane = unpacked(segment, size)
        if plane is None:
            raise UnreadableImage(header.path, _RLE_DAMAGED)
        words[:, -1 - place] = np.frombuffer(plane, dtype=np.uint8)
    if layout.samples != 1:
        return None
    return words.view(f"<u{width}").reshape(layout.rows, layout.columns)


def _try(
    header: Header, layout: Layout, decoder: Decoder, plugin: str, source: bytes | memoryview
) -> npt.NDArray[Any] | None:
    """One of pydicom's decoders' picture, None if it gives up."""
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
        "pixel_vr": _vr(header),
    }
    if native:
        # A view is enough where nothing is decompressed: the look-up makes the only copy.
        options["view_only"] = True
    try:
        with quiet:
            pixels, _ = decoder.as_array(source, index=0, decoding_plugin=plugin, **options)
    except LIBRARY_ERRORS:
        # Only that it failed is of use: the text may quote the file.
        return None
    except BaseException as error:
        # A panic of pylibjpeg-rle's Rust is no Exception, so that it would end a whole run.
        if type(error).__name__ != "PanicException":
            raise
        raise UnreadableImage(header.path, "the compressed picture is damaged") from None
    return np.asarray(pixels)


def _vr(header: Header) -> str:
    vr = None if header.pixels is None else header.pixels.vr
    return (vr or b"OW").decode("ascii")


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


def _check_frame(header: Header, layout: Layout, syntax: UID, frame: bytes) -> Claim | None:
    """Refuse a compressed frame that contradicts the header, before memory is taken for it.

    Returns:
        What the codestream says of itself, None for RLE, which says nothing.
    """
    if not frame:
        raise UnreadableImage(header.path, "the pixel data is empty")
    if syntax == RLELossless:
        segments = layout.samples * layout.allocated // 8
        if not rle_is_sound(frame, segments=segments, rows=layout.rows, columns=layout.columns):
            raise UnreadableImage(header.path, _RLE_DAMAGED)
        return None
    if syntax in _JPEG_2000:
        claim = jpeg2000_claim(frame)
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        claim = jpeg_claim(frame)
    else:
        raise header.unsupported(f"pixels of transfer syntax {syntax.name}, {syntax}, are not read")
    if claim is None:
        raise UnreadableImage(header.path, f"its pixels are not {syntax.name}, or damaged")
    if claim[:3] != (layout.rows, layout.columns, layout.samples):
        raise UnreadableImage(
            header.path, "the compressed picture has another size than its header"
        )
    if layout.shift:
        raise header.unsupported(f"{label('HighBit')} has no meaning for compressed pixels")
    if claim.precision < layout.stored:
        raise header.unsupported(
            f"the compressed picture has {claim.precision} bits, fewer than {label('BitsStored')}"
        )
    # ISO/IEC 10918-1 B.1.1.3, 15444-1 A.4.4: all end with the same marker; writers pad after it.
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise UnreadableImage(header.path, "the compressed picture is cut off")
    return claim


def _check_range(header: Header, layout: Layout, claim: Claim, pixels: npt.NDArray[Any]) -> None:
    """A codec has no unused bits: a value beyond BitsStored is a contradiction, not an overlay.

    Nor does it have two signs: PS3.5 8.2.4 wants JPEG 2000's to be that of PixelRepresentation.
    Where they differ, values below the sign bit mean the same either way; others are unknown.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if claim.signed not in (None, layout.signed):
        sign = 1 << (layout.stored - 1)
        if low < 0 or high >= sign:
            raise header.unsupported(
                f"the compressed picture's sign contradicts {label('PixelRepresentation')}"
            )
    if layout.signed and pixels.dtype.kind == "u" and claim.precision > layout.stored:
        # The codec was given sign-extended words as bit patterns.
        spare = 8 * pixels.dtype.itemsize - claim.precision
        words = (pixels << spare).view(pixels.dtype.str.replace("u", "i")) >> spare
        low, high = int(words.min()), int(words.max())
        pixels = words
    top = 2 ** (layout.stored - layout.signed) - 1
    if pixels.dtype.kind == "u":
        top = 2**layout.stored - 1
    if high > top or low < -top - 1:
        raise header.unsupported(f"has pixels beyond {label('BitsStored')}")
