"""A share of the fuzzer's mutants at every door, and proof that the fuzzer can fail.

Ten thousand of each kind: `python tests/fuzz.py`. What the fuzzer once found has a test here.
"""

import io
import os
import re
import resource
import time

import fuzz
import fuzz_mutants
import fuzz_pictures
import numpy as np
import pytest
from drawn_dicom import draw
from PIL import Image
from pydicom.pixels.decoders.base import Decoder

from cxr_foundation.errors import UnreadableCheckpoint, UnreadableImage
from cxr_foundation.images import read_image


@pytest.mark.parametrize(
    ("kind", "count", "reasons"),
    [
        ("safetensors", 400, 50),
        ("torch", 400, 50),
        ("config", 300, 50),
        ("card", 300, 50),
        ("dicom", 400, 40),
        ("png", 400, 20),
        # Of most that is wrong with a JPEG or TIFF no more can be said than that it is damaged.
        ("picture", 400, 8),
        ("csv", 400, 50),
        ("shard", 400, 12),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_no_mutant_gets_more_than_an_error_out_of_a_door(tmp_path, kind, count, reasons):
    figures = fuzz.run(kind, count, folder=tmp_path)
    assert figures.violations == []
    assert figures.mutants == count
    # A fuzzer that is always refused, or always for one reason, does not get past the door.
    assert figures.accepted > count // 50
    assert len(figures.reasons) > reasons


@pytest.mark.parametrize("kind", ["safetensors", "config", "dicom", "png", "picture", "csv"])
def test_the_same_seed_gives_the_same_mutants(tmp_path, kind):
    # Not so for torch's own streams: their storages are named, and sorted, by address.
    def all_of(folder):
        make = fuzz.MAKERS[kind](folder)
        return [make.mutant(fuzz.random.Random(f"{n}")) for n in range(50)]

    assert all_of(tmp_path / "a") == all_of(tmp_path / "b")


def raises(path):
    raise ValueError("a bug")


def sleeps(path):
    time.sleep(60)


def writes(path):
    (path.parent / "written").write_text("")


def runs(path):
    os.system(f"> {fuzz_mutants.SENTINEL}")


def imports(path):
    import this_module_does_not_exist  # noqa: F401


def grows(path):
    # Beyond what the process had at its peak, and every page of it touched.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    grown = bytearray(peak + (100 << 20))
    grown[:: 1 << 12] = b"x" * len(grown[:: 1 << 12])


def speaks(path):
    raise UnreadableCheckpoint(path, "x" * 10_000)


@pytest.mark.parametrize(
    ("door", "problem"),
    [
        (raises, "raised ValueError: a bug"),
        (sleeps, "took more than"),
        (writes, "asked the interpreter for .*open"),
        (runs, "ran code of the file"),
        (imports, "raised ModuleNotFoundError"),
        (grows, "grew by"),
        (speaks, "the message would drive a terminal, or fills it"),
    ],
)
def test_a_door_that_breaks_a_rule_is_caught_and_the_mutant_is_kept(
    tmp_path, monkeypatch, door, problem
):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2 if door is sleeps else 60.0)
    monkeypatch.setattr(fuzz, "MEGABYTES", 64)
    opened = []

    def once_sound(path):
        opened.append(path)
        if len(opened) > 2:
            door(path)

    figures = fuzz.run("safetensors", 1, folder=tmp_path, door=once_sound)
    assert len(figures.violations) == 1
    kept, _, told = figures.violations[0].partition(": ")
    assert re.search(problem, told)
    assert os.path.getsize(kept) > 0


def test_an_honest_door_passes(tmp_path):
    def refuses(path):
        path.read_bytes()
        raise UnreadableCheckpoint(path, "it is not to my taste")

    def twice_sound(path, seen=[]):  # noqa: B006
        seen.append(path)
        return None if len(seen) <= 2 else refuses(path)

    figures = fuzz.run("safetensors", 5, folder=tmp_path, door=twice_sound)
    assert figures.violations == []
    assert figures.refused == {"UnreadableCheckpoint": 5}


# --- found by the fuzzer


class PanicException(BaseException):
    """As pyo3 names what a decoder written in Rust raises: no Exception."""


def test_a_panic_of_a_decoder_written_in_rust_is_an_error(tmp_path, monkeypatch):
    def panics(*_, **__):
        raise PanicException

    path = draw(tmp_path / "a.dcm", np.zeros((20, 15), np.uint16))
    monkeypatch.setattr(Decoder, "as_array", panics)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_image(path)


def test_a_palette_picture_without_a_palette_is_an_error(tmp_path):
    # Pillow asserts that there is one, or takes the indices for grey.
    sound = io.BytesIO()
    Image.new("P", (8, 8)).save(sound, "PNG", transparency=3)
    chunks = fuzz_pictures.chunks_of(sound.getvalue())
    data = fuzz_pictures.png_of([chunk for chunk in chunks if chunk[0] != b"PLTE"])
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImage, match="the PNG file is damaged: it has no palette"):
        read_image(tmp_path / "a.png")
