"""A ready ViT-B from a local file: this package, timm's own way, and the floor under both.

    python benchmarks/load.py [--rounds 7] [--json FILE]

Every case is a fresh process, and the cases of a round follow one another, so that a ratio compares
what ran at the same time. "Ready" means built, loaded, and every byte of every parameter summed.
The floor maps the file and sums its bytes. Imports are not counted; memory is the growth of the
peak over the process just before. The weights are random, made here, and thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = {
    "timm / ours, seconds": ("at least", 5.0),
    "ours / floor, seconds": ("at most", 7.0),
    "ours / timm, peak memory": ("at most", 0.55),
}
CASES = ("floor", "ours", "timm")

CHILD = """
import json, sys, time
case, file, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
import torch
from safetensors.torch import load_file
torch.set_num_threads(threads)
if case != "floor":
    import timm
if case == "ours":
    import cxr_foundation

def total(tensors):
    return sum(float(t.sum()) for t in tensors)

def peak():
    # Of this program alone: the kernel's other figure goes back to the process that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

total([torch.ones(8)])
memory = peak()
start = time.perf_counter()
if case == "floor":
    total(load_file(file).values())
else:
    overlay = {"file": file, "num_classes": 0, "custom_load": False}
    name = "cxr_vit_b" if case == "ours" else "vit_base_patch16_224"
    shape = {"num_classes": 0, "in_chans": 3, "img_size": 224}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **shape)
    total(model.parameters())
seconds = time.perf_counter() - start
grown = peak() - memory
print(json.dumps({"seconds": seconds, "mb": grown / 1024}))
"""


def run(case: str, file: Path, threads: int) -> dict[str, float]:
    """One case in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, case, str(file), str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def write_weights(file: Path) -> None:
    """A ViT-B/16 with random weights, as a published file."""
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0)
    save_file(model.state_dict(), file, metadata={"format": "pt"})


def ratios(rounds: list[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """The three figures of each round."""
    return {
        "timm / ours, seconds": [r["timm"]["seconds"] / r["ours"]["seconds"] for r in rounds],
        "ours / floor, seconds": [r["ours"]["seconds"] / r["floor"]["seconds"] for r in rounds],
        "ours / timm, peak memory": [r["ours"]["mb"] / r["timm"]["mb"] for r in rounds],
    }


def main() -> None:
    """Run the rounds, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.safetensors"
        write_weights(file)
        for case in CASES:
            run(case, file, options.threads)  # warms the page cache
        rounds = [{c: run(c, file, options.threads) for c in CASES} for _ in range(options.rounds)]
    print("| case | seconds | peak MB |\n|---|---|---|")
    for case in CASES:
        seconds, mb = (statistics.median(r[case][k] for r in rounds) for k in ("seconds", "mb"))
        print(f"| {case} | {seconds:.3f} | {mb:.0f} |")
    print("\n| ratio | median (least..largest) | target |\n|---|---|---|")
    found = ratios(rounds)
    for name, values in found.items():
        word, target = TARGETS[name]
        median = statistics.median(values)
        good = median >= target if word == "at least" else median <= target
        spread = f"{median:.2f} ({min(values):.2f}..{max(values):.2f})"
        print(f"| {name} | {spread} | {word} {target:g}: {'met' if good else 'MISSED'} |")
    result = {"rounds": rounds, "ratios": found, "targets": TARGETS, "threads": options.threads}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
