"""`json_document` and `xml_document`: annotation files that somebody else wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cxr_foundation.data.walking import small_text
from cxr_foundation.errors import BadIndex

__all__ = ["json_document", "xml_document"]


def json_document(file: Path, *needed: str) -> dict[str, Any]:
    """The object of a JSON file of at most 64 MiB; all of its numbers are finite.

    Args:
        file: UTF-8.
        needed: Keys that it must have.

    Raises:
        BadIndex: Not such a file, not JSON, no object, or a key is missing.
    """
    try:
        document = json.loads(small_text(file), parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise BadIndex(file, "not JSON: nested too deeply") from None
    except ValueError as error:
        # Python refuses integers of thousands of digits with a ValueError of its own.
        line = getattr(error, "lineno", None)
        raise BadIndex(file if line is None else f"{file}: line {line}", "not JSON") from None
    if not isinstance(document, dict):
        raise BadIndex(file, "no JSON object")
    for key in needed:
        if key not in document:
            raise BadIndex(file, f"the key {key!r} is missing")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def xml_document(file: Path) -> ElementTree.Element:
    """The root of an XML file of at most 64 MiB that declares no entities.

    Raises:
        BadIndex: Not such a file, not well-formed XML, or one with a document type: entities can
            name other files and grow without bounds.
    """
    text = small_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadIndex(file, "declares a document type or entities")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError):
        raise BadIndex(file, "not well-formed XML") from None
