"""JSRT's raw films, NODE21's MetaImages, SCR's GIF masks: pixels by hand, and what is refused."""

import zlib

import numpy as np
import pytest
from PIL import Image

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images import read_image

HEADER = {
    "ObjectType": "Image",
    "NDims": "2",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "DimSize": "3 2",
    "ElementType": "MET_UCHAR",
    "ElementDataFile": "LOCAL",
}
BYTES = bytes([0, 51, 102, 153, 204, 255])
GREY = [[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]


def metaimage(folder, pixels, **changes):
    header = HEADER | changes
    header["ElementDataFile"] = header.pop("ElementDataFile")
    lines = "".join(f"{k} = {v}\n" for k, v in header.items() if v is not None)
    (folder / "n0001.mha").write_bytes(lines.encode() + pixels)
    return folder / "n0001.mha"


def film(folder, values, name="JPCLN001.IMG"):
    (folder / name).write_bytes(values.astype(">u2").tobytes())
    return folder / name


# Films.


def test_a_film_is_big_endian_12_bit_and_inverted(tmp_path):
    values = np.full((2048, 2048), 4095)
    values[0, 0], values[0, 1], values[1, 0] = 0, 1365, 2730
    read = read_image(film(tmp_path, values))
    assert (read.shape, read.dtype) == ((2048, 2048), np.float32)
    assert read[0, 0] == 1.0
    assert read[0, 1] == np.float32(2 / 3)
    assert read[1, 0] == np.float32(1 / 3)
    assert read[2:].max() == 0.0


def test_a_little_endian_film_is_refused(tmp_path):
    values = np.arange(2048 * 2048).reshape(2048, 2048) % 4096
    path = film(tmp_path, values)
    path.write_bytes(values.astype("<u2").tobytes())
    with pytest.raises(UnreadableImage, match="beyond 12 bits"):
        read_image(path)


def test_a_raw_file_of_another_size_is_no_film(tmp_path):
    (tmp_path / "JPCLN001.IMG").write_bytes(bytes(2048 * 2046))
    with pytest.raises(UnreadableImage):
        read_image(tmp_path / "JPCLN001.IMG")


# MetaImages.


def test_a_metaimage_is_read_row_by_row(tmp_path):
    read = read_image(metaimage(tmp_path, BYTES))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, GREY, atol=1e-7)


def test_a_compressed_metaimage_is_the_same(tmp_path):
    read = read_image(metaimage(tmp_path, zlib.compress(BYTES), CompressedData="True"))
    np.testing.assert_allclose(read, GREY, atol=1e-7)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_in_either_byte_order_are_taken_as_12_where_they_fit(tmp_path, order):
    values = np.array([0, 819, 1638, 2457, 3276, 4095])
    path = metaimage(
        tmp_path,
        values.astype(f"{order}u2").tobytes(),
        ElementType="MET_USHORT",
        BinaryDataByteOrderMSB=str(order == ">"),
    )
    np.testing.assert_allclose(read_image(path), GREY, atol=1e-7)


def test_signed_pixels_without_negative_values_are_read(tmp_path):
    pixels = np.array([0, 819, 1638, 2457, 3276, 4095], "<i2").tobytes()
    path = metaimage(tmp_path, pixels, ElementType="MET_SHORT")
    np.testing.assert_allclose(read_image(path), GREY, atol=1e-7)


def test_one_slice_of_three_dimensions_is_a_picture(tmp_path):
    path = metaimage(tmp_path, BYTES, NDims="3", DimSize="3 2 1")
    np.testing.assert_allclose(read_image(path), GREY, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "pixels", "error", "reason"),
    [
        ({"ElementDataFile": "/etc/passwd"}, b"", UnsupportedPixels, "pixels in another file"),
        ({"ElementDataFile": "n0001.raw"}, b"", UnsupportedPixels, "pixels in another file"),
        ({"ElementType": "MET_FLOAT"}, BYTES * 4, UnsupportedPixels, "MET_FLOAT"),
        ({"ElementNumberOfChannels": "3"}, BYTES * 3, UnsupportedPixels, "several channels"),
        ({"NDims": "3", "DimSize": "3 2 2"}, BYTES * 2, UnsupportedPixels, "two dimensions"),
        ({"DimSize": "3"}, BYTES, UnreadableImage, "no usable DimSize"),
        ({"DimSize": "-3 2"}, BYTES, UnreadableImage, "no usable DimSize"),
        ({"DimSize": "0 2"}, b"", UnreadableImage, "claims 2 x 0 pixels"),
        ({"DimSize": "99999 99999"}, b"", UnreadableImage, "claims 99999 x 99999"),
        ({}, BYTES[:-1], UnreadableImage, "5 bytes of pixels instead of 6"),
        ({}, BYTES + b"\0", UnreadableImage, "7 bytes of pixels instead of 6"),
        ({"ElementDataFile": None}, BYTES, UnreadableImage, "damaged or cut off"),
        ({"CompressedData": "True"}, BYTES, UnreadableImage, "compressed pixels are damaged"),
        (
            {"CompressedData": "True"},
            zlib.compress(bytes(1 << 20)),
            UnreadableImage,
            "7 bytes of pixels instead of 6",
        ),
        (
            {"ElementType": "MET_SHORT"},
            np.array([-1, 0, 1, 2, 3, 4], "<i2").tobytes(),
            UnsupportedPixels,
            "negative",
        ),
    ],
)
def test_a_bad_metaimage_is_refused(tmp_path, changes, pixels, error, reason):
    with pytest.raises(error, match=reason):
        read_image(metaimage(tmp_path, pixels, **changes))


# GIF.


def test_a_gif_of_one_frame_is_read_and_a_moving_one_is_not(tmp_path):
    still = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    still.save(tmp_path / "mask.gif")
    assert read_image(tmp_path / "mask.gif").tolist() == [[0, 1], [1, 0]]
    other = Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8))
    still.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    with pytest.raises(UnsupportedPixels, match="several pages or frames"):
        read_image(tmp_path / "moving.gif")
