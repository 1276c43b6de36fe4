"""From files to stored values: transfer syntaxes, codecs, and what has to be refused.

Section numbers are of PS3.3 unless another part is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from case import REFUSED, ROUNDING, UNIT, Case, X, clip, frame, header, twelve, words
from drawn import BIG, DEFLATED, EXPLICIT, IMPLICIT, RLE, Value, encapsulated, file, rle
from pictures import COLUMNS, ROWS, ramp

__all__ = ["GROUPS"]


def _syntaxes() -> Iterator[Case]:
    group, section = "Transfer syntaxes: native", "PS3.5 A, PS3.10 7.1"
    window = twelve(WindowCenter="1500", WindowWidth="1001")
    shown = clip((X - 1499.5) / 1000 + 0.5)
    for name, syntax in (
        ("implicit", IMPLICIT), ("explicit", EXPLICIT), ("big endian", BIG), ("deflated", DEFLATED)
    ):  # fmt: skip
        yield Case(group, name, section, file(window, syntax=syntax), shown)
        if syntax != DEFLATED:
            name = f"{name}, without preamble and meta header"
            yield Case(group, name, section, file(window, syntax=syntax, meta=False), shown)
    eight = {**header(8, allocated=8), "PixelData": words(ramp(8), 8)}
    yield Case(group, "big endian, 8 bits in words", section, file(eight, syntax=BIG),
               ramp(8) / 255)  # fmt: skip
    group, section = "Transfer syntaxes: RLE", "PS3.5 A.4.2, G"
    for bits, allocated in ((8, 8), (12, 16), (16, 16), (12, 32)):
        raw = ramp(bits).astype(f">u{allocated // 8}").tobytes()
        planes = [raw[at :: allocated // 8] for at in range(allocated // 8)]
        elements = {**header(bits, allocated=allocated), "PixelData": encapsulated(rle(planes))}
        yield Case(group, f"{bits} in {allocated}", section, file(elements, syntax=RLE),
                   ramp(bits) / (2**bits - 1))  # fmt: skip


_JPEG = "1.2.840.10008.1.2.4."
_CODED = (
    ("JPEG", "baseline, 8 bits", "jpeg_8", 8, "50", 1 / 255),
    ("JPEG", "extended, 12 bits", "jpeg_12", 12, "51", 2 / 4095),
    ("JPEG", "extended, 8 bits", "jpeg_8", 8, "51", 1 / 255),
    *(
        ("JPEG", f"lossless, predictor {predictor}, {bits} bits", f"lossless{predictor}_{bits}",
         bits, syntax, 0.0)
        for bits in (8, 12, 16) for predictor, syntax in ((1, "70"), (6, "57"))
    ),
    *(("JPEG-LS", f"{bits} bits", f"jpegls_{bits}", bits, "80", 0.0) for bits in (8, 12, 16)),
    ("JPEG-LS", "near-lossless, 8 bits", "jpegls_near_8", 8, "81", 1 / 255),
    *(("JPEG 2000", f"lossless, {bits} bits", f"j2k_{bits}", bits, "90", 0.0)
      for bits in (8, 12, 16)),
    ("JPEG 2000", "lossless in JP2 boxes", "jp2_12", 12, "90", 0.0),
    ("JPEG 2000", "lossy, 12 bits", "j2k_lossy_12", 12, "91", 2 / 4095),
    *(("HTJ2K", f"lossless, {bits} bits", f"htj2k_{bits}", bits, "201", 0.0) for bits in (8, 16)),
    ("HTJ2K", "lossless RPCL, 12 bits", "htj2k_12", 12, "202", 0.0),
    ("HTJ2K", "any, 12 bits", "htj2k_12", 12, "203", 0.0),
)  # fmt: skip


def _codecs() -> Iterator[Case]:
    section = "PS3.5 8.2, A.4"
    for codec, name, stream, bits, syntax, tolerance in _CODED:
        elements = {**header(bits, allocated=8 if bits == 8 else 16)}
        elements["PixelData"] = encapsulated(frame(stream))
        yield Case(f"Transfer syntaxes: {codec}", name, section,
                   file(elements, syntax=_JPEG + syntax), ramp(bits) / (2**bits - 1),
                   tolerance + ROUNDING)  # fmt: skip
    signed = {**header(signed=True), "PixelData": encapsulated(frame("j2k_signed_12"))}
    yield Case("Transfer syntaxes: JPEG 2000", "lossless, signed, 12 bits", section,
               file(signed, syntax=_JPEG + "90"), UNIT)  # fmt: skip
    one = {"PhotometricInterpretation": "MONOCHROME1"}
    pieces = {**header(), **one, "PixelData": encapsulated(frame("j2k_12"), fragments=5)}
    yield Case("Transfer syntaxes: JPEG 2000", "five fragments, MONOCHROME1", section,
               file(pieces, syntax=_JPEG + "90"), 1 - UNIT)  # fmt: skip
    table = {**header(), "PixelData": encapsulated(frame("lossless1_12"), offsets=True)}
    yield Case("Transfer syntaxes: JPEG", "with an offset table", section,
               file(table, syntax=_JPEG + "70"), UNIT)  # fmt: skip
    colour = {**header(8, allocated=8), "SamplesPerPixel": 3, "PlanarConfiguration": 0,
              "PhotometricInterpretation": "YBR_FULL_422",
              "PixelData": encapsulated(frame("jpeg_422"))}  # fmt: skip
    yield Case("Transfer syntaxes: JPEG", "grey as YBR_FULL_422", section,
               file(colour, syntax=_JPEG + "50"), ramp(8) / 255, 2 / 255)  # fmt: skip


def _refused() -> Iterator[Case]:
    group = REFUSED

    def case(
        name: str, section: str, *drop: str, syntax: str = EXPLICIT, **elements: Value
    ) -> Case:
        kept = {k: v for k, v in twelve(**elements).items() if k not in drop}
        return Case(group, name, section, file(kept, syntax=syntax), None)

    yield case("INVERSE on MONOCHROME2", "C.8.11.3.1.2", PresentationLUTShape="INVERSE")
    yield case("IDENTITY on MONOCHROME1", "C.8.11.3.1.2", PresentationLUTShape="IDENTITY",
               PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    yield case("FOR PROCESSING", "C.8.11.1.1", PresentationIntentType="FOR PROCESSING")
    yield case("storage class For Processing", "PS3.4 B.5",
               SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1")  # fmt: skip
    yield case("a localiser", "C.7.6.1.1.2", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")
    yield case("two frames", "C.7.6.6", NumberOfFrames="2",
               PixelData=words(np.stack([ramp(12)] * 2)))  # fmt: skip
    yield case("no pixels", "C.7.6.3", "PixelData")
    colour = np.stack([ramp(8), ramp(8) // 2, 255 - ramp(8)], -1)
    yield case("a colour picture", "C.7.6.3.1.2", PhotometricInterpretation="RGB",
               SamplesPerPixel=3, PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
               PixelData=words(colour, 8))  # fmt: skip
    yield case("pixels in floating point", "C.7.6.24", "PixelData",
               FloatPixelData=bytes(4 * ROWS * COLUMNS))  # fmt: skip
    yield case("half of the pixels", "PS3.5 8.1.1", PixelData=words(ramp(12))[: ROWS * COLUMNS])
    yield case("more rows than pixels", "C.7.6.3", Rows=2 * ROWS)
    yield case("more pixels than rows", "C.7.6.3", Rows=ROWS // 2)
    yield case("no photometric interpretation", "C.7.6.3.1.2", "PhotometricInterpretation")
    yield case("no pixel representation", "C.7.6.3", "PixelRepresentation")
    yield case("20 bits stored in 16", "C.7.6.3", BitsStored=20, HighBit=19)
    yield case("a slope of zero", "C.11.1", RescaleSlope="0", RescaleIntercept="0")
    short = [{"LUTDescriptor": (4096, 0, 16), "LUTData": b"\0\0"}]
    yield case("a table of one entry that claims 4,096", "C.11.2.1.1", VOILUTSequence=short)
    yield case("unknown VOI function", "C.11.2.1.2", VOILUTFunction="CUBIC",
               WindowCenter="2048", WindowWidth="4096")  # fmt: skip
    yield case("unknown transfer syntax", "PS3.6 A", syntax="1.2.3.4.5")
    yield case("JPEG around raw pixels", "PS3.5 A.4", syntax=_JPEG + "50",
               PixelData=encapsulated(words(ramp(12))))  # fmt: skip
    yield case("a frame of another size", "PS3.5 8.2", syntax=_JPEG + "90", Rows=COLUMNS,
               Columns=ROWS, PixelData=encapsulated(frame("j2k_12")))  # fmt: skip
    yield case("a frame of fewer bits than stored", "PS3.5 8.2.4", syntax=_JPEG + "90",
               BitsStored=16, HighBit=15, PixelData=encapsulated(frame("j2k_12")))  # fmt: skip
    yield case("a frame of more bits than stored", "PS3.5 8.2.4", syntax=_JPEG + "90",
               PixelData=encapsulated(frame("j2k_16")))  # fmt: skip
    yield case("a signed frame, unsigned by its header", "PS3.5 8.2.4", syntax=_JPEG + "90",
               PixelData=encapsulated(frame("j2k_signed_12")))  # fmt: skip
    yield case("an unsigned frame, signed by its header", "PS3.5 8.2.4", syntax=_JPEG + "90",
               PixelRepresentation=1, PixelData=encapsulated(frame("j2k_12")))  # fmt: skip
    yield case("half a frame", "PS3.5 A.4", syntax=_JPEG + "70",
               PixelData=encapsulated(frame("lossless1_12")[:250]))  # fmt: skip


GROUPS: tuple[Callable[[], Iterator[Case]], ...] = (_syntaxes, _codecs, _refused)
