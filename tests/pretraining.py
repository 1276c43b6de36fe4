"""What tests of whole pretraining runs share: tiny recipes, pictures, and runs in processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TINY: dict[str, Any] = {
    "name": "tiny",
    "encoder": {"architecture": "cxr_tiny", "in_chans": 1},
    "data": {"size": [32, 32]},
    "contract": {"channels": 1, "size": [32, 32], "mean": [0.5], "std": [0.25]},
    "views": {"crop_area": [0.5, 1.0], "jitter_p": 1.0, "brightness": 0.2, "noise_p": 0.5},
    "method": {
        "name": "moco_v2",
        "queue": 8,
        "momentum": 0.9,
        "dim": 8,
        "split_batch_norm": 2,
    },
    "train": {
        "epochs": 4,
        "batch": 4,
        "lr": 0.05,
        "log_steps": 1,
        "checkpoint_epochs": 0.5,
        "seed": 3,
    },
    "publish": {"tag": "tiny", "title": "A tiny encoder", "licence": "apache-2.0"},
}

# timm's own tiny networks for tests, under names of ours.
ARCHITECTURES = {
    "cxr_tiny": ("test_resnet", {}),
    "cxr_tiny_vit": ("test_vit", {"img_size": 32, "patch_size": 8}),
}

CHILD = f"""
import sys, torch
torch.set_num_threads(1)
from cxr_foundation import pretrain
from cxr_foundation.models.architectures import STOCK
STOCK.update({ARCHITECTURES!r})
pretrain.run(sys.argv[1], data=sys.argv[2], output=sys.argv[3])
"""


def draw_pictures(folder: Path, count: int, *, seed: int = 0) -> Path:
    """40 x 40 pictures of noise."""
    folder.mkdir()
    for i in range(count):
        noise = np.random.default_rng([seed, i]).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02}.png")
    return folder


def start(recipe: Path, pictures: Path, output: Path) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    with open(output.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CHILD, str(recipe), str(pictures), str(output)],
            stdout=log,
            stderr=log,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )


def finish(recipe: Path, pictures: Path, output: Path) -> Path:
    """The published weights of a run that is started, or taken up again."""
    code = start(recipe, pictures, output).wait(timeout=200)
    assert code == 0, output.with_suffix(".log").read_text()
    return output / "encoder" / "model.safetensors"


def wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    """Until a running child has written a file."""
    deadline = time.monotonic() + 100
    while not path.exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
