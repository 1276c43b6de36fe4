"""DICOM to pixels, rule by rule, with values worked out by hand from PS3.3."""

import logging
import re
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from drawn_dicom import FOUR, close, draw, shown, table

from cxr_foundation.errors import CxrError, UnreadableImage, UnsupportedPixels
from cxr_foundation.images import ImageWarning, read_image, read_pixels


@pytest.fixture
def dcm(tmp_path):
    return tmp_path / "a.dcm"


# --- the range of BitsStored


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_without_lut_or_window_the_range_is_that_of_bits_stored(dcm, bits):
    top = 2**bits - 1
    draw(dcm, np.array([[0, 1], [top // 3, top]], np.uint16), BitsStored=bits)
    assert shown(dcm) == close(0, 1 / top, (top // 3) / top, 1)


def test_eight_bit_pixels_are_over_255(dcm):
    draw(dcm, np.array([[0, 51], [102, 255]], np.uint8))
    assert shown(dcm) == close(0, 0.2, 0.4, 1)


def test_the_pictures_own_range_plays_no_part(dcm):
    draw(dcm, np.array([[1000, 1100]], np.uint16), BitsStored=12)
    assert shown(dcm) == close(1000 / 4095, 1100 / 4095)


def test_signed_pixels_span_the_signed_range(dcm):
    draw(dcm, np.array([[-2048, -1], [0, 2047]], np.int16), BitsStored=12)
    assert shown(dcm) == close(0, 2047 / 4095, 2048 / 4095, 1)


def test_signs_are_extended_from_the_high_bit(dcm):
    # 0x0FFF is -1 in 12 bits, with nothing above it.
    draw(dcm, np.array([[0x0800, 0x0FFF], [0x0000, 0x07FF]], np.int16), BitsStored=12)
    assert shown(dcm) == close(0, 2047 / 4095, 2048 / 4095, 1)


def test_overlays_above_bits_stored_are_masked_off(dcm):
    draw(dcm, np.array([[0xF000, 0x1400], [0xA800, 0x3FFF]], np.uint16), BitsStored=12)
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_left_aligned_pixels_are_shifted_from_the_high_bit(dcm):
    draw(dcm, FOUR << 4 | 7, BitsStored=12, HighBit=15)
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


@pytest.mark.parametrize("shift", [0, 4, 20])
def test_32_bit_words_hold_12_bits_anywhere(dcm, shift):
    words = FOUR.astype(np.uint32) << shift | (0xFFF00000 if shift < 20 else 0xF)
    words = words if shift else words & 0xFFFFFFFF
    draw(dcm, words.astype(np.uint32), BitsStored=12, HighBit=11 + shift)
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_32_bit_words_may_be_signed(dcm):
    draw(dcm, np.array([[-2048, -1], [0, 2047]], np.int32), BitsStored=12)
    assert shown(dcm) == close(0, 2047 / 4095, 2048 / 4095, 1)


# --- modality: PS3.3 C.11.1


def test_a_slope_of_minus_one_turns_the_picture(dcm):
    draw(dcm, FOUR, BitsStored=12, RescaleSlope="-1", RescaleIntercept="4095")
    assert shown(dcm) == close(1, 3071 / 4095, 2047 / 4095, 0)


def test_a_rescale_alone_keeps_the_range_of_bits_stored(dcm):
    draw(dcm, FOUR, BitsStored=12, RescaleSlope="0.5", RescaleIntercept="-1024")
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_the_window_is_in_units_after_the_rescale(dcm):
    # 0.5 x - 1024: -1024, -512, 0, 1023.5; the window reaches from -512 to 512.
    draw(
        dcm, FOUR, BitsStored=12, RescaleSlope="0.5", RescaleIntercept="-1024",
        WindowCenter="0", WindowWidth="1024", VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 0.5, 1)
    assert shown(dcm, voi=False) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_a_modality_lut_gives_its_own_bits(dcm):
    draw(
        dcm, np.array([[0, 1], [2, 3]], np.uint16), BitsStored=12,
        ModalityLUTSequence=table([100, 200, 1023], first=1, bits=10),
    )  # fmt: skip
    assert shown(dcm) == close(100 / 1023, 100 / 1023, 200 / 1023, 1)


def test_a_modality_lut_of_signed_pixels_starts_below_zero(dcm):
    draw(
        dcm, np.array([[-3, -2], [-1, 5]], np.int16), BitsStored=12,
        ModalityLUTSequence=table([0, 51, 255], first=-2, bits=8, vr="SS"),
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 0.2, 1)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"RescaleSlope": "1"},
        {"RescaleIntercept": "-1024"},
        {
            "RescaleSlope": "2",
            "RescaleIntercept": "0",
            "ModalityLUTSequence": table([0, 1], first=0, bits=8),
        },
    ],
    ids=["zero", "no intercept", "no slope", "line and table"],
)
def test_half_a_rescale_is_refused(dcm, elements):
    with pytest.raises(UnsupportedPixels, match="Rescale"):
        read_image(draw(dcm, FOUR, BitsStored=12, **elements))


# --- VOI: PS3.3 C.11.2


def test_a_linear_window_is_half_a_step_off(dcm):
    # C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5): 2048 and 4096 make the identity of 12 bits.
    draw(dcm, FOUR, BitsStored=12, WindowCenter="2048", WindowWidth="4096")
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_a_linear_window_clips_at_its_edges(dcm):
    draw(
        dcm, np.array([[9, 10, 12, 14, 15]], np.uint16), BitsStored=12,
        WindowCenter="12.5", WindowWidth="5",
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 0.5, 1, 1)


def test_a_linear_window_of_one_is_a_step(dcm):
    draw(
        dcm, np.array([[9, 10, 11]], np.uint16), BitsStored=12,
        WindowCenter="10.5", WindowWidth="1",
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 1)


def test_an_exact_linear_window_is_not_off(dcm):
    draw(
        dcm, np.array([[0, 1024, 2048, 3072]], np.uint16), BitsStored=12,
        WindowCenter="2048", WindowWidth="2048", VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 0.5, 1)


def test_a_sigmoid_window(dcm):
    draw(
        dcm, np.array([[0, 1000, 2000, 4000]], np.uint16), BitsStored=12,
        WindowCenter="2000", WindowWidth="1000", VOILUTFunction="SIGMOID",
    )  # fmt: skip
    # 1 / (1 + exp(-4 (x - 2000) / 1000))
    assert shown(dcm) == close(0.00033535013, 0.01798620996, 0.5, 0.99966464987)


def test_the_first_of_several_windows_is_taken(dcm):
    draw(
        dcm, FOUR, BitsStored=12, VOILUTFunction="LINEAR_EXACT",
        WindowCenter=["1024", "2048"], WindowWidth=["2048", "4096"],
    )  # fmt: skip
    assert shown(dcm) == close(0, 0.5, 1, 1)


@pytest.mark.parametrize(
    ("center", "width"),
    [
        (b"2048", b"0 "),
        (b"2048", b"-4096 "),
        (b"SECRET", b"4096"),
        (b"2048", b"1e400 "),
        (b"9e9 ", b"1 "),
    ],
    ids=["zero", "negative", "text", "infinite", "beyond all values"],
)
def test_a_pair_that_is_no_window_is_passed_over(dcm, center, width):
    draw(dcm, FOUR, BitsStored=12, WindowCenter="77", WindowWidth="88")
    data = dcm.read_bytes()
    for tag, old, new in (
        (b"\x28\0\x50\x10DS", b"77", center),
        (b"\x28\0\x51\x10DS", b"88", width),
    ):
        data = data.replace(
            tag + struct.pack("<H", len(old)) + old, tag + struct.pack("<H", len(new)) + new
        )
    dcm.write_bytes(data)
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


def test_a_voi_lut_goes_before_the_window(dcm):
    draw(
        dcm, np.array([[4, 5], [6, 7]], np.uint16), BitsStored=12,
        VOILUTSequence=table([0, 100, 1000], first=5, bits=10),
        WindowCenter="5", WindowWidth="2",
    )  # fmt: skip
    assert shown(dcm) == close(0, 0, 100 / 1023, 1000 / 1023)


def test_a_voi_lut_of_zero_entries_has_65536(dcm):
    entries = np.arange(65536)[::-1]
    draw(
        dcm, np.array([[0, 13107], [52428, 65535]], np.uint16),
        VOILUTSequence=table(entries, first=0, bits=16, count=0),
    )  # fmt: skip
    assert shown(dcm) == close(1, 0.8, 0.2, 0)


def test_a_voi_lut_after_a_negative_intercept_starts_below_zero(dcm):
    # 0xFC00 is -1024 as SS, which is what the first stored value becomes.
    draw(
        dcm, np.array([[0, 1], [2, 3]], np.uint16), BitsStored=12,
        RescaleSlope="1", RescaleIntercept="-1024",
        VOILUTSequence=table([0, 51, 102, 255], first=0xFC00, bits=8),
    )  # fmt: skip
    assert shown(dcm) == close(0, 0.2, 0.4, 1)


def test_a_table_that_says_so_starts_below_zero_though_no_value_does(dcm):
    # As SS it begins at -1, so that 0 is its second entry; 65535 as US would be beyond all values.
    item = table([0, 51, 102, 255], first=-1, bits=8, vr="SS")
    draw(dcm, np.array([[0, 1, 2, 3]], np.uint16), BitsStored=12, VOILUTSequence=item)
    assert shown(dcm) == close(0.2, 0.4, 1, 1)


def test_eight_bit_entries_may_be_packed_in_words(dcm):
    item = table([0], first=0, bits=8, count=3)
    item[0].LUTData = bytes([0, 51, 255, 0])
    draw(dcm, np.array([[0, 1, 2]], np.uint16), BitsStored=12, VOILUTSequence=item)
    assert shown(dcm) == close(0, 0.2, 1)


@pytest.mark.parametrize(
    "item",
    [
        table([0], first=0, bits=16, count=4096),
        table([0, 1], first=0, bits=7),
        table([0, 256], first=0, bits=8),
    ],
    ids=["short", "7 bits", "beyond its bits"],
)
def test_a_lut_that_breaks_its_descriptor_is_refused(dcm, item):
    with pytest.raises(UnreadableImage, match=r"\(0028,300[26]\)"):
        read_image(draw(dcm, FOUR, BitsStored=12, VOILUTSequence=item))


def test_an_unknown_voi_function_is_refused_without_quoting_it(dcm):
    draw(dcm, FOUR, BitsStored=12, WindowCenter="2", WindowWidth="4", VOILUTFunction="SECRET")
    with pytest.raises(UnsupportedPixels, match=r"\(0028,1056\) VOILUTFunction") as error:
        read_image(dcm)
    assert "SECRET" not in str(error.value)


# --- polarity: PS3.3 C.7.6.3.1.2, C.8.11.3.1.2


def test_monochrome1_is_inverted(dcm):
    draw(dcm, FOUR, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    assert shown(dcm) == close(1, 3071 / 4095, 2047 / 4095, 0)
    assert shown(dcm, voi=False) == close(1, 3071 / 4095, 2047 / 4095, 0)


def test_monochrome1_is_inverted_after_the_window(dcm):
    draw(
        dcm, FOUR, BitsStored=12, PhotometricInterpretation="MONOCHROME1",
        WindowCenter="1024", WindowWidth="2048", VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    assert shown(dcm) == close(1, 0.5, 0, 0)


def test_monochrome1_is_inverted_after_the_voi_lut_over_the_bits_of_its_descriptor(dcm):
    draw(
        dcm, np.array([[0, 1, 2]], np.uint16), BitsStored=12,
        PhotometricInterpretation="MONOCHROME1",
        VOILUTSequence=table([0, 51, 204], first=0, bits=8),
    )  # fmt: skip
    assert shown(dcm) == close(1, 0.8, 0.2)


def test_inverse_with_monochrome1_inverts_once(dcm):
    draw(
        dcm, FOUR, BitsStored=12, PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
    )  # fmt: skip
    assert shown(dcm) == close(1, 3071 / 4095, 2047 / 4095, 0)


def test_identity_with_monochrome2_does_not_invert(dcm):
    draw(dcm, FOUR, BitsStored=12, PresentationLUTShape="IDENTITY")
    assert shown(dcm) == close(0, 1024 / 4095, 2048 / 4095, 1)


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")]
)
def test_a_shape_that_contradicts_the_photometric_is_refused(dcm, photometric, shape):
    draw(
        dcm, FOUR, BitsStored=12, PhotometricInterpretation=photometric, PresentationLUTShape=shape
    )
    sentence = f"(2050,0020) PresentationLUTShape {shape} contradicts {photometric}"
    with pytest.raises(UnsupportedPixels, match=re.escape(sentence)):
        read_image(dcm)


@pytest.mark.parametrize(
    ("photometric", "shape", "trust", "inverted"),
    [
        ("MONOCHROME2", "INVERSE", "photometric", False),
        ("MONOCHROME2", "INVERSE", "shape", True),
        ("MONOCHROME1", "IDENTITY", "photometric", True),
        ("MONOCHROME1", "IDENTITY", "shape", False),
        ("MONOCHROME1", "INVERSE", "photometric", True),
        ("MONOCHROME1", "INVERSE", "shape", True),
        ("MONOCHROME1", None, "shape", True),
        ("MONOCHROME2", None, "shape", False),
    ],
)
def test_the_trusted_element_decides_a_contradiction(dcm, photometric, shape, trust, inverted):
    elements = {} if shape is None else {"PresentationLUTShape": shape}
    draw(dcm, FOUR, BitsStored=12, PhotometricInterpretation=photometric, **elements)
    up = [0, 1024 / 4095, 2048 / 4095, 1]
    assert shown(dcm, trust=trust) == close(*(1 - v for v in up) if inverted else up)


def test_the_processor_passes_on_what_is_trusted(dcm):
    from cxr_foundation.contract import InputContract
    from cxr_foundation.images.processor import Processor

    tiles = np.kron(FOUR, np.ones((8, 8), np.uint16))
    draw(dcm, tiles, BitsStored=12, PresentationLUTShape="INVERSE")
    contract = InputContract(
        channels=1, size=(16, 16), aspect="squash", intensity="voi", mean=(0.0,), std=(1.0,)
    )
    with pytest.raises(UnsupportedPixels, match="contradicts MONOCHROME2"):
        Processor(contract).prepare(dcm)
    believing = Processor(contract, trust="shape")
    corners = believing.prepare(dcm)[0, ::15, ::15].ravel().tolist()
    assert corners == close(1, 3071 / 4095, 2047 / 4095, 0)


@pytest.mark.parametrize(
    ("sign", "photometric", "slope", "warned"),
    [
        (-1, "MONOCHROME2", "1", False),
        (1, "MONOCHROME2", "1", True),
        (1, "MONOCHROME1", "1", False),
        (-1, "MONOCHROME1", "1", True),
        (1, "MONOCHROME2", "-1", False),
        (-1, "MONOCHROME2", "-1", True),
        (0, "MONOCHROME2", "1", False),
    ],
)
def test_an_intensity_sign_against_the_polarity_is_only_warned_of(
    dcm, sign, photometric, slope, warned
):
    intercept = "0" if slope == "1" else "4095"
    draw(
        dcm, FOUR, BitsStored=12, PhotometricInterpretation=photometric,
        PixelIntensityRelationshipSign=sign, RescaleSlope=slope, RescaleIntercept=intercept,
    )  # fmt: skip
    with warnings.catch_warnings(record=True, action="always") as found:
        pixels = read_image(dcm)
    falling = (photometric == "MONOCHROME1") != (slope == "-1")
    assert (pixels[0, 0] > pixels[1, 1]) == falling
    assert [w.category for w in found] == [ImageWarning] * warned
    assert all("(0028,1041) PixelIntensityRelationshipSign" in str(w.message) for w in found)
    assert len(read_pixels(dcm).notes) == warned


# --- padding: PS3.3 C.7.5.1.1.2


def test_padding_is_black_in_monochrome1_too(dcm):
    draw(dcm, FOUR, BitsStored=12, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert shown(dcm) == close(0, 3071 / 4095, 2047 / 4095, 0)


def test_a_padding_range_is_black_and_marked(dcm):
    draw(
        dcm, np.array([[-2000, -1990, -1980, 2047]], np.int16), BitsStored=12,
        PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990,
    )  # fmt: skip
    pixels = read_pixels(dcm)
    assert pixels.values.ravel().tolist() == close(0, 0, 68 / 4095, 1)
    assert pixels.padding.tolist() == [[True, True, False, False]]


# --- square pixels: PS3.3 10.7.1.3, C.7.6.3.1.7


@pytest.mark.parametrize(
    "element",
    [
        {"PixelSpacing": ["0.2", "0.1"]},
        {"ImagerPixelSpacing": ["0.2", "0.1"]},
        {"PixelAspectRatio": ["2", "1"]},
    ],
    ids=lambda e: next(iter(e)),
)
def test_high_pixels_make_more_rows(dcm, element):
    ramp = np.repeat(np.arange(0, 4000, 100, dtype=np.uint16)[:, None], 6, axis=1)
    pixels = read_image(draw(dcm, ramp, BitsStored=12, **element))
    assert pixels.shape == (80, 6)
    # The middle between two rows of a ramp is their mean, at a quarter and three quarters.
    expected = (np.arange(80) - 0.5) / 2 * 100 / 4095
    assert pixels[1:-1, 3] == pytest.approx(expected[1:-1], abs=1e-6)


def test_wide_pixels_make_more_columns(dcm):
    assert read_image(draw(dcm, FOUR, PixelAspectRatio=["1", "3"])).shape == (2, 6)


def test_spacings_that_differ_by_a_rounding_are_square(dcm):
    draw(dcm, np.zeros((400, 400), np.uint16), PixelSpacing=["0.1430", "0.1431"])
    assert read_image(dcm).shape == (400, 400)


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelSpacing": ["0.1", "0.1"], "PixelAspectRatio": ["2", "1"]},
        {"PixelSpacing": ["0.1", "0"]},
        {"PixelAspectRatio": ["1000", "1"]},
    ],
    ids=["contradiction", "zero", "no pixel's shape"],
)
def test_a_pixel_shape_that_cannot_be_known_is_refused(dcm, elements):
    with pytest.raises(UnsupportedPixels, match="Pixel"):
        read_image(draw(dcm, FOUR, **elements))


# --- what is refused by name


@pytest.mark.parametrize(
    ("elements", "drop", "sentence"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, (), "is FOR PROCESSING"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"},
            (),
            "(0008,0016) SOPClassUID is Digital X-Ray Image Storage - For Processing",
        ),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            (),
            "(0008,0008) ImageType is LOCALIZER",
        ),
        ({"NumberOfFrames": 2}, (), "does not have exactly one frame"),
        ({}, ["PhotometricInterpretation"], "(0028,0004) PhotometricInterpretation is missing"),
        ({"PhotometricInterpretation": "SECRET"}, (), "PhotometricInterpretation is none that is"),
        ({}, ["PixelRepresentation"], "(0028,0103) PixelRepresentation is missing"),
        ({}, ["Rows"], "(0028,0010) Rows is missing"),
        ({"BitsAllocated": 12, "BitsStored": 12}, (), "(0028,0100) BitsAllocated is not 1, 8"),
        ({"BitsAllocated": 32, "BitsStored": 17}, (), "(0028,0101) BitsStored is above 16"),
        ({"BitsStored": 20}, (), "(0028,0101) BitsStored does not fit BitsAllocated"),
        ({"BitsStored": 12, "HighBit": 3}, (), "(0028,0102) HighBit does not fit"),
        ({"SamplesPerPixel": 3}, (), "(0028,0002) SamplesPerPixel contradicts"),
        ({}, ["PixelData"], "has no picture: (7FE0,0010) PixelData is missing"),
    ],
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)  # fmt: skip
def test_it_is_refused_by_name(dcm, elements, drop, sentence):
    with pytest.raises(UnsupportedPixels, match=re.escape(sentence)) as error:
        read_image(draw(dcm, FOUR, drop=drop, **elements))
    assert str(error.value).startswith(f"{dcm}: ")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("rows", [1, 3])
def test_more_or_fewer_pixels_than_the_header_says_are_refused(dcm, rows):
    with pytest.raises(UnreadableImage, match=f"{rows} x 2 pixels need {rows * 4} bytes, the fi"):
        read_image(draw(dcm, FOUR, Rows=rows))


def test_a_claimed_size_is_refused_before_memory_is_taken(dcm):
    with pytest.raises(UnreadableImage, match="claims 65535 x 65535 pixels"):
        read_image(draw(dcm, FOUR, Rows=65535, Columns=65535))


# --- colour spaces


def test_rgb_of_equal_channels_is_grey(dcm):
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    assert shown(draw(dcm, np.stack([grey] * 3, -1))) == close(0, 0.2, 0.4, 1)


def test_planes_of_rgb_are_told_apart(dcm):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    planes = np.stack([grey] * 3).reshape(3, 4, 3)
    draw(dcm, planes, PlanarConfiguration=1)
    assert read_image(dcm) == pytest.approx(grey / 255, abs=1e-7)


def test_ybr_is_its_luma(dcm):
    luma = np.array([[0, 51], [102, 255]], np.uint8)
    ybr = np.stack([luma, np.full_like(luma, 128), np.full_like(luma, 128)], -1)
    assert shown(draw(dcm, ybr, PhotometricInterpretation="YBR_FULL")) == close(0, 0.2, 0.4, 1)


def test_a_palette_is_looked_up(dcm):
    colours = {}
    for colour in ("Red", "Green", "Blue"):
        colours[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        entries = np.array([65535, 26214, 13107, 0], "<u2")
        colours[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    draw(
        dcm, np.array([[0, 1], [2, 3]], np.uint8), PhotometricInterpretation="PALETTE COLOR",
        **colours,
    )  # fmt: skip
    assert shown(dcm) == close(1, 0.4, 0.2, 0)


def test_a_colour_picture_is_refused(dcm):
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 200
    with pytest.raises(UnsupportedPixels, match="is a colour picture"):
        read_image(draw(dcm, colour))


# --- nothing of the header gets out


def _cases_with_identifiers(folder):
    draw(folder / "whole.dcm", FOUR, StudyDate="SECRET", PatientBirthDate="SECRET")
    whole = (folder / "whole.dcm").read_bytes()
    for cut in range(140, len(whole), 23):
        (folder / f"{cut}.dcm").write_bytes(whole[:cut])
    for flipped in range(140, len(whole), 17):
        data = bytearray(whole)
        data[flipped] ^= 0xFF
        (folder / f"flip{flipped}.dcm").write_bytes(data)
    return sorted(folder.glob("*.dcm"))


def test_no_error_warning_or_log_record_quotes_the_header(tmp_path, caplog, recwarn, capfd):
    with warnings.catch_warnings(action="ignore"):
        cases = _cases_with_identifiers(tmp_path)
    # What pydicom says while the tests write is theirs.
    recwarn.clear()
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    texts = []
    for path in cases:
        try:
            read_image(path)
        except CxrError as error:
            assert error.__cause__ is None
            texts.append(str(error))
    assert len(cases) > 50
    assert len(texts) > 20
    assert "SECRET" not in " ".join(texts) + caplog.text + "".join(capfd.readouterr())
    assert len(recwarn) == 0


def test_reading_a_dicom_imports_no_torch(dcm):
    draw(dcm, FOUR)
    program = (
        "import sys; from cxr_foundation.images import read_image; read_image(sys.argv[1]);"
        "print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, dcm], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
