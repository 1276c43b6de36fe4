"""Two random views of radiographs against two bare antialiased resizes of them, by CPU time.

    python benchmarks/views.py [--rounds 9] [--json FILE]

Views and resizes follow one another within a round, on one thread; a ratio is the median over
rounds. `strong` is about every change at once at usual sizes; the others are recipes that ship, at
the sizes of their pictures and views. Where both are equal (chess) the bare resize only copies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from cxr_foundation.pretrain.recipe_file import read_recipe
from cxr_foundation.pretrain.views import ViewConfig, Views

STRONG = ViewConfig(
    crop_area=(0.4, 1.0),
    crop_ratio=(0.8, 1.25),
    affine_p=0.5,
    zoom=(-0.1, 0.1),
    shift=0.05,
    rotation=10,
    distortion=0.05,
    distortion_p=0.3,
    jitter_p=0.8,
    brightness=0.2,
    contrast=0.3,
    gamma=(0.7, 1.4),
    gamma_p=0.3,
    blur=(0.1, 1.5),
    blur_p=0.5,
    sharpen=(0.1, 0.3),
    sharpen_p=0.2,
    noise=(0.005, 0.03),
    noise_p=0.3,
)
# What self-supervised methods usually ask for: crop, brightness and contrast, blur in half.
USUAL = ViewConfig(
    crop_area=(0.2, 1.0), jitter_p=0.8, brightness=0.4, contrast=0.4, blur=(0.1, 2.0), blur_p=0.5
)


def cases() -> dict[str, tuple[ViewConfig, int, int]]:
    """Name → views, side of the pictures and of the views."""
    found = {"usual": (USUAL, 320, 224), "strong": (STRONG, 320, 224)}
    for name in ("moco_open_small", "chess"):
        recipe = read_recipe(name)
        stage = recipe.stages[0]
        side = (stage.views.size or recipe.contract.size)[0]
        found[f"recipe {name}"] = (stage.views, stage.data.size[0], side)
    return found


def compared(config: ViewConfig, side: int, view: int, *, rounds: int) -> dict[str, object]:
    """Milliseconds and ratios of one case."""
    count = max(4, 2**22 // side**2)
    pictures = torch.randint(0, 256, (count, side, side), dtype=torch.uint8)
    make = Views(config, size=(view, view), mean=(0.5,), std=(0.25,), seed=1)
    ours, bare = [], []
    for round_ in range(rounds + 1):
        start = time.process_time()
        for number in range(2):
            make(pictures, epoch=round_, indices=range(count), view=number)
        middle = time.process_time()
        for _ in range(2):
            F.interpolate(
                pictures[:, None].float(), (view, view), mode="bilinear", antialias=True
            ).div_(255)
        end = time.process_time()
        if round_:
            ours.append(middle - start)
            bare.append(end - middle)
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return {
        "sides": [side, view],
        "ms per radiograph, two views": round(1e3 * statistics.median(ours) / count, 3),
        "ms per radiograph, two resizes": round(1e3 * statistics.median(bare) / count, 3),
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    """Print milliseconds and ratios of every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        name: compared(config, side, view, rounds=options.rounds)
        for name, (config, side, view) in cases().items()
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
