"""One case, and what all of them are made of."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from drawn import Value
from pictures import COLUMNS, ROWS, ramp

Picture = npt.NDArray[np.float64]

_FRAMES = json.loads((Path(__file__).parent / "frames.json").read_text())["frames"]
ROUNDING = 1e-6

PADDING, SQUARE = "Padding is black", "Square pixels"
REFUSED = "Refused: not a picture, or not knowable"
JUDGEMENT = {PADDING, SQUARE, REFUSED}
"""Groups in which the standard leaves a reader of pixels some freedom, counted apart."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One file and what has to come of it.

    Attributes:
        group: Row of the table that is printed.
        name: What is particular about it.
        section: Where the standard says so.
        data: The file's bytes.
        shown: float64 (H, W) in [0, 1]; None if the file has to be refused.
        tolerance: Largest error that is right.
        inside: Border that is not compared, where a resampling may do as it likes.
    """

    group: str
    name: str
    section: str
    data: bytes
    shown: Picture | None
    tolerance: float = ROUNDING
    inside: int = 0


def header(bits: int = 12, *, allocated: int = 16, signed: bool = False) -> dict[str, Value]:
    """The elements that every case begins with."""
    return {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.2",
        "Modality": "DX",
        "PatientName": "DRAWN^CASE",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    }


def words(values: npt.NDArray[Any], allocated: int = 16) -> bytes:
    """Little endian pixels; the patterns of negative values are two's complement."""
    unsigned = values.astype(np.int64) & (2**allocated - 1)
    raw = unsigned.astype(f"<u{allocated // 8}").tobytes()
    return raw + b"\0" * (len(raw) % 2)


def twelve(**elements: Value) -> dict[str, Value]:
    """The 12-bit ramp with more elements."""
    return {**header(), "PixelData": words(ramp(12)), **elements}


def lut(entries: npt.NDArray[Any], first: int, bits: int, *, packed: bool = False) -> Any:
    """One item of a modality or VOI LUT sequence; 65,536 entries are written as 0."""
    raw = entries.astype(np.uint8 if packed else "<u2").tobytes()
    return [
        {
            "LUTDescriptor": (len(entries) % 65536, first, bits),
            "LUTData": raw + b"\0" * (len(raw) % 2),
        }
    ]


def frame(name: str) -> bytes:
    """A codestream of frames.json."""
    return base64.b64decode(_FRAMES[name])


X = ramp(12).astype(np.float64)
UNIT = X / 4095


def clip(values: Picture) -> Picture:
    """To [0, 1]."""
    return np.clip(values, 0.0, 1.0)
