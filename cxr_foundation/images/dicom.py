"""A DICOM radiograph to float32 pixels in [0, 1], bone bright: PS3.3 C.7.6.3, C.11, C.8.11.3.

What is read is any single grey picture, whatever it shows: body part, view and modality are for
`images.guard` and the readers of data sets. Refused by name are several frames, localisers, raw
detector values and colour. Not interpreted: the display shutter (C.7.6.11) and the collimator
(C.8.7.3), so that what they hide stays visible; overlays in group 60xx (C.9.2); and presentation
states, which are files of their own (PS3.3 A.33).
"""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from cxr_foundation.images import lut
from cxr_foundation.images.codec import Layout, decode, read_layout
from cxr_foundation.images.header import Header, label, read_header
from cxr_foundation.images.source import MAX_BYTES, Pixels, check_size, to_grey

__all__ = ["Trust", "read_dicom"]

Trust: TypeAlias = Literal["photometric", "shape"]
"""Which of two elements is believed where they contradict each other about polarity."""

# PS3.4 B.5: storage classes whose pixels are raw detector values.
_FOR_PROCESSING = {
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "Digital Mammography X-Ray",
    "1.2.840.10008.5.1.4.1.1.1.3.1": "Digital Intra-Oral X-Ray",
}

# PS3.5 A.4.1: the two processes that always lose something.
_LOSSY = {JPEGBaseline8Bit, JPEGExtended12Bit}

# Rows that fit a core's cache while they are looked up.
_BLOCK = 64

# Below this the difference of a pixel's sides is a rounding of its spacing, not a shape.
_SQUARE = 0.01
# No detector, film scanner or binning has longer pixels.
_LONGEST_PIXEL = 10.0


def read_dicom(
    path: str | os.PathLike[str], data: bytes, *, voi: bool = True, trust: Trust | None = None
) -> Pixels:
    """Pixels of a DICOM file's bytes.

    Args:
        path: For messages.
        data: The whole file.
        voi: With the VOI LUT or window; without, modality values over the range that BitsStored
            gives them.
        trust: The element to believe where (0028,0004) and (2050,0020) contradict each other;
            without it such a file is refused.

    Returns:
        float32 (H, W) in [0, 1], pixels square, bone bright, padding black.

    Raises:
        UnreadableImage: Damaged, cut off, or of a size that no radiograph has.
        UnsupportedPixels: Pixels whose meaning would have to be guessed.
    """
    header = read_header(path, data, limit=MAX_BYTES // 2)
    if header.pixels is None:
        raise header.unsupported("has no picture: (7FE0,0010) PixelData is missing")
    _check_intent(header)
    layout = read_layout(header)
    inverted = _is_inverted(header, layout, trust)
    height = _pixel_height(header)
    check_size(path, round(layout.rows * max(height, 1)), round(layout.columns / min(height, 1)))
    raw = decode(header, layout)
    if layout.samples == 3:
        grey = to_grey(path, raw, 2**layout.stored - 1)
        pixels = Pixels(np.true_divide(grey, np.float32(2**layout.stored - 1), dtype=np.float32))
    elif layout.photometric == "PALETTE COLOR":
        colours = lut.palette(header, layout.values).astype(np.float32)
        pixels = Pixels(_look_up(to_grey(path, colours[:, None], 1.0)[:, 0], raw, layout))
    else:
        pixels = _grey(header, layout, raw, voi=voi, inverted=inverted)
    return _squared(pixels, height)._replace(lossy=_lossy(header), notes=pixels.notes)


def _grey(
    header: Header, layout: Layout, raw: npt.NDArray[Any], *, voi: bool, inverted: bool
) -> Pixels:
    """MONOCHROME1 and MONOCHROME2: modality, VOI, inversion, padding, in this order."""
    stage = lut.modality(header, layout.values)
    shown = lut.voi(header, stage) if voi else stage.unit
    if inverted:
        shown = 1.0 - shown
    notes = _sign_notes(header, layout, shown)
    padding = _padding(header, layout)
    if padding is not None:
        shown = np.where(padding, 0.0, shown)
    values = _whole_range(shown, raw, layout)
    if values is None:
        values = _look_up(shown.astype(np.float32), raw, layout)
    where = None if padding is None else _look_up(padding, raw, layout)
    return Pixels(values, where, notes=notes)


def _whole_range(
    shown: npt.NDArray[np.float64], raw: npt.NDArray[Any], layout: Layout
) -> npt.NDArray[np.float32] | None:
    """The pixels if they are just the range of BitsStored, either way up; None if they are not.

    Most radiographs are. One division gives what `_look_up` would, in half its time.
    """
    top = 2**layout.stored - 1
    line = np.arange(top + 1) / max(top, 1)
    rising, falling = (float(np.abs(shown - way).max()) < 1e-9 for way in (line, line[::-1]))
    if not (rising or falling) or layout.shift or int(raw.max()) > top:
        return None
    values: npt.NDArray[np.float32] = np.true_divide(
        raw if rising else top - raw, np.float32(top), dtype=np.float32
    )
    return values


def _look_up(table: npt.NDArray[Any], raw: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """`table`, one entry for each stored value, at every pixel.

    Overlays that old files keep in the bits above HighBit (0028,0102) are masked off on the way,
    and signs are extended from it: PS3.5 8.1.1.
    """
    patterns = np.arange(2 ** (8 * raw.dtype.itemsize))
    by_pattern = table[(patterns >> layout.shift) & (2**layout.stored - 1)]
    out = np.empty(raw.shape, dtype=table.dtype)
    for row in range(0, len(raw), _BLOCK):
        block = slice(row, row + _BLOCK)
        # mode="clip" writes into `out` without a buffer; no pattern is beyond the table.
        np.take(by_pattern, raw[block], out=out[block], mode="clip")
    return out


def _check_intent(header: Header) -> None:
    """Refuse what is no picture for a reader.

    (0008,0068) PresentationIntentType, PS3.3 C.8.11.1.1, and (0008,0016) SOPClassUID, PS3.4 B.5:
    FOR PROCESSING are raw detector values. (0008,0008) ImageType, PS3.3 C.7.6.1.1.2: its third
    value is LOCALIZER for the scout view of a cross-sectional study.
    """
    if header.string("PresentationIntentType") == "FOR PROCESSING":
        raise header.unsupported(
            f"{label('PresentationIntentType')} is FOR PROCESSING: raw detector values"
        )
    kind = _FOR_PROCESSING.get(header.string("SOPClassUID"))
    if kind is not None:
        raise header.unsupported(
            f"{label('SOPClassUID')} is {kind} Image Storage - For Processing: raw detector values"
        )
    if "LOCALIZER" in header.strings("ImageType")[2:3]:
        raise header.unsupported(
            f"{label('ImageType')} is LOCALIZER: the scout view of another study",
            "Leave it out: it is no radiograph.",
        )


def _is_inverted(header: Header, layout: Layout, trust: Trust | None) -> bool:
    """Whether the least value is white.

    (0028,0004) PhotometricInterpretation, PS3.3 C.7.6.3.1.2, and (2050,0020)
    PresentationLUTShape, PS3.3 C.8.11.3.1.2, which allows IDENTITY with MONOCHROME2 and INVERSE
    with MONOCHROME1 and so says the same thing twice. Viewers disagree about the other two pairs.

    Raises:
        UnsupportedPixels: A pair that the standard does not allow, unless told which to trust.
    """
    inverted = layout.photometric == "MONOCHROME1"
    shape = header.string("PresentationLUTShape")
    if not shape or trust == "photometric":
        return inverted
    if shape not in ("IDENTITY", "INVERSE"):
        raise header.unsupported(f"{label('PresentationLUTShape')} is none that is defined")
    if inverted != (shape == "INVERSE") and trust is None:
        raise header.unsupported(
            f"{label('PresentationLUTShape')} {shape} contradicts {layout.photometric}: "
            "the polarity is unknown",
            "Look at one picture of its source, then say which is right: "
            'trust="photometric" or trust="shape" (`--trust`).',
        )
    return shape == "INVERSE"


def _sign_notes(header: Header, layout: Layout, shown: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """What (0028,1041) PixelIntensityRelationshipSign says against the picture, if anything.

    PS3.3 C.8.11.3.1.2: 1 means that lower stored values are less X-ray, -1 that higher ones are.
    Bone lets less X-ray through and is shown bright. Vendors fill it in carelessly, so that it
    only ever leads to a note.
    """
    sign = header.integer("PixelIntensityRelationshipSign", signed=True)
    if sign not in (1, -1):
        return ()
    least, most = shown[np.argmin(layout.values)], shown[np.argmax(layout.values)]
    if least == most or (most > least) == (sign == -1):
        return ()
    return (
        f"{label('PixelIntensityRelationshipSign')} says that bone is dark here; the picture was "
        f"shown by {label('PhotometricInterpretation')}",
    )


def _lossy(header: Header) -> bool | None:
    """Whether the pixels went through lossy compression; None if the file does not say.

    (0028,2110) LossyImageCompression, PS3.3 C.7.6.1.1.5: once "01", always "01".
    """
    if header.syntax in _LOSSY:
        return True
    return {"00": False, "01": True}.get(header.string("LossyImageCompression"))


def _padding(header: Header, layout: Layout) -> npt.NDArray[np.bool_] | None:
    """Which stored values are padding: bool (2 ** BitsStored,), None if none are.

    (0028,0120) PixelPaddingValue, and all up to (0028,0121) PixelPaddingRangeLimit if there is
    one: PS3.3 C.7.5.1.1.2. Both are as signed as the pixels.
    """
    value = header.integer("PixelPaddingValue", signed=layout.signed)
    if value is None:
        return None
    limit = header.integer("PixelPaddingRangeLimit", signed=layout.signed)
    low, high = sorted((value, value if limit is None else limit))
    padding = (layout.values >= low) & (layout.values <= high)
    return padding if padding.any() else None


def _pixel_height(header: Header) -> float:
    """A pixel's height over its width.

    (0028,0030) PixelSpacing, (0018,1164) ImagerPixelSpacing and (0018,2010)
    NominalScannedPixelSpacing, row spacing first, PS3.3 10.7.1.3; (0028,0034) PixelAspectRatio,
    vertical first, PS3.3 C.7.6.3.1.7.

    Raises:
        UnsupportedPixels: Elements that contradict each other, or a shape that no pixel has.
    """
    names = "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"
    found: dict[str, float] = {}
    for name in names:
        pair = header.decimals(name)
        if not pair:
            continue
        high, wide = pair if len(pair) == 2 else (None, None)
        if high is None or wide is None or high <= 0 or wide <= 0:
            raise header.unsupported(f"{label(name)} is not two numbers above 0")
        found[name] = high / wide
    ratios = list(found.values()) or [1.0]
    if max(ratios) > min(ratios) * (1 + _SQUARE):
        raise header.unsupported(f"{' and '.join(label(n) for n in found)} contradict each other")
    if not 1 / _LONGEST_PIXEL <= ratios[0] <= _LONGEST_PIXEL:
        raise header.unsupported(f"{label(next(iter(found)))} is the shape of no pixel")
    return ratios[0] if abs(ratios[0] - 1) > _SQUARE else 1.0


def _squared(pixels: Pixels, height: float) -> Pixels:
    """The picture on square pixels: its coarser side is enlarged, so that nothing is lost."""
    if height == 1.0:
        return pixels
    rows, columns = pixels.values.shape
    size = (round(columns / min(height, 1.0)), round(rows * max(height, 1.0)))
    values = np.asarray(Image.fromarray(pixels.values).resize(size, Image.Resampling.BILINEAR))
    if pixels.padding is None:
        return Pixels(values)
    touched = Image.fromarray(pixels.padding.astype(np.float32))
    padding = np.asarray(touched.resize(size, Image.Resampling.BILINEAR)) > 0
    return Pixels(np.where(padding, np.float32(0), values), padding)
