"""A labelled data set and a recipe that are small enough to pretrain on in a test."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "encoder": {"architecture": "cxr_tiny", "in_chans": 1},
    "data": {"size": [32, 32]},
    "contract": {"channels": 1, "size": [32, 32], "mean": [0.5], "std": [0.25]},
    "views": {"crop_area": [0.5, 1.0], "jitter_p": 1.0, "brightness": 0.2},
    "method": {"name": "moco_v2", "queue": 8, "momentum": 0.9, "dim": 8, "split_batch_norm": 2},
    "train": {
        "epochs": 2,
        "batch": 4,
        "lr": 0.05,
        "log_steps": 1,
        "checkpoint_epochs": 0.5,
        "seed": 3,
    },
    "watch": {"labels": 2, "draws": 2},
    "publish": {"tag": "tiny", "title": "A tiny encoder", "licence": "apache-2.0"},
}

TASKS = {
    "tasks": [
        {
            "name": "bright",
            "title": "Bright or dark",
            "source": None,
            "positive": "bright",
            "negative": "dark",
        },
        {
            "name": "rare",
            "title": "Rare or dark",
            "source": None,
            "positive": "rare",
            "negative": "dark",
        },
    ]
}


def recipe(folder: Path, **changed: Any) -> Path:
    """Write the recipe, with some of its keys changed, and the tasks that it is watched by."""
    tasks, path = folder / "tasks.yaml", folder / "tiny.yaml"
    tasks.write_text(yaml.safe_dump(TASKS))
    whole = {**RECIPE, **changed}
    whole["watch"] = {"tasks": str(tasks), **RECIPE["watch"], **changed.get("watch", {})}
    path.write_text(yaml.safe_dump(whole))
    return path


def labelled(folder: Path, *, pretrain: int = 8, dev: int = 6) -> Path:
    """40 x 40 pictures of faint noise, every other one brighter; one patient each; index.csv."""
    folder.mkdir()
    with open(folder / "index.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "patient", "labels", "split"])
        for i in range(pretrain + dev):
            noise = np.random.default_rng(i).integers(60, 110, (40, 40)) + 60 * (i % 2)
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"picture-{i:02}.png")
            label = "bright" if i % 2 else "dark"
            part = "pretrain" if i < pretrain else "dev"
            rows.writerow([f"picture-{i:02}.png", f"Doe^Jane-{i:02}", label, part])
    return folder
