"""Mutants of tar shards: bytes, headers with a right checksum, facts, members moved and doubled."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_mutants as mutants
import numpy as np
from PIL import Image

from cxr_foundation.data.tar import BLOCK, END, header_of, padding_of

_FACTS = {"label": [0], "labels": ["effusion"], "patient": "0" * 32, "age": 54.0, "sex": "F"}
_NAMES = ("../a.png", "/a.png", "a.pkl", "a.dcm", "a", ".png", "a\\b.png", "a.png.json", "x" * 99)
_KINDS = b"\0" + b"1234567xgLKDSV"


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "PNG")
    return file.getvalue()


def _file(name: str, content: bytes) -> bytes:
    return header_of(name, len(content)) + content + bytes(padding_of(len(content)))


class ShardMaker:
    """Mutants of an archive of two samples."""

    file_name = "mutant.tar"

    def __init__(self, folder: Path) -> None:
        # Pillow imports its plugins when it meets the first file that it does not know.
        Image.init()
        picture, facts = _png(), json.dumps(_FACTS).encode()
        self._parts = [
            ("a.png", picture),
            ("a.json", facts),
            ("b.png", picture),
            ("b.json", facts),
        ]

    def sound(self) -> list[bytes]:
        """The archive as it is."""
        return [self._joined([_file(*part) for part in self._parts])]

    def _joined(self, files: list[bytes]) -> bytes:
        return b"".join(files) + END

    def mutant(self, rng: random.Random) -> bytes:
        """One mutant."""
        return rng.choice([self._bytes, self._header, self._facts, self._order])(rng)

    def _bytes(self, rng: random.Random) -> bytes:
        sound = self.sound()[0]
        return mutants.bytes_changed(sound, rng, sound[::-1])

    def _header(self, rng: random.Random) -> bytes:
        files = [_file(*part) for part in self._parts]
        which = rng.randrange(len(files))
        header = bytearray(files[which][:BLOCK])
        start, length = rng.choice([(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8)])
        if start == 156:
            header[156] = rng.choice(_KINDS)
        elif start == 124 and rng.random() < 0.5:
            header[124:136] = b"%011o\0" % rng.choice([0, 1, 511, 512, 10**6, 8**11 - 1])
        elif start == 0 and rng.random() < 0.5:
            header[:100] = rng.choice(_NAMES).encode().ljust(100, b"\0")
        else:
            header[start : start + length] = rng.randbytes(length)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        files[which] = bytes(header) + files[which][BLOCK:]
        return self._joined(files)

    def _facts(self, rng: random.Random) -> bytes:
        parts = list(self._parts)
        parts[1] = ("a.json", mutants.json_changed(dict(_FACTS), rng))
        return self._joined([_file(*part) for part in parts])

    def _order(self, rng: random.Random) -> bytes:
        files = [_file(*part) for part in self._parts]
        files = rng.choices(files, k=rng.randrange(1, 7))
        return self._joined(files) + rng.choice([b"", END, bytes(10240), b"\1", self.sound()[0]])


MAKERS: dict[str, Callable[[Path], Any]] = {"shard": ShardMaker}
