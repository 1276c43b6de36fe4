"""Group masking of a batch against a loop over its pictures, interleaved.

    python benchmarks/masks.py                  # CPU, one thread
    python benchmarks/masks.py --device cuda    # the device's time alone, no loop

The loop is written from the description of GMML's and SiT's code (Atito et al., arXiv 2205.14986
and 2104.03602): blocks are laid on one picture after the other until enough of it is hidden, the
hidden pixels are counted after each block, and each block is filled as it is laid. It runs on a
copy of the batch and a mask of all channels, as theirs does. Both are given the same law, the same
pictures and the same fill. "batch" writes into memory that is there already, "batch, fresh memory"
asks for new memory as the loop does. Ratios are medians over rounds in which each case ran once.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cxr_foundation.pretrain.masks import Corruption, corrupt, cover, draw_blocks

# What group masking of a batch must reach on a CPU, with blocks aligned to patches of 16 pixels and
# other pictures as the fill.
STATED = 6.0


def looped(
    images: torch.Tensor, *, align: int, fraction: float, fill: str, source: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """The corrupted batch and its mask, picture by picture and block by block."""
    corrupted, masks = images.clone(), torch.zeros_like(images)
    height, width = images.shape[-2:]
    for picture, mask in zip(corrupted, masks, strict=True):
        donor = images[source.randrange(len(images))]
        while mask[0].sum() < fraction * height * width:
            top = source.randrange(height - align) // align * align
            left = source.randrange(width - align) // align * align
            rows = min(source.randrange(align, int(0.3 * height)), height - top)
            columns = min(source.randrange(align, int(0.3 * width)), width - left)
            rows, columns = round(rows / align) * align, round(columns / align) * align
            place = (slice(None), slice(top, top + rows), slice(left, left + columns))
            if fill == "alien":
                picture[place] = donor[place]
            elif fill == "noise":
                picture[place] = torch.randn(picture[place].shape)
            else:
                picture[place] = 0
            mask[place] = 1
    return corrupted, masks


def settings(*, align: int, fraction: float, fill: str) -> Corruption:
    """The package's settings for the same."""
    part = (fraction, fraction)
    if fill == "alien":
        return Corruption(alien_p=1.0, alien_fraction=part, align=align, law="published")
    fills = ("noise",) if fill == "noise" else ("zeros",)
    return Corruption(alien_p=0.0, fraction=part, fills=fills, align=align, law="published")


def masked(images: torch.Tensor, *, align: int, fraction: float, draw: int) -> torch.Tensor:
    """Which cells are hidden, and nothing else."""
    generator = torch.Generator(images.device).manual_seed(draw)
    size = (images.shape[-2], images.shape[-1])
    blocks = draw_blocks(
        len(images),
        size=size,
        align=align,
        largest=0.3,
        law="published",
        most=fraction,
        generator=generator,
    )
    target = torch.full((len(images),), fraction, device=images.device)
    return cover(blocks, target, size=size, align=align)[0]


def interleaved(cases: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of every case in every round, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(images: torch.Tensor, *, rounds: int, loop: bool) -> list[dict[str, object]]:
    """Rows of the table."""
    source, rows, out = random.Random(0), [], torch.empty_like(images)
    for align in (16, 1):
        for fraction in (0.5, 0.75):
            for fill in ("alien", "zeros", "noise"):
                made = settings(align=align, fraction=fraction, fill=fill)
                given = {"align": align, "fraction": fraction}
                cases: dict[str, Callable[[], object]] = {
                    "batch": lambda made=made: corrupt(images, made, align=16, draw=1, out=out),
                    "batch, fresh memory": lambda made=made: corrupt(
                        images, made, align=16, draw=1
                    ),
                    "masks alone": lambda given=given: masked(images, **given, draw=1),
                }
                if loop:
                    cases["loop"] = lambda given=given, fill=fill: looped(
                        images, **given, fill=fill, source=source
                    )
                seconds = interleaved(cases, rounds=rounds)
                row: dict[str, object] = {**given, "fill": fill}
                for name, of in seconds.items():
                    row[f"{name} ms"] = 1e3 * statistics.median(of)
                    if loop and name != "loop":
                        ratios = [a / b for a, b in zip(seconds["loop"], of, strict=True)]
                        row[f"{name} speed-up"] = statistics.median(ratios)
                rows.append(row)
    return rows


def main() -> int:
    """Run from the command line; exit code 1 if the stated speed-up is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (options.batch, options.channels, options.side, options.side)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(options.device)
    loop = options.device == "cpu"
    rows = measure(images, rounds=options.rounds, loop=loop)
    print(
        f"{list(shape)} float32 on {options.device}, published law, medians of {options.rounds}\n"
    )
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = [f"{v:.1f}" if " " in k else str(v) for k, v in row.items()]
        print(f"| {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if not loop:
        return 0
    reached = min(
        float(str(row["batch speed-up"]))
        for row in rows
        if row["align"] == 16 and row["fill"] == "alien"
    )
    print(f"\naligned, another picture: {reached:.1f} times the loop; stated is {STATED:.0f}")
    return 0 if reached >= STATED else 1


if __name__ == "__main__":
    sys.exit(main())
