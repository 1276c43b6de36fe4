"""Features of radiographs: `Encoding` against a plain timm loop, by CPU time and by cosine.

    python benchmarks/embed.py [--model cxr_resnet18.moco_open] [--rounds 5] [--json FILE]

One batch of prepared radiographs that ship with the package goes through the same encoder: plain
(eager, float32, as it is created), with channels last, with its batch normalisations folded, and
in bfloat16. The ways follow one another within a round, on one thread; a ratio is the median over
rounds. Cosine is the least over the radiographs, to the plain features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import cxr_foundation
from cxr_foundation import demo
from cxr_foundation.models.encoding import Encoding, folded
from cxr_foundation.models.loading import create_model


def main() -> None:
    """Print seconds, ratios to the plain loop, and cosines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cxr_resnet18.moco_open")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = sorted((Path(demo.__file__).parent / "radiographs" / "images").iterdir())
    prepare = cxr_foundation.processor(options.model)
    pixels = prepare([str(p) for p in images[: options.batch]])["pixel_values"]
    model = create_model(options.model, num_classes=0).eval()
    quick = folded(model, pixels[:2])
    encoding = Encoding(quick, device="cpu")
    quick.to(memory_format=encoding.layout)

    def plain(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(batch)
        return found

    ways = {
        "plain": plain,
        "channels last": Encoding(model, device="cpu"),
        "folded": encoding,
        "folded, bfloat16": Encoding(quick, device="cpu", precision="bfloat16"),
    }
    expected = plain(pixels)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way(pixels)
            if round_:
                seconds[name].append(time.process_time() - start)
    figures = {}
    for name, way in ways.items():
        ratios = [p / s for p, s in zip(seconds["plain"], seconds[name], strict=True)]
        cosine = torch.nn.functional.cosine_similarity(way(pixels), expected).min()
        figures[name] = {
            "ms per radiograph": round(1e3 * statistics.median(seconds[name]) / len(pixels), 2),
            "times plain": round(statistics.median(ratios), 2),
            "range": [round(min(ratios), 2), round(max(ratios), 2)],
            "least cosine": round(float(cosine), 7),
        }
    print(json.dumps({"model": options.model, "size": list(pixels.shape), **figures}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
