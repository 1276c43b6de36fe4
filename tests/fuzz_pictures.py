"""Small DICOM files, pictures and tables, and how they are mutated: elements, chunks, cells."""

from __future__ import annotations

import csv
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from drawn_dicom import draw, table
from fuzz_mutants import bytes_changed, lengths_set
from PIL import Image, PngImagePlugin
from pydicom import dcmread
from pydicom import uid as uids

Array = np.ndarray
Element = tuple[bytes, bytes, bytes]

_RAMP = np.add.outer(np.arange(20), np.arange(24)).astype(np.uint16)
_DEEP = _RAMP * 90
_FLAT = (_RAMP * 5).astype(np.uint8)

# DICOM

# PS3.5 7.1.2: value representations whose length has four bytes, after two of padding.
_LONG_LENGTHS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT")
_REPRESENTATIONS = (*_LONG_LENGTHS, b"US", b"SS", b"DS", b"IS", b"CS", b"FD", b"AT", b"LO", b"\0\0")
_NUMBERS = (0, 1, 2, 3, 7, 8, 11, 12, 15, 16, 17, 31, 32, 64, 255, 256, 4095, 32767, 32768, 65535)
_TEXTS = (
    *(b"", b"0", b"-0", b"1", b"-1", b"1e400", b"-1e308", b"1e-400", b"NaN", b"Infinity", b"0x10"),
    *(b"1\\2", b"\\", b"\\\\1", b"1\\", b"12,5", b" 7 ", b"MONOCHROME1", b"MONOCHROME2", b"RGB"),
    *(b"PALETTE COLOR", b"YBR_FULL", b"YBR_FULL_422", b"YBR_RCT", b"INVERSE", b"IDENTITY"),
    *(b"SIGMOID", b"LINEAR_EXACT", b"FOR PROCESSING", b"\xff\xfe", b"9" * 70, b"\x1b[2J", b"\0\0"),
)
# Elements that the drawn files lack, with a sound representation.
_ADDED = (
    ("PixelPaddingValue", b"\x28\0\x20\x01", b"US"),
    ("PixelPaddingRangeLimit", b"\x28\0\x21\x01", b"US"),
    ("PixelAspectRatio", b"\x28\0\x34\0", b"IS"),
    ("PixelSpacing", b"\x28\0\x30\0", b"DS"),
    ("ImagerPixelSpacing", b"\x18\0\x64\x11", b"DS"),
    ("NumberOfFrames", b"\x28\0\x08\0", b"IS"),
    ("VOILUTFunction", b"\x28\0\x56\x10", b"CS"),
    ("PresentationIntentType", b"\x08\0\x68\0", b"CS"),
    ("PresentationLUTShape", b"\x50\x20\x20\0", b"CS"),
    ("RescaleSlope", b"\x28\0\x53\x10", b"DS"),
    ("WindowWidth", b"\x28\0\x51\x10", b"DS"),
    ("SpecificCharacterSet", b"\x08\0\x05\0", b"CS"),
    ("OverlayData", b"\0\x60\0\x30", b"OW"),
    ("PixelData", b"\xe0\x7f\x10\0", b"OB"),
)


def _rle(pixels: Array) -> bytes:
    """PS3.5 annex G: one literal run per row of bytes, high bytes first."""
    planes = []
    for plane in (pixels >> 8, pixels & 255):
        rows = plane.astype(np.uint8)
        planes.append(b"".join(bytes([rows.shape[1] - 1]) + row.tobytes() for row in rows))
    first, second = (plane + b"\0" * (len(plane) % 2) for plane in planes)
    return struct.pack("<16I", 2, 64, 64 + len(first), *[0] * 13) + first + second


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _elements(data: bytes) -> list[Element]:
    """(tag, representation and length, value) of explicit little endian, PS3.5 7.1.2."""
    at, found = 0, []
    while at + 8 <= len(data):
        wide = data[at + 4 : at + 6] in _LONG_LENGTHS
        head = 12 if wide else 8
        (length,) = struct.unpack_from("<I" if wide else "<H", data, at + (8 if wide else 6))
        # Sequences and fragments of undefined length stand at the end of what is drawn here.
        stop = len(data) if length == 0xFFFFFFFF else at + head + length
        found.append((data[at : at + 4], data[at + 4 : at + head], data[at + head : stop]))
        at = stop
    return found


def _joined(elements: list[Element]) -> bytes:
    return b"".join(b"".join(element) for element in elements)


def _element(tag: bytes, representation: bytes, value: bytes) -> Element:
    value += b"\0" * (len(value) % 2)
    if representation in _LONG_LENGTHS:
        return tag, representation + b"\0\0" + struct.pack("<I", len(value)), value
    return tag, representation + struct.pack("<H", len(value) & 0xFFFF), value


class DicomMaker:
    """Mutants of DICOM files of several syntaxes."""

    file_name = "mutant.dcm"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        window = {"BitsStored": 12, "WindowCenter": [2048, 9], "WindowWidth": [4096, 9]}
        deep = Image.fromarray(_DEEP)
        packed = [c for _ in range(2) for c in np.linspace(0, 65535, 256).astype(int)]
        palette = {
            f"{colour}PaletteColorLookupTable{part}": value
            for colour in ("Red", "Green", "Blue")
            for part, value in (
                ("Descriptor", [256, 0, 16]),
                ("Data", np.asarray(packed[:256], "<u2").tobytes()),
            )
        }
        luts = {
            "ModalityLUTSequence": table(range(0, 4096, 1), first=0, bits=12),
            "VOILUTSequence": table(range(0, 4096, 1), first=0, bits=12),
        }
        drawn: list[tuple[Array, dict[str, Any]]] = [
            (_DEEP, window),
            (_DEEP, {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1", **luts}),
            (_DEEP.astype(np.int16) - 900, {"RescaleSlope": -0.5, "RescaleIntercept": 1024}),
            (_FLAT, {"PhotometricInterpretation": "PALETTE COLOR", **palette}),
            (np.stack([_FLAT] * 3, -1), {}),
            (_DEEP, {**window, "syntax": uids.ImplicitVRLittleEndian}),
            (_DEEP, {**window, "syntax": uids.DeflatedExplicitVRLittleEndian}),
            (_DEEP, {**window, "syntax": uids.RLELossless, "frame": _rle(_DEEP)}),
            (
                _FLAT,
                {
                    "syntax": uids.JPEGBaseline8Bit,
                    "frame": _saved(Image.fromarray(_FLAT), "JPEG", quality=95),
                },
            ),
            (
                _DEEP,
                {
                    "syntax": uids.JPEG2000Lossless,
                    "frame": _saved(deep, "JPEG2000", irreversible=False, no_jp2=True),
                },
            ),
        ]
        self._seeds = [
            draw(folder / "seed.dcm", pixels, **options).read_bytes() for pixels, options in drawn
        ]
        (folder / "seed.dcm").unlink()
        # What follows the group of (0002,xxxx), whose length is in (0002,0000).
        self._starts = [144 + struct.unpack_from("<I", seed, 140)[0] for seed in self._seeds]
        explicit = [str(dcmread(io.BytesIO(s)).file_meta.TransferSyntaxUID) for s in self._seeds]
        self._plain = [
            n
            for n, name in enumerate(explicit)
            if name not in (uids.ImplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian)
        ]

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return self._seeds

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        if rng.random() < 0.25:
            data, other = rng.sample(self._seeds, 2)
            return bytes_changed(data, rng, other)
        n = rng.choice(self._plain)
        head, body = self._seeds[n][: self._starts[n]], self._seeds[n][self._starts[n] :]
        elements = _elements(body)
        for _ in range(rng.randint(1, 3)):
            self._change(elements, rng)
        if rng.random() < 0.1:
            head = bytes_changed(head, rng, body, 1)
        made = head + _joined(elements)
        return bytes_changed(made, rng, made, 1) if rng.random() < 0.1 else made

    def _change(self, elements: list[Element], rng: random.Random) -> None:
        # Of a header mostly the image's own groups decide what is read.
        group = [n for n, (tag, *_) in enumerate(elements) if tag[:2] in (b"\x28\0", b"\xe0\x7f")]
        n = rng.choice(group or [0]) if rng.random() < 0.8 else rng.randrange(len(elements))
        tag, form, value = elements[n]
        match rng.randrange(9):
            case 0 | 1:
                elements[n] = _element(tag, form[:2], self._value(form[:2], rng))
            case 2:
                elements[n] = (tag, form, bytes_changed(value or b"\0", rng, value or b"\0"))
            case 3 if len(elements) > 1:
                del elements[n]
            case 4:
                elements.insert(n, elements[n])
            case 5:
                form = rng.choice(_REPRESENTATIONS)
                elements[n] = _element(tag, form, value)
            case 6:
                _, added, form = rng.choice(_ADDED)
                place = sum(tag[1::-1] + tag[3:1:-1] <= _sorted(added) for tag, *_ in elements)
                elements.insert(place, _element(added, form, self._value(form, rng)))
            case 7:
                length = bytearray(form)
                lengths_set(length, rng, 2 if len(form) == 4 else 4)
                elements[n] = (tag, bytes(length[: len(form)]), value)
            case 8:
                m = rng.randrange(len(elements))
                elements[n], elements[m] = elements[m], elements[n]

    @staticmethod
    def _value(form: bytes, rng: random.Random) -> bytes:
        if form in (b"US", b"SS", b"OW", b"AT"):
            count = rng.choice((0, 1, 1, 1, 1, 2, 3))
            return struct.pack(f"<{count}H", *(rng.choice(_NUMBERS) for _ in range(count)))
        if form in (b"OB", b"UN", b"SQ"):
            return rng.randbytes(rng.choice((0, 1, 8, 100, 960)))
        return rng.choice(_TEXTS)


def _sorted(tag: bytes) -> bytes:
    return tag[1::-1] + tag[3:1:-1]


# PNG

_KINDS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP",
          b"zTXt", b"iTXt", b"tEXt", b"gAMA", b"pHYs", b"sBIT", b"XXXX", b"\0\0\0\0")  # fmt: skip


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, data) of a sound PNG's chunks."""
    at, found = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """With checksums that are right, so that mutants get past them."""
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


class PngMaker:
    """Mutants of PNG files."""

    file_name = "mutant.png"

    def __init__(self, folder: Path) -> None:
        grey = Image.fromarray(_FLAT)
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "drawn", zip=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        alpha = grey.convert("RGBA")
        alpha.putalpha(7)
        sixteen = np.stack([_DEEP, _DEEP], -1).astype(">u2")
        lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in sixteen))
        header = struct.pack(">IIBBBBB", 24, 20, 16, 4, 0, 0, 0)
        self._seeds = [
            _saved(grey, "PNG", exif=exif),
            _saved(Image.fromarray(_DEEP), "PNG", pnginfo=text),
            _saved(grey.convert("P"), "PNG", transparency=3),
            _saved(alpha, "PNG"),
            _saved(Image.fromarray(_FLAT > 90), "PNG", icc_profile=b"drawn"),
            png_of([(b"IHDR", header), (b"IDAT", lines), (b"IEND", b"")]),
        ]
        self._more = [
            *self._seeds,
            _saved(grey, "PNG", save_all=True, append_images=[Image.fromarray(_FLAT[::-1])]),
        ]

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return self._seeds

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        data, other = rng.sample(self._more, 2)
        if rng.random() < 0.15:
            return bytes_changed(data, rng, other)
        chunks, others = chunks_of(data), chunks_of(other)
        for _ in range(rng.randint(1, 3)):
            n = rng.randrange(len(chunks))
            kind, body = chunks[n]
            match rng.randrange(8):
                case 0:
                    header = bytearray(chunks[0][1])
                    lengths_set(header, rng, rng.choice((0, 4)))
                    chunks[0] = (chunks[0][0], bytes(header[: len(chunks[0][1])]))
                case 1:
                    header = bytearray(chunks[0][1])
                    if len(header) == 13:
                        header[rng.randrange(8, 13)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
                    chunks[0] = (chunks[0][0], bytes(header))
                case 2:
                    chunks[n] = (kind, bytes_changed(body or b"\0", rng, other))
                case 3:
                    chunks[n] = (rng.choice(_KINDS), body)
                case 4 if len(chunks) > 1:
                    del chunks[n]
                case 5:
                    chunks.insert(n, rng.choice(others))
                case 6 if kind == b"IDAT":
                    chunks[n] = (kind, self._repacked(body, rng))
                case 7:
                    bomb = zlib.compress(bytes(rng.choice((1, 100, 1 << 20))))
                    chunks.insert(n, (b"zTXt", b"k\0\0" + bomb))
        return png_of(chunks)

    @staticmethod
    def _repacked(body: bytes, rng: random.Random) -> bytes:
        try:
            lines = zlib.decompress(body)
        except zlib.error:
            return body
        return zlib.compress(bytes_changed(lines, rng, lines))


class PictureMaker:
    """Mutants of JPEG and TIFF files."""

    file_name = "mutant.tif"

    def __init__(self, folder: Path) -> None:
        grey, deep = Image.fromarray(_FLAT), Image.fromarray(_DEEP)
        exif = Image.Exif()
        exif[0x0112] = 8
        exif[0x010E] = "drawn"
        self._seeds = [
            _saved(grey, "JPEG", quality=95, exif=exif),
            _saved(grey.convert("CMYK"), "JPEG", quality=95),
            _saved(grey.convert("RGB"), "JPEG", quality=90, progressive=True),
            _saved(grey, "TIFF", exif=exif),
            _saved(deep, "TIFF"),
            _saved(grey.convert("P"), "TIFF", compression="tiff_lzw"),
            _saved(deep, "TIFF", compression="tiff_adobe_deflate"),
            _saved(Image.fromarray((_RAMP / 60).astype(np.float32)), "TIFF"),
            _saved(Image.fromarray(_FLAT > 90), "TIFF", compression="group4"),
            _saved(grey, "TIFF", compression="jpeg"),
        ]

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return self._seeds

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        data, other = rng.sample(self._seeds, 2)
        if data[:2] == b"II" and rng.random() < 0.7:
            made = bytearray(data)
            # TIFF 6.0, section 2: a count of 12-byte entries at the offset in bytes 4 to 7.
            (start,) = struct.unpack_from("<I", data, 4)
            (count,) = struct.unpack_from("<H", data, start)
            for _ in range(rng.randint(1, 3)):
                entry = start + 2 + 12 * rng.randrange(count)
                if rng.random() < 0.5:
                    lengths_set(made, rng, entry + rng.choice((0, 2, 4, 8)))
                else:
                    struct.pack_into("<H", made, entry + 8, rng.choice(_NUMBERS))
            return bytes(made)
        return bytes_changed(data, rng, other)


# Tables

_CELLS = (
    *("", " ", "0", "1", "1.0", "2", "-1", "nan", "1e999", "yes", "train", "Test", "trian", "007"),
    *("img/0.png", "img/../img/1.png", "./img/2.png", "../x.png", "/etc/hostname", "img", "C:\\x"),
    *("file:///etc/hostname", "pipe:touch x", "img/0.png\0", "a\nb", "\x1b[2J", "\u202e", "\ufeff"),
    *(
        "=1+1",
        "@x",
        "+1",
        "-1+2",
        '"',
        "'",
        ",",
        "|",
        "a|b||",
        "x" * 300,
        "x" * 70_000,
        "p0",
        "P0 ",
    ),
    *("PA", "M", "130", "131", "1024x512", "0x0", "9999999x1", "é", "p\u0301", "img/\u0301.png"),
)
_COLUMNS = (
    *("path", "file", "patient", "patient_id", "split", "split_group", "labels", "age", "view"),
    *("original_size", "effusion", "licence", "", "=x", "\u202e", "path "),
)


class CsvMaker:
    """Mutants of both kinds of table; the pictures that they name lie beside them."""

    file_name = "index.csv"

    def __init__(self, folder: Path) -> None:
        (folder / "img").mkdir(parents=True, exist_ok=True)
        for n in range(6):
            Image.fromarray(_FLAT).save(folder / "img" / f"{n}.png")
        sides = ("train", "train", "train", "valid", "valid", "test")
        wide = [["path", "patient_id", "split", "effusion"]]
        wide += [[f"img/{n}.png", f"p{n}", side, str(n % 2)] for n, side in enumerate(sides)]
        columns = "file", "patient", "labels", "split", "age", "view", "original_size"
        long = [list(columns)]
        for n, side in enumerate(sides):
            long.append([f"img/{n}.png", f"p{n}", "a|b", side, "50", "PA", "24x20"])
        self._seeds = [wide, long]

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return [self._written(rows) for rows in self._seeds]

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        data, other = rng.sample(self.sound(), 2)
        if rng.random() < 0.25:
            return bytes_changed(data, rng, other)
        rows = [list(row) for row in rng.choice(self._seeds)]
        for _ in range(rng.randint(1, 3)):
            row = rng.choice(rows)
            match rng.randrange(8):
                case 0 | 1 | 2 if row:
                    row[rng.randrange(len(row))] = rng.choice(_CELLS)
                case 3 if rows[0]:
                    rows[0][rng.randrange(len(rows[0]))] = rng.choice(_COLUMNS)
                case 4:
                    rows.insert(rng.randrange(len(rows)), list(row))
                case 5 if len(rows) > 1:
                    rows.remove(row)
                case 6:
                    row.append(rng.choice(_CELLS))
                case 7:
                    column = rng.randrange(len(rows[0]) or 1)
                    for each in rows:
                        del each[column : column + 1]
        text = self._written(rows)
        match rng.randrange(10):
            case 0:
                text = text.replace(b"\n", b"\r\n")
            case 1:
                text = b"\xef\xbb\xbf" + text
            case 2:
                text = text.replace(b",", rng.choice((b";", b"\t", b",,", b', "')))
        return text

    @staticmethod
    def _written(rows: list[list[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode("utf-8", "surrogatepass")


MAKERS: dict[str, Callable[[Path], Any]] = {
    "dicom": DicomMaker,
    "png": PngMaker,
    "picture": PictureMaker,
    "csv": CsvMaker,
}
