"""PNG, JPEG and TIFF radiographs to float32 pixels in [0, 1]."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from cxr_foundation.errors import UnreadableImage, UnsupportedPixels
from cxr_foundation.images.source import LIBRARY_ERRORS, Pixels, check_size, quiet, to_grey

__all__ = ["grey_pixels", "read_colour", "read_picture"]

_PNG = b"\x89PNG\r\n\x1a\n"
# Modes of JPEG files → what simplejpeg calls them; it knows no others.
_STRICT = {"L": "GRAY", "RGB": "RGB"}
# Modes of pictures that may have colours.
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_FORMATS = ("PNG", "JPEG", "TIFF")
_ORIENTATION = 0x0112
_SAVE_AS_GREY = "Save it as an 8- or 16-bit grey picture."
_NOT_A_PICTURE = "Name a DICOM, PNG, JPEG or TIFF file."

# TIFF 6.0: tags of BitsPerSample, PhotometricInterpretation, SamplesPerPixel and SampleFormat.
_BITS, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339
_SIGNED = 2

_SIGNATURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


def read_picture(path: str | os.PathLike[str], data: bytes) -> Pixels:
    """Pixels of a PNG, JPEG or TIFF file's bytes; the format is told by content.

    8-bit values are taken over 255 and 16-bit ones over 65535, except that a 16-bit picture with
    nothing above 4095 is a 12-bit radiograph in a 16-bit file, taken over 4095. Floating-point
    TIFFs have to lie in [0, 1]. Alpha is dropped, EXIF orientation is applied, palettes and
    WhiteIsZero are resolved, grey-valued colour becomes grey.

    What damage is noticed depends on the format. PNG has checksums, which are all compared. JPEG
    has none: a file that is cut off anywhere is refused, damaged headers and tables too, and
    whatever libjpeg warns of within the compressed data; but a changed byte there may decode to
    other pixels without a warning. Compare files with the digests of their publisher where that
    matters.

    Raises:
        UnreadableImage: Not such a file, damaged, cut off, or of a size that no radiograph has.
        UnsupportedPixels: Several pages or frames, colour, or a range that is not known.
    """
    with _opened(path, data) as picture:
        if picture.format == "JPEG" and picture.mode in _STRICT:
            return Pixels(_strict_jpeg(path, data, picture))
        deep = _deep(path, data, picture)
        return Pixels(grey_pixels(path, picture) if deep is None else deep)


def read_colour(path: str | os.PathLike[str], data: bytes) -> npt.NDArray[np.float32]:
    """Red, green and blue of an 8-bit PNG, JPEG or TIFF file's bytes, natural pictures' own form.

    Rules and refusals are those of `read_picture`, except that colour is kept; grey pictures are
    read by it and repeated.

    Returns:
        float32 (H, W, 3) in [0, 1].

    Raises:
        UnreadableImage: See `read_picture`.
        UnsupportedPixels: Likewise, or colour of 16 bits.
    """
    with _opened(path, data) as picture:
        if picture.mode in _COLOUR:
            _check_samples(path, picture)
            tiles = getattr(picture, "tile", ())
            if any(";16" in str(tile[3]) for tile in tiles):
                raise UnsupportedPixels(path, "has 16-bit colour", "Save it with 8 bits.")
            if picture.format == "JPEG" and picture.mode == "RGB":
                colour = simplejpeg.decode_jpeg(data, "RGB", strict=True)
            else:
                colour = np.asarray(picture.convert("RGB"))
            turn = picture.getexif().get(_ORIENTATION, 1)
            return np.ascontiguousarray(_turned(_over(colour, 255), turn))
    grey = read_picture(path, data).values
    return np.repeat(grey[..., None], 3, axis=2)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], data: bytes) -> Iterator[Image.Image]:
    """A picture of one page; what libraries raise within becomes an error of the package."""
    if data.startswith(_PNG):
        _check_png(path, data)
    try:
        # The masks of the SCR database are GIF; radiographs never are, so it takes the suffix.
        formats = ("GIF",) if Path(path).suffix.lower() == ".gif" else _FORMATS
        with quiet, Image.open(io.BytesIO(data), formats=formats) as picture:
            check_size(path, picture.height, picture.width, len(picture.getbands()))
            if getattr(picture, "n_frames", 1) != 1:
                raise UnsupportedPixels(
                    path, "has several pages or frames", "Export one page by itself."
                )
            yield picture
    except UnidentifiedImageError:
        for signature, kind in _SIGNATURES.items():
            if data.startswith(signature):
                reason = f"is a {kind} file of a rare kind, or damaged"
                raise UnreadableImage(path, reason, _SAVE_AS_GREY) from None
        raise UnreadableImage(
            path, "is neither a DICOM nor a PNG, JPEG or TIFF file", _NOT_A_PICTURE
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(path, "claims more pixels than any radiograph has") from None
    except LIBRARY_ERRORS:
        # The libraries' texts quote metadata; that the file is damaged is all there is to say.
        raise UnreadableImage(path, "the picture is damaged or cut off") from None


def _strict_jpeg(
    path: str | os.PathLike[str], data: bytes, picture: Image.Image
) -> npt.NDArray[np.float32]:
    """Pixels of a JPEG by the same library that Pillow uses, whose warnings Pillow keeps back.

    Raises:
        ValueError: The library warns of the compressed data.
    """
    values = simplejpeg.decode_jpeg(data, _STRICT[picture.mode], strict=True)
    grey = values[..., 0] if picture.mode == "L" else to_grey(path, values, 255)
    turn = picture.getexif().get(_ORIENTATION, 1)
    return np.ascontiguousarray(_turned(_over(grey, 255), turn))


def grey_pixels(path: str | os.PathLike[str], picture: Image.Image) -> npt.NDArray[np.float32]:
    """A Pillow image as float32 (H, W) in [0, 1]; rules as for `read_picture`.

    Raises:
        UnsupportedPixels: Colour, or a range that is not known.
    """
    _check_samples(path, picture)
    picture.load()
    # Read after load(): Pillow has then turned a TIFF itself and dropped its tag.
    turn = picture.getexif().get(_ORIENTATION, 1)
    return np.ascontiguousarray(_turned(_upright_values(path, picture), turn))


def _upright_values(path: str | os.PathLike[str], picture: Image.Image) -> npt.NDArray[np.float32]:
    tags: Any = getattr(picture, "tag_v2", {})
    if picture.mode in ("1", "L", "LA"):
        grey = picture if picture.mode == "L" else picture.convert("L")
        return _over(np.asarray(grey), 255)
    if picture.mode in _COLOUR:
        colour = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
        return _over(to_grey(path, colour, 255), 255)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        values = np.asarray(picture)
        if int(values.max()) > 65535 or int(values.min()) < 0:
            raise UnsupportedPixels(path, "has values beyond 16 bits")
        # Radiographs of 12-bit detectors are mostly kept so, and no 16-bit one is that dark.
        top = 4095 if int(values.max()) <= 4095 else 65535
        bits = tags.get(_BITS, (16,))
        top = top if bits in ((16,), 16) else 2 ** int(np.max(bits)) - 1
        # TIFF 6.0, PhotometricInterpretation 0: Pillow turns WhiteIsZero only up to 8 bits.
        return _over(top - values if tags.get(_PHOTOMETRIC) == 0 else values, top)
    if picture.mode == "F" and tags.get(_SAMPLE_FORMAT, (3,)) in ((3,), 3):
        return unit_range(path, np.asarray(picture))
    raise UnsupportedPixels(path, "has pixels whose range is not known", _SAVE_AS_GREY)


def unit_range(path: str | os.PathLike[str], values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Floating-point pixels, which are taken as they are if they lie in [0, 1]: float32.

    Raises:
        UnsupportedPixels: A value outside, or one that is not a number.
    """
    # Written so that a NaN fails it as well.
    if not (values.size and float(values.min()) >= 0.0 and float(values.max()) <= 1.0):
        raise UnsupportedPixels(
            path,
            "has floating-point pixels outside [0, 1]",
            "Scale them to [0, 1], bone bright, or use 8- or 16-bit integers.",
        )
    return values.astype(np.float32)


def _over(values: npt.NDArray[Any], top: int) -> npt.NDArray[np.float32]:
    """Values over the full range 0 to `top`, in one pass."""
    scaled: npt.NDArray[np.float32] = np.true_divide(values, np.float32(top), dtype=np.float32)
    return scaled


def _turned(values: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """EXIF 2.32, 4.6.4 A, tag Orientation: where the stored first row and column belong."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _check_samples(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Refuse TIFFs that Pillow takes for something else: TIFF 6.0, sections 6 and 19.

    Of 16-bit colour it keeps the upper bytes, or both as pixels of their own where the colours
    are stored apart; signed 8-bit values it takes as they are.

    Raises:
        UnsupportedPixels: 16-bit colour, or signed values.
    """
    tags: Any = getattr(picture, "tag_v2", {})
    if np.max(tags.get(_BITS, 1)) > 8 and tags.get(_SAMPLES, 1) > 1:
        raise UnsupportedPixels(path, "has 16-bit colour", _SAVE_AS_GREY)
    if _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        raise UnsupportedPixels(path, "has pixels whose range is not known", _SAVE_AS_GREY)


def _deep(
    path: str | os.PathLike[str], data: bytes, picture: Image.Image
) -> npt.NDArray[np.float32] | None:
    """Grey of 16-bit PNGs with alpha or colour, None for all other pictures.

    Pillow unpacks only the upper byte of their samples; its unpacker for the other byte order
    gives the lower one, and grey with alpha has the size of an 8-bit RGBA pixel.
    """
    if picture.format != "PNG" or not isinstance(picture, ImageFile.ImageFile):
        return None
    rawmodes = {str(tile[3]) for tile in picture.tile}
    if not any(mode[:2] in ("RG", "LA") and ";16" in mode for mode in rawmodes):
        return None
    rawmode = rawmodes.pop()
    with Image.open(io.BytesIO(data), formats=("PNG",)) as lower:
        other = "RGBA" if rawmode == "LA;16B" else rawmode.replace("16B", "16L")
        lower.tile = [tile._replace(args=other) for tile in lower.tile]
        low = np.asarray(lower).astype(np.uint16)
    if other == "RGBA":
        values = low[..., 0] << 8 | low[..., 1]
    else:
        colour = np.asarray(picture).astype(np.uint16) << 8 | low
        values = to_grey(path, colour[..., :3], 65535)
    turn = picture.getexif().get(_ORIENTATION, 1)
    return np.ascontiguousarray(_turned(_over(values, 65535), turn))


def _check_png(path: str | os.PathLike[str], data: bytes) -> None:
    """Each chunk's length and checksum, which Pillow leaves out for pixels: PNG 5.3.

    And that indices have a palette (PNG 11.2.3), without which Pillow gives them out as grey.

    Raises:
        UnreadableImage: Damaged or cut off, or a claimed size that no radiograph has.
    """
    at, view, indexed, palette = len(_PNG), memoryview(data), False, False
    while True:
        if at + 12 > len(data):
            raise UnreadableImage(path, "the PNG file is cut off")
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + length
        if stop > len(data):
            raise UnreadableImage(path, "the PNG file is cut off")
        if zlib.crc32(view[at + 4 : stop - 4]) != struct.unpack_from(">I", data, stop - 4)[0]:
            raise UnreadableImage(path, "the PNG file is damaged: a checksum is wrong")
        if kind == b"IHDR" and length == 13:
            width, height = struct.unpack_from(">II", data, at + 8)
            check_size(path, height, width)
            indexed = data[at + 17] == 3
        palette = palette or (kind == b"PLTE" and length > 0)
        if kind == b"IDAT" and indexed and not palette:
            raise UnreadableImage(path, "the PNG file is damaged: it has no palette")
        if kind == b"IEND":
            return
        at = stop
