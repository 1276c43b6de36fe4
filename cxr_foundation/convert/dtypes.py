"""Element types of tensors by torch's names, known without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "DType"]


@dataclasses.dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Attributes:
        name: torch's, without "torch.".
        itemsize: Bytes of an element.
        infinity: Of a floating-point type, the bits of the smallest magnitude that is infinite or
            no number; None for any other type.
    """

    name: str
    itemsize: int
    infinity: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def is_floating_point(self) -> bool:
        """Whether its values are real floating-point numbers."""
        return self.infinity is not None

    @property
    def torch(self) -> torch.dtype:
        """The same type of torch's."""
        import torch

        found: torch.dtype = getattr(torch, self.name)
        return found

    def bits(self, raw: memoryview) -> npt.NDArray[np.unsignedinteger]:
        """Elements as whole numbers without their sign; of whole numbers, their bytes.

        Magnitudes of floating-point numbers are in the order of their bits, so that the largest
        of these tells whether all are finite, and whether all are zero.
        """
        if self.infinity is None:
            return np.frombuffer(raw, np.uint8)
        found: npt.NDArray[np.unsignedinteger] = np.frombuffer(raw, f"<u{self.itemsize}")
        all_but_sign = found.dtype.type((1 << (8 * self.itemsize - 1)) - 1)
        magnitudes: npt.NDArray[np.unsignedinteger] = found & all_but_sign
        return magnitudes


# IEEE 754-2019, section 3.4; bfloat16 has float32's exponent; the two of eight bits:
# https://arxiv.org/abs/2209.05433, table 1 (E4M3 has no infinity, its NaN is all ones).
_FLOATS = {
    "float64": (8, 0x7FF0 << 48),
    "float32": (4, 0x7F80 << 16),
    "float16": (2, 0x7C00),
    "bfloat16": (2, 0x7F80),
    "float8_e4m3fn": (1, 0x7F),
    "float8_e5m2": (1, 0x7C),
}
_OTHERS = {
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
DTYPES: Mapping[str, DType] = {
    **{name: DType(name, size, infinity) for name, (size, infinity) in _FLOATS.items()},
    **{name: DType(name, size) for name, size in _OTHERS.items()},
}
"""Every type that a checkpoint may hold, by its name."""
