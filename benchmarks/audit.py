"""How many altered copies the audit finds, what it takes for copies, and how long it takes.

    python benchmarks/audit.py DATA [--split dev] [--copies 200] [--json FILE]
    python benchmarks/audit.py --speed 100000

DATA is a folder with an index.csv. The first form draws pictures of the named parts of its split,
alters a copy of each in every way of the list, and prints for each way how many copies were found
and the lowest correlation; then, for the pictures as they are, the highest correlation between two
patients, over all pairs. The thresholds were chosen on the parts "pretrain" and "dev".

The second form compares that many simulated fingerprints of random signs and textures, with one
planted copy in a hundred, and prints seconds and memory. Random signs pass the hash less often
than those of radiographs; the first form prints the share that passes on radiographs.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from cxr_foundation.data import read_index
from cxr_foundation.data.splits import same_patient
from cxr_foundation.images import likeness

Alteration = Callable[[np.ndarray], np.ndarray]


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def _turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    return np.array(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def _gamma(pixels: np.ndarray, power: float) -> np.ndarray:
    return (255 * (pixels / 255) ** power).astype(np.uint8)


def _window(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((pixels / 255 - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def _equalised(pixels: np.ndarray) -> np.ndarray:
    counts = np.bincount(pixels.ravel(), minlength=256).cumsum()
    return (255 * counts // counts[-1]).astype(np.uint8)[pixels]


def _padded(pixels: np.ndarray) -> np.ndarray:
    side = max(pixels.shape) + 40
    square = np.zeros((side, side), np.uint8)
    y, x = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    square[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return square


def _lettered(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[5 : 5 + pixels.shape[0] // 12, 5 : 5 + pixels.shape[1] // 5] = 255
    return pixels


def _cropped(pixels: np.ndarray, share: float) -> np.ndarray:
    y, x = round(pixels.shape[0] * share), round(pixels.shape[1] * share)
    return pixels[y : pixels.shape[0] - y, x : pixels.shape[1] - x]


def _noisy(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


ALTERATIONS: dict[str, Alteration] = {
    "none": lambda a: a,
    "JPEG quality 50": lambda a: _jpeg(a, 50),
    "JPEG quality 20": lambda a: _jpeg(a, 20),
    "squashed to 224": lambda a: _resized(a, 224),
    "squashed to 128": lambda a: _resized(a, 128),
    "gamma 0.5": lambda a: _gamma(a, 0.5),
    "gamma 2": lambda a: _gamma(a, 2),
    "window .1 to .9": lambda a: _window(a, 0.1, 0.9),
    "window .2 to .8": lambda a: _window(a, 0.2, 0.8),
    "equalised": _equalised,
    "inverted": lambda a: 255 - a,
    "mirrored": lambda a: a[:, ::-1],
    "padded": _padded,
    "letters": _lettered,
    "noise, SD 8": _noisy,
    "cropped 1 %": lambda a: _cropped(a, 0.01),
    "cropped 2 %": lambda a: _cropped(a, 0.02),
    "cropped 5 %": lambda a: _cropped(a, 0.05),
    "turned 1 degree": lambda a: _turned(a, 1),
    "turned 2 degrees": lambda a: _turned(a, 2),
    "turned 5 degrees": lambda a: _turned(a, 5),
}


def _printed(pixels: np.ndarray) -> likeness.Fingerprint:
    return likeness.fingerprint(pixels.astype(np.float32) / 255)


def _quality(data: str, parts: list[str], copies: int) -> dict[str, object]:
    studies = [s for s in read_index(data) if s.split in parts]
    pictures = [np.rint(s.pixels() * 255).astype(np.uint8) for s in studies]
    start = time.perf_counter()
    prints = [_printed(p) for p in pictures]
    each = (time.perf_counter() - start) / len(prints)
    patients = np.array([same_patient(s.group) for s in studies])
    textures = np.stack([p.texture[0].ravel() for p in prints]).astype(np.float32)
    textures /= np.linalg.norm(textures, axis=1, keepdims=True)
    signs = np.stack([p.signs[0] for p in prints]).astype(np.float32)
    above = np.triu(patients[:, None] != patients[None])
    highest = float(np.abs(textures @ textures.T)[above].max())
    least = likeness.HASH_BITS - 2 * likeness.HASH_DISTANCE
    passed = float((np.abs(signs @ signs.T)[above] >= least).mean())
    alarms = [
        [studies[p.first].path.name, studies[p.second].path.name, round(p.correlation, 3)]
        for p in likeness.near_duplicates(prints)
        if patients[p.first] != patients[p.second]
    ]
    chosen = np.random.default_rng(0).permutation(len(prints))[:copies].tolist()
    found = {}
    for name, alter in ALTERATIONS.items():
        altered = [_printed(alter(pictures[i])) for i in chosen]
        pairs = {(p.first, p.second) for p in likeness.near_duplicates([*prints, *altered])}
        expected = {(i, len(prints) + n) for n, i in enumerate(chosen)}
        # A copy may also be like another picture of the same patient; that is no false alarm.
        wrong = [
            (i, j)
            for i, j in pairs - expected
            if j >= len(prints) > i and patients[i] != patients[chosen[j - len(prints)]]
        ]
        found[name] = {"found": len(pairs & expected), "of": len(chosen), "wrong": len(wrong)}
    return {
        "pictures": len(prints),
        "pairs of different patients": int(above.sum()),
        "highest correlation of different patients": highest,
        "share of such pairs that pass the hash": passed,
        "pairs of different patients taken for copies": alarms,
        "milliseconds per fingerprint": 1000 * each,
        "copies": found,
    }


def _speed(count: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    prints = [
        likeness.Fingerprint(
            rng.integers(0, 2, (1, likeness.HASH_BITS), dtype=np.int8) * 2 - 1,
            rng.integers(-60, 61, (1, likeness.SIDE, likeness.SIDE), dtype=np.int8),
        )
        for _ in range(count)
    ]
    planted = count // 100
    for n in range(planted):
        texture = prints[n].texture.copy()
        texture[0, 0, 0] ^= 1
        prints[-1 - n] = likeness.Fingerprint(prints[n].signs, texture)
    start = time.perf_counter()
    pairs = likeness.near_duplicates(prints)
    seconds = time.perf_counter() - start
    return {
        "fingerprints, simulated": count,
        "planted copies": planted,
        "found": len(pairs),
        "seconds": seconds,
        "peak memory in GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Read the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--split", default="dev", help="parts, comma-separated")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--speed", type=int)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.speed is None):
        parser.error("name either DATA or --speed")
    if arguments.speed:
        result = _speed(arguments.speed)
    else:
        result = _quality(arguments.data, arguments.split.split(","), arguments.copies)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
