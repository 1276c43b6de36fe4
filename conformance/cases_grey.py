"""From stored values to what is shown: bits, photometrics, look-up tables, padding, shape.

Oracles are closed forms in float64, written beside the header that they belong to. Section numbers
are of PS3.3 unless another part is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from case import PADDING, SQUARE, UNIT, Case, X, clip, header, lut, twelve, words
from drawn import BIG, IMPLICIT, Value, file
from pictures import COLUMNS, ROWS, ramp

__all__ = ["GROUPS"]


def _bits() -> Iterator[Case]:
    group, section = "Bits and signs", "C.7.6.3.1, PS3.5 8.1.1"
    for allocated, kinds in ((8, (8,)), (16, range(8, 17)), (32, (8, 12, 16))):
        for bits in kinds:
            picture = ramp(bits)
            elements = {**header(bits, allocated=allocated), "PixelData": words(picture, allocated)}
            name = f"{bits} bits stored in {allocated}"
            yield Case(group, name, section, file(elements), picture / (2**bits - 1))
    for allocated, bits in ((8, 8), (16, 10), (16, 12), (16, 16), (32, 12)):
        picture = ramp(bits).astype(np.int64) - 2 ** (bits - 1)
        shown = ramp(bits) / (2**bits - 1)
        signed = header(bits, allocated=allocated, signed=True)
        elements = {**signed, "PixelData": words(picture, allocated)}
        yield Case(group, f"signed, {bits} in {allocated}", section, file(elements), shown)
        if bits < allocated:
            elements["PixelData"] = words(picture & (2**bits - 1), allocated)
            name = f"signed, {bits} in {allocated}, sign not extended"
            yield Case(group, name, section, file(elements), shown)
    overlay = ramp(12) | (np.indices((ROWS, COLUMNS)).sum(0) * 7 % 16 << 12)
    section = "PS3.5 8.1.1"
    yield Case(group, "old overlay above BitsStored", section,
               file(twelve(PixelData=words(overlay))), UNIT)  # fmt: skip
    yield Case(group, "high bit 15 of 12 bits", section,
               file(twelve(PixelData=words(ramp(12) << 4), HighBit=15)), UNIT)  # fmt: skip
    yield Case(group, "high bit 15 of 12 bits, junk below", section,
               file(twelve(PixelData=words(ramp(12) << 4 | 9), HighBit=15)), UNIT)  # fmt: skip


def _photometric() -> Iterator[Case]:
    group, section = "Photometric interpretation", "C.7.6.3.1.2"
    one = {"PhotometricInterpretation": "MONOCHROME1"}
    yield Case(group, "MONOCHROME1", section, file(twelve(**one)), 1 - UNIT)
    signed = {**header(signed=True), **one, "PixelData": words(ramp(12).astype(int) - 2048)}
    yield Case(group, "MONOCHROME1, signed", section, file(signed), 1 - UNIT)
    half = {**one, "PixelData": words(ramp(12) // 2)}
    yield Case(group, "MONOCHROME1 that does not reach its range", section,
               file(twelve(**half)), 1 - ramp(12) // 2 / 4095)  # fmt: skip
    grey = ramp(8)
    eight = header(8, allocated=8)
    shown = grey / 255
    rgb = {**eight, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    for planar, axis in ((0, -1), (1, 0)):
        pixels = words(np.stack([grey] * 3, axis), 8)
        elements = {**rgb, "PlanarConfiguration": planar, "PixelData": pixels}
        yield Case(group, f"grey as RGB, planar {planar}", section, file(elements), shown)
    full = np.full_like(grey, 128)
    elements = {**rgb, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0,
                "PixelData": words(np.stack([grey, full, full], -1), 8)}  # fmt: skip
    yield Case(group, "grey as YBR_FULL", section, file(elements), shown, 1 / 255)
    pairs = grey.reshape(ROWS, -1, 2)
    half_chroma = np.concatenate([pairs, np.full_like(pairs, 128)], -1)
    elements = {**elements, "PhotometricInterpretation": "YBR_FULL_422",
                "PixelData": words(half_chroma, 8)}  # fmt: skip
    yield Case(group, "grey as YBR_FULL_422", section, file(elements), shown, 1 / 255)
    section = "C.7.6.3.1.5"
    yield Case(group, "palette that inverts", section,
               file(_palette(grey, np.arange(256)[::-1] * 257, 0, 16)), 1 - shown)  # fmt: skip
    yield Case(group, "palette of 100 entries from 50 on", section,
               file(_palette(grey, np.arange(100) * 600, 50, 16)),
               np.clip(grey.astype(int) - 50, 0, 99) * 600 / 65535)  # fmt: skip
    yield Case(group, "palette of 8 bits", section,
               file(_palette(grey, np.arange(256)[::-1], 0, 8)), 1 - shown)  # fmt: skip


def _palette(pixels: npt.NDArray[Any], entries: npt.NDArray[Any], first: int, bits: int) -> Any:
    found: dict[str, Value] = {**header(8, allocated=8), "PixelData": words(pixels, 8)}
    found["PhotometricInterpretation"] = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        prefix = f"{colour}PaletteColorLookupTable"
        found[f"{prefix}Descriptor"] = (len(entries), first, bits)
        found[f"{prefix}Data"] = entries.astype("<u2").tobytes()
    return found


def _modality() -> Iterator[Case]:
    group, section = "Modality: line and table", "C.11.1"
    for slope, intercept, shown in (
        ("0.5", "-1024", UNIT), ("-1", "4095", 1 - UNIT), ("-0.25", "0", 1 - UNIT),
        ("1.6103515", "-3.5", UNIT),
    ):  # fmt: skip
        elements = twelve(RescaleSlope=slope, RescaleIntercept=intercept)
        yield Case(group, f"slope {slope}, no window", section, file(elements), shown)
    elements = twelve(RescaleSlope="0.5", RescaleIntercept="-1024", WindowCenter="0",
                      WindowWidth="1024", VOILUTFunction="LINEAR_EXACT")  # fmt: skip
    shown = clip((0.5 * X - 1024) / 1024 + 0.5)
    yield Case(group, "the window is in rescaled units", section, file(elements), shown)
    elements = {**elements, "RescaleSlope": "-0.5", "RescaleIntercept": "1024"}
    shown = clip((1024 - 0.5 * X) / 1024 + 0.5)
    yield Case(group, "a falling line, then a window", section, file(elements), shown)
    elements = {**elements, "PhotometricInterpretation": "MONOCHROME1"}
    yield Case(group, "a falling line, a window, MONOCHROME1", section, file(elements), 1 - shown)
    curve = np.rint(np.sqrt(np.arange(4096) / 4095) * 65535)
    bent = curve[ramp(12)] / 65535
    yield Case(group, "a table of 16 bits", "C.11.1.1.1",
               file(twelve(ModalityLUTSequence=lut(curve, 0, 16))), bent)  # fmt: skip
    packed = lut(curve // 256, 0, 8, packed=True)
    yield Case(group, "a table of 8 bits", "C.11.1.1.1",
               file(twelve(ModalityLUTSequence=packed)), curve[ramp(12)] // 256 / 255)  # fmt: skip
    part = np.arange(1000) * 60
    yield Case(group, "a table that begins at 500", "C.11.1.1.1",
               file(twelve(ModalityLUTSequence=lut(part, 500, 16))),
               np.clip(X - 500, 0, 999) * 60 / 65535)  # fmt: skip
    signed = {**header(16, signed=True), "PixelData": words(ramp(12).astype(int) - 2048)}
    signed["ModalityLUTSequence"] = lut(np.arange(2000) * 30, -1000, 16)
    yield Case(group, "a table that begins below zero", "C.11.1.1.1", file(signed),
               np.clip(X - 1048, 0, 1999) * 30 / 65535)  # fmt: skip
    sixteen = {**header(16), "PixelData": words(ramp(16))}
    sixteen["ModalityLUTSequence"] = lut(np.arange(65536)[::-1], 0, 16)
    yield Case(group, "a table of 65,536 entries", "C.11.1.1.1", file(sixteen),
               1 - ramp(16) / 65535)  # fmt: skip
    elements = twelve(ModalityLUTSequence=lut(curve, 0, 16), WindowCenter="32768",
                      WindowWidth="32768", VOILUTFunction="LINEAR_EXACT")  # fmt: skip
    yield Case(group, "a window after a table", "C.11.1.1.1", file(elements),
               clip((curve[ramp(12)] - 32768) / 32768 + 0.5))  # fmt: skip


def _window() -> Iterator[Case]:
    group, section = "VOI: windows", "C.11.2.1.2"
    linear = {"WindowCenter": "1500", "WindowWidth": "1001"}
    shown = clip((X - 1499.5) / 1000 + 0.5)
    yield Case(group, "LINEAR", section, file(twelve(**linear)), shown)
    named = {**linear, "VOILUTFunction": "LINEAR"}
    yield Case(group, "LINEAR by name", section, file(twelve(**named)), shown)
    inverse = {**linear, "PhotometricInterpretation": "MONOCHROME1"}
    yield Case(group, "LINEAR, MONOCHROME1", section, file(twelve(**inverse)), 1 - shown)
    several = {"WindowCenter": "1500\\2048", "WindowWidth": "1001\\4096"}
    yield Case(group, "the first of two", section, file(twelve(**several)), shown)
    small = {"WindowCenter": "12.5", "WindowWidth": "5"}
    sixteen = {**header(16), **small, "PixelData": words(ramp(12) // 100)}
    yield Case(group, "LINEAR, five values wide", section, file(sixteen),
               clip((X // 100 - 12) / 4 + 0.5))  # fmt: skip
    step = {"WindowCenter": "2000.5", "WindowWidth": "1"}
    yield Case(group, "LINEAR, one value wide", section, file(twelve(**step)),
               (X > 2000).astype(float))  # fmt: skip
    exact = {"WindowCenter": "2048", "WindowWidth": "2048", "VOILUTFunction": "LINEAR_EXACT"}
    yield Case(group, "LINEAR_EXACT", "C.11.2.1.3.2", file(twelve(**exact)),
               clip((X - 2048) / 2048 + 0.5))  # fmt: skip
    sigmoid = {"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "SIGMOID"}
    curve = 1 / (1 + np.exp(-4 * (X - 2000) / 1000))
    yield Case(group, "SIGMOID", "C.11.2.1.3.1", file(twelve(**sigmoid)), curve)
    sigmoid["PhotometricInterpretation"] = "MONOCHROME1"
    yield Case(group, "SIGMOID, MONOCHROME1", "C.11.2.1.3.1", file(twelve(**sigmoid)), 1 - curve)
    beyond = {"WindowCenter": "3000", "WindowWidth": "4001"}
    yield Case(group, "a window that reaches beyond the values", section, file(twelve(**beyond)),
               clip((X - 2999.5) / 4000 + 0.5))  # fmt: skip
    signed = {**header(signed=True), **{"WindowCenter": "0", "WindowWidth": "1001"},
              "PixelData": words(ramp(12).astype(int) - 2048)}  # fmt: skip
    yield Case(group, "of signed values", section, file(signed),
               clip((X - 2048 + 0.5) / 1000 + 0.5))  # fmt: skip


def _table() -> Iterator[Case]:
    group, section = "VOI: tables", "C.11.2.1.1"
    for bits in (10, 12, 16):
        curve = np.rint((np.arange(4096) / 4095) ** 2 * (2**bits - 1))
        elements = twelve(VOILUTSequence=lut(curve, 0, bits))
        yield Case(group, f"of {bits} bits", section, file(elements),
                   curve[ramp(12)] / (2**bits - 1))  # fmt: skip
    curve = np.rint((np.arange(4096) / 4095) ** 2 * 1023)
    bent = curve[ramp(12)] / 1023
    window = {"WindowCenter": "100", "WindowWidth": "50", "VOILUTSequence": lut(curve, 0, 10)}
    yield Case(group, "a table and a window: the table", "C.11.2.1", file(twelve(**window)), bent)
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "VOILUTSequence": lut(curve, 0, 10)}
    yield Case(group, "MONOCHROME1 over the bits of the table", section,
               file(twelve(**inverse)), 1 - bent)  # fmt: skip
    two = {"VOILUTSequence": lut(curve, 0, 10) + lut(curve[::-1], 0, 10)}
    yield Case(group, "the first of two", "C.11.2.1", file(twelve(**two)), bent)
    short = {"VOILUTSequence": lut(np.arange(1000) * 65, 1200, 16)}
    yield Case(group, "shorter than the values", section, file(twelve(**short)),
               np.clip(X - 1200, 0, 999) * 65 / 65535)  # fmt: skip
    low = {"VOILUTSequence": lut(np.arange(1000) // 4 + 5, 1200, 12),
           "PhotometricInterpretation": "MONOCHROME1"}  # fmt: skip
    yield Case(group, "that does not use its bits, MONOCHROME1", section, file(twelve(**low)),
               1 - (np.clip(X - 1200, 0, 999) // 4 + 5) / 4095)  # fmt: skip
    wide = {"VOILUTSequence": lut(curve // 4, 0, 8)}
    yield Case(group, "8-bit entries, one in a word", "C.11.1.1.1, note", file(twelve(**wide)),
               curve[ramp(12)] // 4 / 255)  # fmt: skip
    packed = {"VOILUTSequence": lut(curve // 4, 0, 8, packed=True)}
    yield Case(group, "8-bit entries, two in a word", section, file(twelve(**packed)),
               curve[ramp(12)] // 4 / 255)  # fmt: skip
    sixteen = {**header(16), "PixelData": words(ramp(16))}
    sixteen["VOILUTSequence"] = lut(np.arange(65536)[::-1], 0, 16)
    yield Case(group, "of 65,536 entries", section, file(sixteen), 1 - ramp(16) / 65535)
    below = {"RescaleSlope": "1", "RescaleIntercept": "-1024",
             "VOILUTSequence": lut(np.arange(2000) * 30, -1024, 16)}  # fmt: skip
    yield Case(group, "below zero after a rescale", section, file(twelve(**below)),
               np.clip(X, 0, 1999) * 30 / 65535)  # fmt: skip
    after = {"ModalityLUTSequence": lut(4095 - np.arange(4096), 0, 16),
             "VOILUTSequence": lut(curve, 0, 10)}  # fmt: skip
    yield Case(group, "after a modality table", section, file(twelve(**after)),
               curve[4095 - ramp(12)] / 1023)  # fmt: skip
    section = "PS3.5 7.5"
    elements = twelve(VOILUTSequence=lut(curve, 0, 10))
    for name, options in (
        ("in a sequence of explicit length", {"undefined": False}),
        ("in a sequence written as UN", {"un": True}),
        ("in an implicit file", {"syntax": IMPLICIT}),
        ("in a big endian file", {"syntax": BIG}),
    ):
        yield Case(group, name, section, file(elements, **options), bent)


def _polarity() -> Iterator[Case]:
    group, section = "Presentation LUT shape", "C.8.11.3.1.2"
    one = "MONOCHROME1"
    identity, inverse = {"PresentationLUTShape": "IDENTITY"}, {"PresentationLUTShape": "INVERSE"}
    yield Case(group, "IDENTITY, MONOCHROME2", section, file(twelve(**identity)), UNIT)
    yield Case(group, "INVERSE, MONOCHROME1", section,
               file(twelve(PhotometricInterpretation=one, **inverse)), 1 - UNIT)  # fmt: skip
    yield Case(group, "intensity sign -1 on MONOCHROME1: by the photometric", section,
               file(twelve(PhotometricInterpretation=one, PixelIntensityRelationshipSign=-1)),
               1 - UNIT)  # fmt: skip


def _padding() -> Iterator[Case]:
    group, section = PADDING, "C.7.5.1.1.2"
    pixels = ramp(12)
    pixels[:, :3] = 0
    black = np.zeros_like(UNIT, dtype=bool)
    black[:, :3] = True
    for name, photometric in (("low", "MONOCHROME1"), ("low", "MONOCHROME2")):
        shown = pixels / 4095 if photometric == "MONOCHROME2" else 1 - pixels / 4095
        elements = twelve(PhotometricInterpretation=photometric, PixelPaddingValue=0,
                          PixelData=words(pixels))  # fmt: skip
        black_too = black | (pixels == 0)
        yield Case(group, f"{name}, {photometric}", section, file(elements),
                   np.where(black_too, 0, shown))  # fmt: skip
    high = pixels.copy()
    high[:, :3] = 4095
    elements = twelve(PixelPaddingValue=4095, PixelData=words(high))
    yield Case(group, "high, MONOCHROME2", section, file(elements),
               np.where(high == 4095, 0, high / 4095))  # fmt: skip
    elements = twelve(PixelPaddingValue=100, PixelPaddingRangeLimit=700)
    yield Case(group, "a range", section, file(elements),
               np.where((X >= 100) & (X <= 700), 0, UNIT))  # fmt: skip
    signed = {**header(16, signed=True), "PixelPaddingValue": -2000,
              "PixelPaddingRangeLimit": -1500, "WindowCenter": "0", "WindowWidth": "4096",
              "VOILUTFunction": "LINEAR_EXACT", "PhotometricInterpretation": "MONOCHROME1",
              "PixelData": words(ramp(12).astype(int) - 2048)}  # fmt: skip
    values = X - 2048
    inside = (values >= -2000) & (values <= -1500)
    yield Case(group, "a range below zero, MONOCHROME1", section, file(signed),
               np.where(inside, 0, 1 - clip(values / 4096 + 0.5)))  # fmt: skip


def _shape() -> Iterator[Case]:
    group, section = SQUARE, "10.7.1.3, C.7.6.3.1.7"
    # Halves of a picture's step: at a quarter and three quarters between two rows or columns.
    rows = np.repeat(np.arange(ROWS)[:, None] * 128, COLUMNS, 1)
    tall = np.repeat((np.arange(2 * ROWS)[:, None] - 0.5) / 2 * 128 / 4095, COLUMNS, 1)
    for name, element in (
        ("PixelSpacing 2:1", {"PixelSpacing": "0.2\\0.1"}),
        ("ImagerPixelSpacing 2:1", {"ImagerPixelSpacing": "0.2\\0.1"}),
        ("PixelAspectRatio 2:1", {"PixelAspectRatio": "2\\1"}),
    ):
        elements = twelve(PixelData=words(rows), **element)
        yield Case(group, name, section, file(elements), tall, 1e-5, inside=2)
    columns = np.repeat(np.arange(COLUMNS)[None] * 128, ROWS, 0)
    wide = np.repeat((np.arange(2 * COLUMNS)[None] - 0.5) / 2 * 128 / 4095, ROWS, 0)
    elements = twelve(PixelData=words(columns), PixelSpacing="0.1\\0.2")
    yield Case(group, "PixelSpacing 1:2", section, file(elements), wide, 1e-5, inside=2)
    elements = twelve(PixelSpacing="0.143\\0.143", ImagerPixelSpacing="0.15\\0.15")
    yield Case(group, "square, of two spacings", section, file(elements), UNIT)


GROUPS: tuple[Callable[[], Iterator[Case]], ...] = (
    _bits, _photometric, _modality, _window, _table, _polarity, _padding, _shape,
)  # fmt: skip
