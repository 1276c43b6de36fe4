"""Checks of single values of a card.

A check takes a parsed value and returns it as the record keeps it, or raises ValueError with what
is wrong. Nothing is coerced: a number in quotes is text, and text without quotes may be a number.
"""

from __future__ import annotations

import array
import base64
import binascii
import datetime
import functools
import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

from cxr_foundation.catalog import frontmatter
from cxr_foundation.catalog.records import Evidence, Verified

__all__ = [
    "Check",
    "as_it_is",
    "count",
    "counts",
    "embedding",
    "encode",
    "evidence",
    "flag",
    "interval",
    "maybe",
    "number",
    "numbers",
    "one_of",
    "shape",
    "text",
    "texts",
    "texts_or_unknown",
]

Check = Callable[[Any], Any]
_VERIFIED = get_args(Verified)
_EVIDENCE = re.compile(rf"({'|'.join(_VERIFIED)}) (\d{{4}}-\d{{2}}-\d{{2}}) (\S.*)")


def _shown(value: Any) -> str:
    """A value for a message: a card may hold a megabyte of anything."""
    quoted = repr(value)
    return quoted if len(quoted) <= 120 else f"{quoted[:120]}…"


def text(value: Any) -> str:
    """Text that is neither empty nor able to drive a terminal."""
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is not text; put it in quotes")
    if value and value.isprintable():
        return value
    if not value or not frontmatter.is_printable(value):
        raise ValueError("is empty" if not value else "holds control characters")
    return value


def flag(value: Any) -> bool:
    """Either true or false."""
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def count(value: Any) -> int:
    """A whole number above 0."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{_shown(value)} is not a whole number above 0")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{_shown(value)} is not a number")
    return float(value)


def counts(value: Any) -> tuple[int, ...]:
    """A list of whole numbers above 0, as a tuple."""
    if type(value) is not list:
        raise ValueError(f"{_shown(value)} is not a list of whole numbers")
    return tuple(count(v) for v in value)


def numbers(value: Any) -> tuple[float, ...]:
    """A list of finite numbers, as a tuple."""
    if type(value) is not list:
        raise ValueError(f"{_shown(value)} is not a list of numbers")
    return tuple(number(v) for v in value)


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, as a tuple."""
    if type(value) is not list:
        raise ValueError(f"{_shown(value)} is not a list of texts")
    return tuple(text(v) for v in value)


def texts_or_unknown(value: Any) -> tuple[str, ...]:
    """A list of texts; null becomes an empty tuple."""
    return () if value is None else texts(value)


def interval(value: Any) -> tuple[float, float]:
    """Two numbers."""
    if type(value) is not list or len(value) != 2:
        raise ValueError(f"{_shown(value)} is not [low, high]")
    return number(value[0]), number(value[1])


def as_it_is(value: Any) -> Any:
    """Anything: checked elsewhere."""
    return value


def maybe(check: Check) -> Check:
    """A check that also lets null through."""
    return lambda value: None if value is None else check(value)


def one_of(literal: Any) -> Check:
    """A check for the values of a `Literal`."""
    allowed = get_args(literal)

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{_shown(value)} is not one of {', '.join(allowed)}")
        return value

    return check


def shape(pattern: str, what: str) -> Check:
    """A check for text of a certain form; `what` names the form for the message."""
    matches = re.compile(pattern).fullmatch

    def check(value: Any) -> str:
        found = text(value)
        if matches(found) is None or ".." in found:
            raise ValueError(f"{_shown(found)} is not {what}")
        return found

    return check


def evidence(value: Any) -> Evidence:
    """One line of evidence: how verified, when, where."""
    return _evidence(text(value))


@functools.lru_cache(maxsize=32)
def _evidence(value: str) -> Evidence:
    """Facts of one card mostly share a line; read once, it is one record for all of them."""
    line = _EVIDENCE.fullmatch(value)
    if line is None:
        raise ValueError(f"{_shown(value)} is not '({'|'.join(_VERIFIED)}) YYYY-MM-DD where'")
    verified, date, source = line.groups()
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        raise ValueError(f"{_shown(date)} is not a date") from None
    return Evidence(verified=cast(Verified, verified), date=date, source=source)


def embedding(value: Any) -> tuple[float, ...]:
    """Base64 of little-endian float32 values."""
    try:
        floats = array.array("f", base64.b64decode(text(value), validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not base64 of float32 ({error})") from None
    if sys.byteorder == "big":
        floats.byteswap()
    if not floats or not all(map(math.isfinite, floats)):
        raise ValueError("holds no values, or values that are not finite")
    return tuple(floats)


def encode(embedding: Iterable[float]) -> str:
    """The inverse of `embedding`."""
    floats = array.array("f", embedding)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode("ascii")
