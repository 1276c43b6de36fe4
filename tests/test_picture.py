"""PNG, JPEG and TIFF to pixels, with values that are known beforehand."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images import read_image

# The same 2 x 3 picture in 8 and in 16 bits: 0, .2, .4, .6, .8, 1.
EIGHT = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
SIXTEEN = EIGHT.astype(np.uint16) * 257
VALUES = np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]])


def save(path, picture, **options):
    picture.save(path, **options)
    return path


def png(path, *, colour_type, depth, rows, chunks=b""):
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = rows.shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    order = ">u2" if depth == 16 else "u1"
    lines = b"".join(b"\0" + row.astype(order).tobytes() for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks
        + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


def tiff(path, planes, *, order="<", photometric=1, sample_format=1):
    """An uncompressed TIFF written by hand, TIFF 6.0 section 2, for what Pillow does not write.

    Several planes are several samples, each stored apart.
    """
    height, width = planes[0].shape
    code = {"<": b"II*\0", ">": b"MM\0*"}[order]
    strips = [p.astype(p.dtype.newbyteorder(order)).tobytes() for p in planes]
    count, bits = len(planes), planes[0].dtype.itemsize * 8
    values = {
        256: [width],
        257: [height],
        258: [bits] * count,
        262: [photometric],
        273: [0] * count,
        277: [count],
        279: [len(s) for s in strips],
        284: [1 if count == 1 else 2],
        339: [sample_format] * count,
    }
    # Every value fits a LONG; those that do not fit an entry follow the entries.
    after = 8 + 2 + 12 * len(values) + 4
    extra = sum(4 * len(v) for v in values.values() if len(v) > 1)
    values[273] = [after + extra + sum(len(s) for s in strips[:n]) for n in range(count)]
    entries = tail = b""
    for tag, numbers in values.items():
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        at = struct.pack(f"{order}I", after + len(tail))
        tail += packed if len(numbers) > 1 else b""
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        entries += at if len(numbers) > 1 else packed
    head = struct.pack(f"{order}IH", 8, len(values))
    path.write_bytes(code + head + entries + bytes(4) + tail + b"".join(strips))
    return path


def check(path, expected=VALUES):
    pixels = read_image(path)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 1e-7


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bit_grey_is_over_255(tmp_path, suffix):
    check(save(tmp_path / f"a.{suffix}", Image.fromarray(EIGHT)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_over_65535(tmp_path, suffix):
    check(save(tmp_path / f"a.{suffix}", Image.fromarray(SIXTEEN)))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_of_tiff_are_read(tmp_path, order):
    check(tiff(tmp_path / "a.tif", [SIXTEEN], order=order))


def test_four_bit_grey_is_over_15(tmp_path):
    # PNG 7.2: two pixels in a byte, 0 3 6 and 9 12 15.
    rows = np.array([[[0x03], [0x60]], [[0x9C], [0xF0]]], np.uint8)
    path = png(tmp_path / "a.png", colour_type=0, depth=4, rows=rows)
    data = path.read_bytes()
    header = struct.pack(">IIBBBBB", 3, 2, 4, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(data[:16] + header + crc + data[33:])
    check(path)


def test_twelve_bit_values_in_a_sixteen_bit_file_are_over_4095(tmp_path):
    twelve = np.array([[0, 819, 1638], [2457, 3276, 4095]], np.uint16)
    check(save(tmp_path / "a.png", Image.fromarray(twelve)))


def test_one_bit_is_black_and_white(tmp_path):
    bits = Image.fromarray(EIGHT > 127)
    check(save(tmp_path / "a.png", bits), np.array([[0.0, 0, 0], [1, 1, 1]]))


def test_a_jpeg_is_decoded_to_grey(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("L", (16, 8), 51), quality=95)
    check(path, np.full((8, 16), 0.2))


def test_the_name_says_nothing_about_the_format(tmp_path):
    path = save(tmp_path / "a.png", Image.new("L", (16, 8), 51), format="JPEG", quality=95)
    check(path, np.full((8, 16), 0.2))


def test_a_palette_is_looked_up(tmp_path):
    picture = Image.fromarray(255 - EIGHT).convert("P")
    picture.putpalette([v for i in range(256) for v in [255 - i] * 3])
    check(save(tmp_path / "a.png", picture))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(tmp_path, mode):
    picture = Image.fromarray(EIGHT).convert(mode)
    picture.putalpha(0)
    check(save(tmp_path / "a.png", picture))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, "LLL"), (4, "LA"), (6, "LLLA")])
def test_sixteen_bit_pngs_keep_both_bytes_with_colour_and_alpha(tmp_path, colour_type, channels):
    grey = np.array([[1, 256, 4097], [30001, 65534, 65535]], np.uint16)
    planes = {"L": grey, "A": np.full_like(grey, 258)}
    rows = np.stack([planes[c] for c in channels], -1)
    path = png(tmp_path / "a.png", colour_type=colour_type, depth=16, rows=rows)
    check(path, grey / 65535)


def test_grey_valued_colour_is_grey(tmp_path):
    check(save(tmp_path / "a.png", Image.fromarray(EIGHT).convert("RGB")))


def test_cmyk_is_not_inverted(tmp_path):
    picture = Image.new("L", (16, 16), 51).convert("CMYK")
    pixels = read_image(save(tmp_path / "a.jpg", picture, quality=95))
    assert pixels == pytest.approx(0.2, abs=0.01)


def test_a_coloured_marker_is_read_by_its_luma(tmp_path):
    colour = np.full((100, 100, 3), 128, np.uint8)
    colour[0, :50] = 255, 0, 0
    pixels = read_image(save(tmp_path / "a.png", Image.fromarray(colour)))
    # ITU-R BT.601: red weighs .299.
    assert pixels[0, :50] == pytest.approx(0.299, abs=1e-6)
    assert np.abs(pixels[1:] - 128 / 255).max() <= 1e-6


def test_a_colour_picture_is_refused(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGB", (8, 8), (200, 40, 40)))
    with pytest.raises(UnsupportedPixels, match="is a colour picture, not a radiograph"):
        read_image(path)


# EXIF 2.32, 4.6.4: which stored picture shows VALUES under each orientation.
STORED = {
    1: EIGHT,
    2: EIGHT[:, ::-1],
    3: EIGHT[::-1, ::-1],
    4: EIGHT[::-1],
    5: EIGHT.T,
    6: np.rot90(EIGHT, 1),
    7: EIGHT[::-1, ::-1].T,
    8: np.rot90(EIGHT, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_applied_once(tmp_path, suffix, orientation):
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    check(save(tmp_path / f"a.{suffix}", picture, exif=exif))


def test_exif_orientation_of_a_jpeg_is_applied(tmp_path):
    quarters = np.kron(np.array([[0, 51], [204, 255]], np.uint8), np.ones((16, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(quarters, 1)))
    check(save(tmp_path / "a.jpg", turned, exif=exif, quality=100), quarters / 255)


def test_white_is_zero_tiffs_are_turned(tmp_path):
    for name, pixels in (("8", 255 - EIGHT), ("16", 65535 - SIXTEEN)):
        path = save(tmp_path / f"{name}.tif", Image.fromarray(pixels))
        # TIFF 6.0: entry 262, SHORT, one value: 1 is BlackIsZero, 0 is WhiteIsZero.
        entry = struct.pack("<HHI", 262, 3, 1)
        data = path.read_bytes()
        assert data.count(entry + b"\1\0") == 1
        path.write_bytes(data.replace(entry + b"\1\0", entry + b"\0\0"))
        check(path)


def test_floating_point_tiffs_are_taken_as_they_are_within_0_and_1(tmp_path):
    check(save(tmp_path / "a.tif", Image.fromarray(VALUES.astype(np.float32))))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, 255.0])
def test_floating_point_outside_0_and_1_is_refused(tmp_path, value):
    pixels = VALUES.astype(np.float32)
    pixels[1, 1] = value
    path = save(tmp_path / "a.tif", Image.fromarray(pixels))
    with pytest.raises(UnsupportedPixels, match=r"has floating-point pixels outside \[0, 1\]"):
        read_image(path)


def test_thirty_two_bit_integers_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", Image.fromarray(EIGHT.astype(np.int32)))
    with pytest.raises(UnsupportedPixels, match="has pixels whose range is not known"):
        read_image(path)


def test_sixteen_bit_colour_tiffs_are_refused_though_they_are_grey(tmp_path):
    # Pillow keeps their upper bytes only, and of planes takes both bytes as pixels.
    path = tiff(tmp_path / "a.tif", [SIXTEEN] * 3, photometric=2)
    with pytest.raises(UnsupportedPixels, match="has 16-bit colour"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_tiffs_are_refused(tmp_path, dtype):
    path = tiff(tmp_path / "a.tif", [(EIGHT // 2).astype(dtype)], sample_format=2)
    with pytest.raises(UnsupportedPixels, match="has pixels whose range is not known"):
        read_image(path)


def test_a_tiff_that_pillow_does_not_know_is_not_called_something_else(tmp_path):
    path = tiff(tmp_path / "a.tif", [VALUES], sample_format=3)
    with pytest.raises(UnreadableImage, match="is a TIFF file of a rare kind, or damaged"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_pages_or_frames_are_refused(tmp_path, suffix):
    pages = [Image.fromarray(EIGHT), Image.fromarray(255 - EIGHT)]
    path = save(tmp_path / f"a.{suffix}", pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(UnsupportedPixels, match="has several pages or frames"):
        read_image(path)


def test_a_wrong_checksum_is_seen(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(EIGHT))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="the PNG file is damaged: a checksum is wrong"):
        read_image(path)


@pytest.fixture
def jpeg(tmp_path):
    """A JPEG whose compressed data are from byte 300 on, and its bytes."""
    ramp = np.add.outer(np.arange(64), np.arange(48)) * 2
    path = save(tmp_path / "a.jpg", Image.fromarray(ramp.astype(np.uint8)), quality=95)
    content = path.read_bytes()
    assert content.index(b"\xff\xda") < 340 < len(content) - 200
    return path, content


def test_a_jpeg_that_is_cut_off_anywhere_is_refused(jpeg):
    path, content = jpeg
    for left in range(340, len(content)):
        path.write_bytes(content[:left])
        with pytest.raises(UnreadableImage, match="the picture is damaged or cut off"):
            read_image(path)


def test_bytes_that_are_missing_within_a_jpegs_compressed_data_are_noticed(jpeg):
    path, content = jpeg
    middle = (340 + len(content)) // 2
    path.write_bytes(content[:middle] + content[middle + 16 :])
    with pytest.raises(UnreadableImage, match="the picture is damaged or cut off"):
        read_image(path)


def test_a_changed_byte_that_libjpeg_does_not_warn_of_is_not_noticed(jpeg):
    # Not a promise: what the reader's docstring says that it cannot do. JPEG has no checksum.
    path, content = jpeg
    before = read_image(path)
    unnoticed = 0
    for place in range(340, len(content) - 2, 7):
        path.write_bytes(content[:place] + b"\x55" + content[place + 1 :])
        with contextlib.suppress(UnreadableImage):
            unnoticed += not np.array_equal(read_image(path), before)
    assert unnoticed > 0


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(tmp_path, mode, progressive):
    noise = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).convert(mode).save(path, quality=90, progressive=progressive)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("L")) / np.float32(255)
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_cut_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(UnreadableImage, match=r"cut off"):
        read_image(path)


def test_a_claimed_size_is_refused_before_memory_is_taken(tmp_path):
    path = png(tmp_path / "a.png", colour_type=0, depth=8, rows=np.zeros((1, 20000, 1)))
    with pytest.raises(UnreadableImage, match="claims 1 x 20000 pixels; at most 16384 a side"):
        read_image(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_text("<html>"), "is neither a DICOM nor a PNG, JPEG or TIFF file"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: None, "no such file"),
        (lambda p: p.symlink_to(p), "cannot be opened"),
        (lambda p: Image.fromarray(EIGHT).save(p, "GIF"), "is neither a DICOM nor a PNG"),
    ],
    ids=["empty", "text", "folder", "absent", "loop", "gif"],
)
def test_what_is_no_picture_is_said(tmp_path, make, sentence):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(UnreadableImage, match=sentence) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ")


def test_text_in_the_file_is_not_quoted(tmp_path, recwarn):
    exif = Image.Exif()
    exif[0x010E] = "SECRET^NAME"
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "TIFF", exif=exif)
    data = buffer.getvalue()
    texts = []
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        (tmp_path / "a.tif").write_bytes(broken)
        try:
            read_image(tmp_path / "a.tif")
        except (UnreadableImage, UnsupportedPixels) as error:
            texts.append(str(error))
    assert len(texts) > 5
    assert "SECRET" not in " ".join(texts)
    assert len(recwarn) == 0
