"""Time and peak memory of `cxr inspect` on a checkpoint of a gigabyte, as a process.

    python benchmarks/inspect_file.py [--gigabytes 1.0] [--rounds 5]

The file is a ViT-B with its optimiser, as torch saves it. Beside it stands what importing torch
alone takes, which every tool that opens the file by torch pays first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measured(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return time.monotonic() - began, usage.ru_maxrss / 1024


def write(path: Path, gigabytes: float) -> None:
    """A ViT-B, or a ViT-L where it fits, filled up to the size by an optimiser's state."""
    import timm
    import torch

    torch.manual_seed(0)
    size = "vit_large_patch16_224" if gigabytes >= 1.22 else "vit_base_patch16_224"
    state = timm.create_model(size, num_classes=0).state_dict()
    held = sum(t.numel() * t.element_size() for t in state.values())
    rest = torch.randn(max(0, int(gigabytes * 1e9) - held) // 4)
    torch.save({"model": state, "optimizer": {"state": {0: {"exp_avg": rest}}}, "epoch": 1}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "checkpoint.pth"
        # In a process of its own: a child's peak memory begins with that of its parent.
        writer = multiprocessing.get_context("spawn").Process(
            target=write, args=(path, asked.gigabytes)
        )
        writer.start()
        writer.join()
        commands = {
            "cxr inspect": [str(Path(sys.executable).with_name("cxr")), "inspect", str(path)],
            "import torch": [sys.executable, "-c", "import torch"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(asked.rounds):
            for name, command in commands.items():
                found[name].append(measured(command))
        print(f"{path.stat().st_size:,} bytes, {asked.rounds} rounds, median (largest)")
        for name, runs in found.items():
            seconds, megabytes = zip(*runs, strict=True)
            print(
                f"{name:13} {statistics.median(seconds):5.2f} s ({max(seconds):.2f}), "
                f"{statistics.median(megabytes):4.0f} MB ({max(megabytes):.0f})"
            )
