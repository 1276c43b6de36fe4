"""The front matter of a model card: text → plain Python values. Knows YAML, knows no schema.

A card may come from anywhere, so this reads a small, safe part of YAML: no tags, no anchors or
aliases, no duplicate keys, bounded size and depth. Scalars mean what they mean to Hugging Face's
own reader, and those that readers disagree about (`no`, `on`) are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cxr_foundation.errors import CardError

__all__ = ["dump", "is_printable", "parse", "printable", "read_text", "split"]

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16

# Together the block that huggingface_hub finds: huggingface_hub/repocard.py, REGEX_YAML_BLOCK.
_OPENING = re.compile(r"\s*---[\r\n]+")
_CLOSING = re.compile(r"[\r\n]---(?:\r\n|\r|\n|\Z)")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
# As YAML 1.1 has it: a dot, and a sign in the exponent. "1e5" is text, as a hash may look.
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?\Z")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# YAML 1.1 reads these as booleans, YAML 1.2 as text.
_AMBIGUOUS = {w for word in ("yes", "no", "on", "off") for w in (word, word.title(), word.upper())}
_SPECIAL = {*_WORDS, *_AMBIGUOUS}
_MAY_BE_NUMBER = frozenset("-+.0123456789")

# Looked up for each of some two hundred events of a card.
_Scalar, _Mapping = yaml.ScalarEvent, yaml.MappingStartEvent
_MappingEnd, _SequenceEnd = yaml.MappingEndEvent, yaml.SequenceEndEvent


def read_text(path: Path) -> str:
    """The text of a card.

    Raises:
        CardError: No such file, not a plain file, above 1 MiB, or not UTF-8.
    """
    if not os.path.isfile(path):
        raise CardError(path, "there is no such file")
    try:
        with open(path, "rb") as file:
            # No buffer of a whole mebibyte for a card of three kilobytes.
            size = min(os.fstat(file.fileno()).st_size, _MAX_BYTES)
            raw = file.read(size + 1)
            if len(raw) > size:
                raw += file.read(_MAX_BYTES - size)
    except OSError as error:
        raise CardError(path, f"cannot be read ({error.strerror})") from error
    if len(raw) > _MAX_BYTES:
        raise CardError(path, f"is larger than {_MAX_BYTES:,} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardError(path, f"is not UTF-8 at byte {error.start}") from error


def split(text: str, path: Path) -> tuple[str, str]:
    """Split a card into its front matter and its body.

    Raises:
        CardError: There is no front matter between two lines of three dashes.
    """
    opening = _OPENING.match(text)
    # An empty block closes with the line break that opened it.
    closing = _closing(text, opening.end() - 1) if opening else None
    if opening is None or closing is None:
        raise CardError(path, "has no front matter between two lines of '---' at its top")
    return text[opening.end() : closing.start()], text[closing.end() :]


def _closing(text: str, start: int) -> re.Match[str] | None:
    """The first match of `_CLOSING` from `start` on; it is tried only where there are dashes."""
    at = text.find("---", start + 1)
    while at >= 0:
        if found := _CLOSING.match(text, at - 1):
            return found
        at = text.find("---", at + 1)
    return None


def parse(text: str, path: Path) -> dict[str, Any]:
    """Parse front matter into dicts, lists, str, int, float, bool and None.

    Raises:
        CardError: Bad YAML, or YAML outside the part that cards may use.
    """
    try:
        return _Parser(text, path).document()
    except yaml.MarkedYAMLError as error:
        # The block starts on the second line of the file, and a mark counts from 0.
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise CardError(
            f"{path}: line {line}", f"is not YAML: {str(error.problem)[:200]}"
        ) from error
    except yaml.YAMLError as error:
        raise CardError(
            path, f"its front matter is not YAML: {str(error).splitlines()[0]}"
        ) from error


class _Dumper(yaml.CSafeDumper):
    """One key a line, for legible diffs; only short mappings and lists of values stay in a line."""

    def represent_mapping(
        self, tag: str, mapping: Any, flow_style: bool | None = None
    ) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        scalars = [n for pair in node.value for n in pair if isinstance(n, yaml.ScalarNode)]
        in_a_line = 4 * len(scalars) + sum(len(n.value) for n in scalars) < 88
        node.flow_style = len(scalars) == 2 * len(node.value) and in_a_line
        return node


def dump(values: dict[str, Any]) -> str:
    """Write values as YAML that `parse` reads back as the same values."""
    text: str = yaml.dump(
        values,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        # Never folded: a folded line is hard to read and to compare.
        width=1 << 20,
    )
    return text


def is_printable(text: str) -> bool:
    """Whether a text can be shown in a terminal: nothing in it but line breaks drives one."""
    return text.isprintable() or text.replace("\n", " ").isprintable()


def printable(text: str) -> str:
    """A text of several lines that can be shown in a terminal: what would drive it becomes "?"."""
    lines = text.replace("\t", "    ").replace("\xa0", " ").splitlines()
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


class _Parser:
    """Builds values from the C parser's events: faster than nodes, and safe against deep nesting.

    libyaml's own node composer recurses in C and crashes the process on a hundred thousand "[".
    """

    def __init__(self, text: str, path: Path) -> None:
        self.next: Callable[[], Any] = yaml.CSafeLoader(text).get_event
        self.path = path
        self.keys: list[str] = []

    def document(self) -> dict[str, Any]:
        self.next()  # The stream's start.
        if type(self.next()) is not yaml.DocumentStartEvent:
            self.refuse("its front matter is empty")
        value = self.value(self.next())
        if not isinstance(value, dict):
            self.refuse("its front matter is not a mapping of keys")
        self.next()  # The document's end.
        if type(self.next()) is not yaml.StreamEndEvent:
            self.refuse("its front matter holds more than one document")
        return value

    def value(self, event: Any) -> Any:
        kind = type(event)
        # An alias is an event of its own, which always has an anchor.
        if event.anchor is not None:
            self.refuse("anchors and aliases are not allowed in a card")
        if event.tag is not None:
            self.refuse(f"the tag {event.tag[:80]!r} is not allowed in a card")
        if kind is _Scalar:
            text = event.value
            # Nearly all are plain words, and need no look at what else they could mean.
            if not event.implicit[0] or (text[:1] not in _MAY_BE_NUMBER and text not in _SPECIAL):
                return text
            return self.scalar(text)
        if len(self.keys) >= _MAX_DEPTH:
            self.refuse(f"is nested more than {_MAX_DEPTH} deep")
        return self.mapping() if kind is _Mapping else self.sequence()

    def sequence(self) -> list[Any]:
        values: list[Any] = []
        self.keys.append("[]")
        while type(event := self.next()) is not _SequenceEnd:
            values.append(self.value(event))
        self.keys.pop()
        return values

    def mapping(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        keys, following, value = self.keys, self.next, self.value
        while type(event := following()) is not _MappingEnd:
            name = value(event)
            if type(name) is not str:
                self.refuse(f"the key {repr(name)[:80]} is not text; put it in quotes")
            keys.append(name)
            if name in values:
                self.refuse("appears twice")
            values[name] = value(following())
            keys.pop()
        return values

    def scalar(self, text: str) -> Any:
        """What an unquoted scalar means."""
        if text in _WORDS:
            return _WORDS[text]
        if text in _AMBIGUOUS:
            self.refuse(f"{text!r} is a word that YAML readers disagree about; quote it")
        if _INT.match(text):
            if len(text) > 20:
                self.refuse(f"{text[:20]}… is no number; a hash goes in quotes")
            return int(text)
        return float(text) if _FLOAT.match(text) else text

    def refuse(self, reason: str) -> NoReturn:
        key = ".".join(key[:80] for key in self.keys).replace(".[]", "[]")
        raise CardError(f"{self.path}: {key}" if key else self.path, reason)
