"""Reading shards: at random by `Shards`, against files, the bare bytes and webdataset.

    python benchmarks/shards.py [--count 600] [--rounds 5] [--json FILE]

Drawn 512 x 512 pictures of 8 bits lie once as PNG files and once in shards. "read" is bytes alone,
"decode" ends in float32 pixels. A shard's pictures are held to their digests the first time that a
process reads them: "first" forgets before each round that they were. All ways read the same
pictures once a round, warm, in one thread; `Shards` and files in the same shuffled order,
webdataset in the stored one, since it knows no other.
"""

from __future__ import annotations

import argparse
import io
import json
import mmap
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_foundation import data
from cxr_foundation.data import checked
from cxr_foundation.data.sharding import shard


def draw(folder: Path, count: int) -> None:
    """Smooth pictures with a little noise, so that PNG is as dense as on radiographs."""
    rows, columns = np.mgrid[:512, :512] / 512
    for i in range(count):
        source = np.random.default_rng(i)
        a, b, c = source.uniform(1, 9, 3)
        smooth = 110 + 50 * np.sin(a * rows + b * columns) + 40 * np.cos(c * rows * columns)
        noisy = smooth + source.normal(0, 2, (512, 512))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.png")


def main() -> None:
    """Print pictures per second and ratios to the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        files, out = Path(root, "files"), Path(root, "shards")
        files.mkdir()
        draw(files, options.count)
        studies = data.read_index(files)
        shard(studies, out, per_shard=200)
        figures = compare(studies, data.Shards(out), out, options.rounds)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def compare(
    studies: list[data.Study], shards: data.Shards, out: Path, rounds: int
) -> dict[str, object]:
    """Seconds of each way, interleaved."""
    samples, order = list(shards), list(range(len(studies)))
    random.Random(0).shuffle(order)
    maps = {}
    for tar in sorted(out.glob("*.tar")):
        with open(tar, "rb") as file:
            maps[tar] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def floor() -> None:
        for i in order:
            sample = samples[i]
            bytes(maps[sample.shard][sample.offset : sample.offset + sample.size])

    def read_files() -> None:
        for i in order:
            studies[i].path.read_bytes()

    def read_shards() -> None:
        for i in order:
            shards[i]._bytes()

    def read_shards_first() -> None:
        checked._opened.cache_clear()
        read_shards()

    def by_webdataset(decode: bool) -> Callable[[], None]:
        import webdataset

        tars = [str(p) for p in sorted(out.glob("*.tar"))]

        def way() -> None:
            for sample in webdataset.WebDataset(tars, shardshuffle=False):
                if decode:
                    np.asarray(Image.open(io.BytesIO(sample["png"])), np.float32)

        return way

    def pixels_of_files() -> None:
        for i in order:
            studies[i].pixels()

    def pixels_of_shards() -> None:
        for i in order:
            shards[i].pixels()

    ways: dict[str, Callable[[], None]] = {
        "read: floor, mmap and offsets": floor,
        "read: files": read_files,
        "read: Shards, first, every digest": read_shards_first,
        "read: Shards": read_shards,
        "decode: files": pixels_of_files,
        "decode: Shards": pixels_of_shards,
    }
    try:
        ways["read: webdataset"] = by_webdataset(False)
        ways["decode: webdataset and Pillow"] = by_webdataset(True)
    except ImportError:
        print("webdataset is not installed")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    warnings.simplefilter("ignore", ResourceWarning)
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(ways))
    return {
        name: {
            "pictures per second": round(len(order) / statistics.median(taken)),
            "times the floor's time": round(
                statistics.median(t / f for t, f in zip(taken, seconds[first], strict=True)), 2
            ),
        }
        for name, taken in seconds.items()
    }


if __name__ == "__main__":
    main()
