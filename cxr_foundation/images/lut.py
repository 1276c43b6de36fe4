"""DICOM's grey-scale transformations as functions of the stored value (PS3.3 C.11, PS3.4 N.2).

All of them map a stored value to an output, so they are worked out in float64 on the list of
values that BitsStored allows, 65,536 at most, and pictures are looked up in the outcome once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_foundation.images.header import Header, label

__all__ = ["Stage", "modality", "palette", "voi"]

Values = npt.NDArray[np.float64]

# Below this share of the output range a window shows a flat picture.
_FLAT = 1e-3


class Stage(NamedTuple):
    """A stage's output for every stored value, and the range that it can take.

    Attributes:
        values: float64 (2 ** BitsStored,).
        low: Least value that the stage can give, by the header alone.
        high: Greatest.
    """

    values: Values
    low: float
    high: float

    @property
    def unit(self) -> Values:
        """The output over its whole range: float64 in [0, 1]."""
        return np.asarray((self.values - self.low) / (self.high - self.low), dtype=np.float64)


def _lookup(
    header: Header, prefix: str, inputs: Values, *, signed: bool
) -> tuple[npt.NDArray[np.float64], int]:
    """Outputs of a look-up table and the number of bits that its descriptor gives them.

    PS3.3 C.11.1.1.1 and C.11.2.1.1, C.7.6.3.1.5 for palettes: the descriptor's first value is
    the number of entries, where 0 means 65,536; the second is the input that the first entry
    belongs to, signed as the inputs are; the third is the number of bits of the entries. Inputs
    below and above the table take its first and last entry.
    """
    descriptor, data = f"{prefix}Descriptor", f"{prefix}Data"
    unsigned = header.integers(descriptor)
    if len(unsigned) != 3:
        raise header.damaged(descriptor, "does not have three values")
    entries, bits = unsigned[0] or 65536, unsigned[2]
    # The second value has the type of the input. An explicit SS says so even where no input is
    # below zero: read as unsigned, such a table would begin beyond all of them.
    signed = signed or header.elements[descriptor].vr == b"SS"
    first = header.integers(descriptor, signed=signed)[1]
    if not 8 <= bits <= 16:
        raise header.damaged(descriptor, "does not have 8 to 16 bits")
    raw = header.raw(data)
    length = 0 if raw is None else len(raw)
    if raw is None or length not in (2 * entries, entries + entries % 2):
        raise header.damaged(data, f"has {length} bytes for {entries} entries")
    if length == 2 * entries:
        table = np.frombuffer(raw, dtype="<u2" if header.little else ">u2")
    elif bits == 8:
        # PS3.3 C.11.1.1.1: 8-bit entries may be packed two in a word.
        packed = np.frombuffer(raw, dtype=np.uint8)
        table = (packed if header.little else packed.reshape(-1, 2)[:, ::-1].ravel())[:entries]
    else:
        raise header.damaged(data, f"has {length} bytes for {entries} entries of {bits} bits")
    if int(table.max()) >= 2**bits:
        raise header.damaged(data, "has entries above the bits of its descriptor")
    index = np.clip(np.rint(inputs) - first, 0, entries - 1).astype(np.intp)
    return table[index].astype(np.float64), bits


def modality(header: Header, stored: Values) -> Stage:
    """Stored values to the manufacturer's units.

    (0028,3000) ModalityLUTSequence, or (0028,1052) RescaleIntercept and (0028,1053)
    RescaleSlope of either sign, or neither: PS3.3 C.11.1. The range is that of the table's bits,
    or of BitsStored through the line.

    Raises:
        UnreadableImage: A broken table.
        UnsupportedPixels: A table and a line at once, a slope of zero, or half a line.
    """
    low, high = float(stored.min()), float(stored.max())
    slope, intercept = _line(header)
    item = header.first_item("ModalityLUTSequence")
    if item is not None:
        if (slope, intercept) != (1.0, 0.0):
            raise header.unsupported(
                "has both (0028,3000) ModalityLUTSequence and (0028,1053) RescaleSlope"
            )
        values, bits = _lookup(item, "LUT", stored, signed=low < 0)
        return Stage(values, 0.0, 2.0**bits - 1)
    ends = sorted((slope * low + intercept, slope * high + intercept))
    if not np.isfinite(ends[1] - ends[0]) or ends[0] == ends[1]:
        raise header.unsupported(f"{label('RescaleSlope')} leaves no range of values")
    return Stage(stored * slope + intercept, ends[0], ends[1])


def _line(header: Header) -> tuple[float, float]:
    """(slope, intercept) of PS3.3 C.11.1.1.2."""
    names = "RescaleSlope", "RescaleIntercept"
    found = [header.decimals(name) for name in names]
    if not any(found):
        return 1.0, 0.0
    line = []
    for name, values in zip(names, found, strict=True):
        if len(values) != 1 or values[0] is None:
            raise header.unsupported(f"{label(name)} is not one number")
        line.append(values[0])
    return line[0], line[1]


def voi(header: Header, stage: Stage) -> Values:
    """Modality values to what a viewer shows: float64 in [0, 1] for every stored value.

    The first item of (0028,3010) VOILUTSequence over the range of its own descriptor's bits; if
    there is none, the first window of (0028,1050) WindowCenter and (0028,1051) WindowWidth; if
    there is none, the stage over its whole range: PS3.3 C.11.2.

    A pair that is no window by the standard (not two numbers, a width of zero or less) or that
    shows every value that BitsStored allows as the same grey is passed over, as viewers do.

    Raises:
        UnreadableImage: A broken table.
        UnsupportedPixels: An unknown (0028,1056) VOILUTFunction.
    """
    item = header.first_item("VOILUTSequence")
    if item is not None:
        values, bits = _lookup(item, "LUT", stage.values, signed=stage.low < 0)
        return np.asarray(values / (2.0**bits - 1), dtype=np.float64)
    return next(_windows(header, stage), stage.unit)


def _windows(header: Header, stage: Stage) -> Iterator[Values]:
    function = header.string("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise header.unsupported(f"{label('VOILUTFunction')} is none that the standard defines")
    pairs = zip(header.decimals("WindowCenter"), header.decimals("WindowWidth"), strict=False)
    for center, width in pairs:
        if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
            continue
        shown = window(stage.values, center, width, function)
        if np.ptp(shown) > _FLAT:
            yield shown


def window(values: Values, center: float, width: float, function: str) -> Values:
    """One window: PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT.

    Args:
        values: float64, modality values.
        center: In the units of `values`.
        width: Above 0; at least 1 for LINEAR.
        function: Value of (0028,1056).

    Returns:
        float64 in [0, 1].
    """
    if function == "SIGMOID":
        # Beyond 60 the exponential is 0 or infinite for all purposes of a float32.
        with np.errstate(over="ignore"):
            exponent = np.clip(-4.0 * ((values - center) / width), -60.0, 60.0)
        return np.asarray(1.0 / (1.0 + np.exp(exponent)), dtype=np.float64)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return np.asarray(values > center, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(np.clip((values - center) / width + 0.5, 0.0, 1.0), dtype=np.float64)


def palette(header: Header, stored: Values) -> Values:
    """Red, green and blue of every stored value: float64 (n, 3) in [0, 1].

    (0028,1101-1103) descriptors and (0028,1201-1203) data of PALETTE COLOR: PS3.3 C.7.6.3.1.5
    and C.7.6.3.1.6.
    """
    channels = []
    for colour in ("Red", "Green", "Blue"):
        prefix = f"{colour}PaletteColorLookupTable"
        values, bits = _lookup(header, prefix, stored, signed=bool(stored.min() < 0))
        channels.append(values / (2.0**bits - 1))
    return np.stack(channels, axis=-1)
