"""Kill a pretraining run at drawn moments, resume it every time, and compare its end.

    python tests/kill.py [--count 100] [--seed 0]

Half of the kills (SIGKILL) strike a moment after a step, half while a checkpoint is written. Each
killed run is started again and has to end in the same bytes as a run that nothing interrupts.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from cxr_foundation.files import sha256_of

# Kills itself at the step, or within the files of the checkpoint, that it is told.
CHILD = """
import os, signal, sys, threading, time, torch
torch.set_num_threads(1)
from transformers import TrainerCallback
from cxr_foundation import pretrain
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import engine
STOCK["cxr_tiny"] = ("test_resnet", {})
kind, step, delay = sys.argv[4], int(sys.argv[5]), float(sys.argv[6])
def die():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)
save, end = engine._Trainer._save_checkpoint, engine._Steps.on_step_end
def saving(self, *args):
    if kind == "saving" and self.state.global_step == step:
        threading.Thread(target=die, daemon=True).start()
    return save(self, *args)
def ending(self, args, state, control, **kwargs):
    if kind == "stepping" and state.global_step == step:
        threading.Thread(target=die, daemon=True).start()
    return end(self, args, state, control, **kwargs)
engine._Trainer._save_checkpoint, engine._Steps.on_step_end = saving, ending
pretrain.run(sys.argv[1], data=sys.argv[2], output=sys.argv[3])
"""


def start(root: Path, output: Path, *kill: object) -> int:
    """Run to the end or to its death; the exit status."""
    places = [str(path) for path in (root / "tiny.yaml", root / "pictures", output)]
    told = [str(part) for part in (kill or ("never", 0, 0))]
    with open(output.with_suffix(".log"), "ab") as log:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, *places, *told],
            stdout=log,
            stderr=log,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            timeout=600,
        ).returncode


def moments(count: int, seed: int, *, steps: int, interval: int) -> list[tuple[str, int, float]]:
    """Drawn moments: (kind, step, seconds after it); every other one while a checkpoint is made."""
    source = random.Random(seed)
    drawn = []
    for number in range(count):
        if number % 2:
            drawn.append(("stepping", source.randint(1, steps - 1), source.uniform(0, 0.05)))
        else:
            step = interval * source.randint(1, steps // interval - 1)
            drawn.append(("saving", step, source.uniform(0, 0.1)))
    return drawn


def killed_and_resumed(root: Path, output: Path, moment: tuple[str, int, float]) -> tuple[int, str]:
    """Exit status of the killed run, and SHA-256 of the encoder that its resumption ends in."""
    status = start(root, output, *moment)
    weights = output / "encoder" / "model.safetensors"
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(
            f"{moment}: ended with {status}:\n{output.with_suffix('.log').read_text()}"
        )
    if status == 0 and weights.exists():
        return status, sha256_of(weights)
    again = start(root, output)
    if again != 0:
        raise SystemExit(f"{moment}: the resumed run ended with {again}, see {output}.log")
    return status, sha256_of(weights)


def main() -> None:
    """Print one line per kill and how many ended in the same bytes."""
    from test_pretrain import TINY, draw_pictures

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        draw_pictures(root / "pictures", 18)
        assert start(root, root / "whole") == 0
        expected = sha256_of(root / "whole" / "encoder" / "model.safetensors")
        equal = struck = 0
        drawn = moments(options.count, options.seed, steps=16, interval=2)
        for number, moment in enumerate(drawn):
            begun = time.monotonic()
            status, digest = killed_and_resumed(root, root / f"run{number}", moment)
            struck += status == -signal.SIGKILL
            equal += digest == expected
            print(number, *moment, status, digest == expected, f"{time.monotonic() - begun:.0f} s")
        print(f"{equal} of {options.count} ended in the same bytes; {struck} were killed")
        if equal < options.count:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
