"""The header of a safetensors file, checked in full before any tensor is read.

Stricter than the safetensors library, which keeps the last of two equal names:
https://github.com/huggingface/safetensors/blob/v0.5.0/README.md#format.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from cxr_foundation.convert.dtypes import DTYPES, DType
from cxr_foundation.convert.entries import (
    MAX_TENSORS,
    CheckpointFile,
    Damaged,
    Entry,
    contiguous_stride,
)

__all__ = ["read_header"]

# 5,000 tensors need 0.6 MB; the format itself allows 100 MB, which parses into gigabytes.
_MAX_HEADER = 4 << 20
_NAMES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def read_header(file: CheckpointFile) -> dict[str, Entry]:
    """Tensors by name.

    Raises:
        Damaged: The header is not plain JSON, names a tensor twice, or its tensors do not cover
            the file exactly once.
    """
    if file.size < 8:
        raise Damaged("it is too short for a safetensors file")
    (length,) = struct.unpack("<Q", file.read(0, 8))
    if not 2 <= length <= min(_MAX_HEADER, file.size - 8):
        raise Damaged(f"its header claims {length:,} bytes")
    header = _parse(file.read(8, length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Damaged("its __metadata__ holds something other than text")
    if len(header) > MAX_TENSORS:
        raise Damaged(f"it lists {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    places = {name: _entry(name, record) for name, record in header.items()}
    _check_cover(places, file.size - 8 - length)
    return {
        name: Entry(dtype, shape, contiguous_stride(shape), 8 + length + begin)
        for name, (dtype, shape, begin, _) in places.items()
    }


def _parse(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise Damaged("its header does not begin with '{'")
    try:
        header = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Damaged("its header is not plain JSON") from error
    if not isinstance(header, dict):
        raise Damaged("its header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Damaged("its header names something twice")
    return made


def _no_constant(name: str) -> None:
    raise Damaged(f"its header holds {name}")


def _entry(name: str, record: object) -> tuple[DType, tuple[int, ...], int, int]:
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise Damaged(f"tensor {name[:80]!r} is not described by dtype, shape and data_offsets")
    kind, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    dtype = DTYPES.get(_NAMES.get(kind, "")) if isinstance(kind, str) else None
    if dtype is None:
        raise Damaged(f"tensor {name[:80]!r} has the unknown type {_shown(kind)}")
    if not _wholes(shape) or not _wholes(offsets) or len(offsets) != 2:
        raise Damaged(f"tensor {name[:80]!r} has a size or place that is not whole numbers")
    begin, end = offsets
    # Whole numbers of Python do not wrap, so a product of sizes cannot become small again.
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise Damaged(f"tensor {name[:80]!r} has other bytes than its type and size need")
    return dtype, tuple(shape), begin, end


def _shown(kind: object) -> str:
    # Of nested lists not even a text is made: it may be as deep as the parser can go.
    return repr(kind[:20]) if isinstance(kind, str) else type(kind).__name__


def _wholes(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 64
        and all(type(v) is int and 0 <= v < 1 << 62 for v in values)
    )


def _check_cover(places: Mapping[str, tuple[DType, tuple[int, ...], int, int]], size: int) -> None:
    at = 0
    for begin, end, name in sorted((b, e, name) for name, (_, _, b, e) in places.items()):
        if begin != at:
            what = "shares bytes with another" if begin < at else "follows unnamed bytes"
            raise Damaged(f"tensor {name[:80]!r} {what}")
        at = end
    if at != size:
        what = "the file is cut short" if at > size else f"{size - at:,} unnamed bytes follow"
        raise Damaged(f"its tensors need {at:,} bytes and it has {size:,}; {what}")
