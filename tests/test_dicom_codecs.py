"""Transfer syntaxes: the same picture whichever way it is stored, or a reason with its UID."""

import re
import struct
import sys

import numpy as np
import pytest
from drawn_dicom import FOUR, SYNTAXES, close, draw, shown
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images import codec, read_image, read_pixels


@pytest.fixture
def dcm(tmp_path):
    return tmp_path / "a.dcm"


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_every_native_syntax_gives_the_same_pixels(dcm, syntax):
    draw(
        dcm, FOUR, syntax=syntax, BitsStored=12, PhotometricInterpretation="MONOCHROME1",
        VOILUTSequence=None, WindowCenter="2048", WindowWidth="4096",
    )  # fmt: skip
    assert shown(dcm) == close(1, 3071 / 4095, 2047 / 4095, 0)


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=lambda s: s.name)
def test_a_file_without_meta_header_is_told_by_content(tmp_path, syntax):
    path = draw(tmp_path / "no_suffix", FOUR, syntax=syntax, meta=False, BitsStored=12)
    assert path.read_bytes()[128:132] != b"DICM"
    assert shown(path) == close(0, 1024 / 4095, 2048 / 4095, 1)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda s: s.name
)
def test_lossless_codecs_give_the_pixels_back(dcm, syntax):
    import pydicom

    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) * 4095 // 3071
    data = pydicom.dcmread(draw(dcm, pixels, BitsStored=12))
    data.compress(syntax, generate_instance_uid=False)
    data.save_as(dcm)
    assert np.abs(read_image(dcm) - pixels / 4095).max() <= 1e-7


@pytest.mark.parametrize(
    ("elements", "syntax", "lossy"),
    [
        ({}, ExplicitVRLittleEndian, None),
        ({"LossyImageCompression": "00"}, ExplicitVRLittleEndian, False),
        ({"LossyImageCompression": "01"}, ExplicitVRLittleEndian, True),
        ({}, JPEGBaseline8Bit, True),
        ({"LossyImageCompression": "00"}, JPEGBaseline8Bit, True),
    ],
    ids=["silent", "never", "once", "baseline", "baseline that denies it"],
)
def test_it_is_recorded_whether_pixels_were_lossy(dcm, elements, syntax, lossy):
    frame = _jpeg() if syntax == JPEGBaseline8Bit else None
    draw(dcm, np.zeros((16, 16), np.uint8), syntax=syntax, frame=frame, **elements)
    assert read_pixels(dcm).lossy is lossy


def test_body_part_view_and_modality_are_not_the_readers_business(dcm):
    draw(dcm, FOUR, BitsStored=12, Modality="CR", BodyPartExamined="HAND", ViewPosition="LL")
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


# JPEG 2000 codestreams of (row + column) x 256 over 8 x 8 in 12 bits: unsigned, and less 2048 as
# signed. Encoded by imagecodecs 2026.3.6.
J2K_STEPS = np.add.outer(np.arange(8), np.arange(8)) * 256


def _j2k(*, signed):
    imagecodecs = pytest.importorskip("imagecodecs")
    picture = (J2K_STEPS - 2048 * signed).astype(np.int16 if signed else np.uint16)
    return imagecodecs.jpeg2k_encode(
        picture, codecformat="j2k", reversible=True, level=0, bitspersample=12
    )


@pytest.mark.parametrize("signed", [False, True])
def test_a_jpeg_2000_frame_of_the_headers_sign_is_decoded(dcm, signed):
    draw(
        dcm, np.zeros((8, 8), np.int16 if signed else np.uint16), syntax=JPEG2000Lossless,
        frame=_j2k(signed=signed), BitsStored=12,
    )  # fmt: skip
    assert read_image(dcm) == pytest.approx(J2K_STEPS / 4095, abs=2e-7)


@pytest.mark.parametrize("signed", [False, True])
def test_a_jpeg_2000_frame_of_another_sign_is_refused(dcm, signed):
    draw(
        dcm, np.zeros((8, 8), np.uint16 if signed else np.int16), syntax=JPEG2000Lossless,
        frame=_j2k(signed=signed), BitsStored=12,
    )  # fmt: skip
    sentence = "the compressed picture's sign contradicts (0028,0103) PixelRepresentation"
    with pytest.raises(UnsupportedPixels, match=re.escape(sentence)):
        read_image(dcm)


def test_a_frame_of_fewer_bits_than_the_header_says_is_refused(dcm):
    draw(
        dcm, np.zeros((8, 8), np.uint16), syntax=JPEG2000Lossless, frame=_j2k(signed=False),
        BitsStored=16,
    )  # fmt: skip
    sentence = "the compressed picture has 12 bits, fewer than (0028,0101) BitsStored"
    with pytest.raises(UnsupportedPixels, match=re.escape(sentence)):
        read_image(dcm)


LOSSLESS = {
    RLELossless: None,
    JPEGLSLossless: "jpegls_encode",
    JPEG2000Lossless: "jpeg2k_encode",
    HTJ2KLossless: "htj2k_encode",
}


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "pydicom"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: s.name)
def test_lossless_pixels_are_the_same_by_either_decoder(dcm, monkeypatch, syntax, bits, quick):
    imagecodecs = pytest.importorskip("imagecodecs")
    kind = np.uint8 if bits == 8 else np.uint16
    picture = (np.arange(40 * 30).reshape(40, 30) * 977 % 2**bits).astype(kind)
    options = {
        JPEG2000Lossless: {"reversible": True, "level": 0, "codecformat": "j2k"},
        HTJ2KLossless: {"reversible": True},
    }.get(syntax, {})
    if syntax == RLELossless:
        planes = [picture.astype(f">u{bits // 8}").tobytes()[at :: bits // 8]
                  for at in range(bits // 8)]  # fmt: skip
        coded = [b"".join(bytes([0, byte]) for byte in plane) for plane in planes]
        frame = struct.pack("<16I", len(coded), 64, 64 + len(coded[0]), *[0] * 13) + b"".join(coded)
    else:
        frame = getattr(imagecodecs, LOSSLESS[syntax])(picture, **options)
    draw(dcm, picture, syntax=syntax, frame=frame, BitsStored=bits)
    if not quick:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert np.abs(read_image(dcm) - picture / (2**bits - 1)).max() <= 1e-7


def _rle(*planes):
    """PS3.5 G.5: a header of offsets, then the planes' segments."""
    offsets = np.cumsum([64, *map(len, planes)])[:-1]
    padded = [len(planes), *offsets, *[0] * (15 - len(planes))]
    return struct.pack("<16I", *padded) + b"".join(planes)


# Eight pixels as literals, four at a time, and as two runs of four.
_LITERAL = bytes([3, 0, 10, 20, 30, 3, 40, 50, 60, 70])
_RUNS = bytes([253, 10, 253, 20])


@pytest.fixture(params=[True, False], ids=["imagecodecs", "without"])
def by_either(request, monkeypatch):
    """With imagecodecs and without it."""
    if request.param:
        pytest.importorskip("imagecodecs")
    else:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)


@pytest.mark.usefixtures("by_either")
@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0", b"\x80"], ids=["none", "1", "2", "noop"])
@pytest.mark.parametrize(
    ("segment", "values"),
    [(_LITERAL, range(0, 80, 10)), (_RUNS, [10] * 4 + [20] * 4)],
    ids=["literal", "runs"],
)
def test_an_rle_segment_that_gives_the_picture_is_read(dcm, segment, values, padding):
    frame = _rle(segment + padding)
    draw(dcm, np.zeros((2, 4), np.uint8), syntax=RLELossless, frame=frame)
    assert shown(dcm) == close(*(v / 255 for v in values))


@pytest.mark.usefixtures("by_either")
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    "segment",
    [
        _LITERAL[:-2],
        bytes([6, *range(7)]),
        bytes([8, *range(9)]),
        _LITERAL + b"\0\x09",
        _RUNS + b"\xfd\x09",
        bytes([253, 10, 252, 20]),
        _LITERAL + b"\xff",
    ],
    ids=["cut", "short", "long", "one more", "a run more", "across the end", "a run without"],
)
def test_an_rle_segment_that_gives_less_or_more_is_refused(dcm, segment, samples):
    shape = (2, 4) if samples == 1 else (2, 4, 3)
    frame = _rle(*[_LITERAL] * (samples - 1), segment)
    draw(dcm, np.zeros(shape, np.uint8), syntax=RLELossless, frame=frame)
    with pytest.raises(UnreadableImage, match="the RLE pixel data is damaged"):
        read_image(dcm)


@pytest.mark.usefixtures("by_either")
def test_rle_of_grey_rgb_is_read(dcm):
    draw(
        dcm, np.zeros((2, 4, 3), np.uint8), syntax=RLELossless, frame=_rle(*[_LITERAL + b"\0"] * 3)
    )
    assert shown(dcm) == close(*(v / 255 for v in range(0, 80, 10)))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_jpeg_2000_is_the_same_by_any_number_of_threads(dcm, monkeypatch, threads):
    imagecodecs = pytest.importorskip("imagecodecs")
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    picture = (np.arange(200 * 300).reshape(200, 300) * 977 % 4096).astype(np.uint16)
    frame = imagecodecs.jpeg2k_encode(
        picture, codecformat="j2k", reversible=True, level=0, bitspersample=12
    )
    draw(dcm, picture, syntax=JPEG2000Lossless, frame=frame, BitsStored=12)
    assert np.abs(read_image(dcm) - picture / 4095).max() <= 1e-7


def test_a_worker_decodes_jpeg_2000_on_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert codec._threads() == 3
    monkeypatch.setattr(codec.multiprocessing, "parent_process", object)
    assert codec._threads() == 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_needs_the_dicom_extra(dcm, monkeypatch, bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    kind = np.uint8 if bits == 8 else np.uint16
    picture = (np.arange(40 * 30).reshape(40, 30) * 977 % 2**bits).astype(kind)
    frame = imagecodecs.jpeg8_encode(picture, lossless=True, predictor=1, bitspersample=bits)
    draw(dcm, picture, syntax=JPEGLosslessSV1, frame=frame, BitsStored=bits)
    assert np.abs(read_image(dcm) - picture / (2**bits - 1)).max() <= 1e-7
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnsupportedPixels, match=re.escape("1.2.840.10008.1.2.4.70)")):
        read_image(dcm)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1], ids=lambda s: s.name)
def test_lossless_jpeg_of_grey_rgb_is_read(dcm, syntax):
    imagecodecs = pytest.importorskip("imagecodecs")
    grey = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 7 % 256
    colour = np.stack([grey.astype(np.uint8)] * 3, -1)
    frame = imagecodecs.jpeg8_encode(
        colour, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB"
    )
    draw(dcm, colour, syntax=syntax, frame=frame)
    assert np.abs(read_image(dcm) - grey / 255).max() <= 1e-7


def _jpeg(size=(16, 16)):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", size, 51).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_a_baseline_jpeg_is_decoded(dcm):
    draw(dcm, np.zeros((16, 16), np.uint8), syntax=JPEGBaseline8Bit, frame=_jpeg())
    assert read_image(dcm) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (_jpeg((32, 32)), "the compressed picture has another size than its header"),
        (_jpeg()[:-40], "the compressed picture is cut off"),
        (b"SECRET" * 20, "its pixels are not JPEG Baseline (Process 1), or damaged"),
    ],
    ids=["size", "cut", "no jpeg"],
)
def test_a_compressed_frame_is_checked_before_it_is_decoded(dcm, frame, sentence):
    draw(dcm, np.zeros((16, 16), np.uint8), syntax=JPEGBaseline8Bit, frame=frame)
    with pytest.raises(UnreadableImage, match=re.escape(sentence)):
        read_image(dcm)


def test_a_syntax_that_cannot_be_decoded_is_named_with_the_way_out(dcm):
    # A 12-bit frame header and no picture.
    frame = bytes.fromhex("ffd8ffc1000b0c0010001001011100") + b"\0" * 20 + b"\xff\xd9"
    draw(dcm, np.zeros((16, 16), np.uint16), syntax=JPEGExtended12Bit, frame=frame, BitsStored=12)
    sentence = "(JPEG Extended (Process 2 and 4), 1.2.840.10008.1.2.4.51)"
    with pytest.raises(UnsupportedPixels, match=re.escape(sentence)) as e:
        read_image(dcm)
    assert 'pip install "cxr-foundation-hub[dicom]"' in str(e.value)


def test_a_png_that_is_called_dicom_is_refused(dcm):
    dcm.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(UnreadableImage, match="is called a DICOM file, but is none"):
        read_image(dcm)
