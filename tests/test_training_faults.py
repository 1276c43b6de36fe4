"""What may happen to a run: kills, full disks, broken files, and what then has to happen."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import kill
import numpy as np
import psutil
import pytest
import test_pretrain
import torch
import yaml
from PIL import Image
from test_pretrain import CHECKPOINTS, TINY, draw_pictures

from cxr_foundation import pretrain
from cxr_foundation.errors import (
    CxrError,
    OutputExists,
    OutputFailed,
    RecipeError,
    UnreadableImage,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.pretrain import checkpoints, engine
from cxr_foundation.pretrain.methods.moco_v2 import MocoV2

tiny_architecture = test_pretrain.tiny_architecture
one_thread = test_pretrain.one_thread
recipe, pictures = test_pretrain.recipe, test_pretrain.pictures

ONE_EPOCH = {"train.epochs": 1}


# Kills. `python tests/kill.py` does a hundred of them.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("kills")
    # Eight steps, with a checkpoint after every second.
    recipe = {**TINY, "train": {**TINY["train"], "epochs": 2}}
    (root / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    draw_pictures(root / "pictures", 18)
    return root


@pytest.fixture(scope="module")
def whole(root):
    assert kill.start(root, root / "whole") == 0, (root / "whole.log").read_text()
    return sha256_of(root / "whole" / "encoder" / "model.safetensors")


@pytest.mark.parametrize("number", range(3))
def test_a_run_killed_at_a_drawn_moment_ends_in_the_same_bytes(root, whole, number):
    moment = kill.moments(3, 7, steps=8, interval=2)[number]
    status, digest = kill.killed_and_resumed(root, root / f"run{number}", moment)
    assert status == -signal.SIGKILL
    assert digest == whole


def test_half_of_the_drawn_kills_strike_while_a_checkpoint_is_written():
    drawn = kill.moments(100, 0, steps=16, interval=2)
    assert sum(kind == "saving" for kind, _, _ in drawn) == 50
    assert drawn == kill.moments(100, 0, steps=16, interval=2)
    assert all(step % 2 == 0 for kind, step, _ in drawn if kind == "saving")


# Checkpoints.


def checkpoint(folder, step):
    made = folder / f"checkpoint-{step}"
    made.mkdir()
    for name in ("model.safetensors", "optimizer.pt"):
        (made / name).write_bytes(bytes(range(64)))
    checkpoints.seal(made)
    return made


def truncated(file):
    file.write_bytes(file.read_bytes()[:10])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [truncated, flipped, lambda f: f.write_bytes(b""), os.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "complete.json"])
def test_a_harmed_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, harm, name):
    older, newer = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == newer
    harm(newer / name)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path) == older
    assert "checkpoint-10 is passed over" in caplog.text


def test_no_whole_checkpoint_is_told(tmp_path, caplog):
    truncated(checkpoint(tmp_path, 2) / "optimizer.pt")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path) is None
    assert "holds no whole checkpoint: training starts again" in caplog.text


def test_the_checkpoints_of_the_highest_steps_are_kept_whatever_the_clock_says(tmp_path):
    for step in (2, 4, 10):
        made = checkpoint(tmp_path, step)
        # The clock runs backwards.
        os.utime(made, (1e9 - step, 1e9 - step))
    checkpoints.keep(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4"]


# Numbers that are not finite.


def poisoned(at, harm):
    """MoCo v2 whose loss is changed in one call."""
    calls, forward = [], MocoV2.forward

    def changed(self, *args, **kwargs):
        calls.append(None)
        seen = forward(self, *args, **kwargs)
        return {**seen, "loss": harm(seen["loss"])} if len(calls) == at else seen

    return changed


class Infinite(torch.autograd.Function):
    """A finite value whose gradient is not."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize(
    ("harm", "what"),
    [(lambda loss: loss * float("nan"), "the loss is nan"), (Infinite.apply, "the norm of the")],
)
def test_what_is_not_finite_stops_the_run_and_spares_the_last_checkpoint(
    recipe, pictures, tmp_path, monkeypatch, harm, what
):
    monkeypatch.setattr(MocoV2, "forward", poisoned(4, harm))
    with pytest.raises(RecipeError, match=rf"train\.lr: {what}.*at step 4 \(pictures \d\d\.png"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=ONE_EPOCH)
    # Checkpoints are written every two steps.
    folder = tmp_path / "run" / CHECKPOINTS
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert checkpoints.newest(folder) == folder / "checkpoint-2"


# Pictures that cannot be read.


def many(folder, count=1001):
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
    return folder


SKIPPING = {
    **ONE_EPOCH,
    "data.bad": "skip",
    "data.size": [16, 16],
    "views.size": [32, 32],
    "train.batch": 100,
    "method.queue": 100,
    "train.checkpoint_epochs": 1,
}


@pytest.mark.parametrize("in_memory", [True, False])
def test_one_unreadable_picture_in_a_thousand_is_skipped_counted_and_told(
    recipe, tmp_path, caplog, in_memory
):
    folder = many(tmp_path / "many")
    # Any number of bad ones is seen in the first epoch but for the few that are left out of it.
    taken = list(engine.distributed.Share(1001, batch=100, seed=3))
    bad = folder / f"{taken[0][0][1]:04}.png"
    bad.write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        pretrain.run(
            recipe,
            data=folder,
            output=tmp_path / "run",
            overrides={**SKIPPING, "data.in_memory": in_memory},
        )
    assert f"left out: {bad}" in caplog.text
    result = tmp_path / "run" / "stages" / "1-moco_v2" / "result" / "figures.json"
    assert json.loads(result.read_text())["skipped"] == 1


def test_more_than_one_in_a_thousand_is_an_error(recipe, pictures, tmp_path):
    (pictures / "07.png").write_bytes(b"no picture")
    overrides = {**ONE_EPOCH, "data.bad": "skip", "train.batch": 2, "method.split_batch_norm": None}
    with pytest.raises(RecipeError, match=r"data\.bad: 1 of 18 pictures cannot be read \(07\.png"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=overrides)


def test_a_picture_that_breaks_while_the_run_goes_on_is_an_error_by_name(
    recipe, pictures, tmp_path, monkeypatch
):
    forward = MocoV2.forward

    def breaking(self, *args, **kwargs):
        for path in pictures.iterdir():
            path.write_bytes(b"no picture any more")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MocoV2, "forward", breaking)
    with pytest.raises(UnreadableImage, match=r"\d\d\.png"):
        pretrain.run(
            recipe, data=pictures, output=tmp_path / "run", overrides={"data.in_memory": False}
        )


# Workers.

WORKERS = """
import sys, torch
torch.set_num_threads(1)
from cxr_foundation.cli import main
from cxr_foundation.models.architectures import STOCK
STOCK["cxr_tiny"] = ("test_resnet", {})
sys.argv = ["cxr", "pretrain", sys.argv[1], "--data", sys.argv[2], "--output", sys.argv[3],
            "--set", "train.workers=1", "--set", "train.epochs=1000"]
main()
"""


def test_a_killed_worker_ends_the_run_with_a_clear_error_and_no_process_is_left(
    recipe, pictures, tmp_path
):
    log = tmp_path / "log"
    with open(log, "wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", WORKERS, str(recipe), str(pictures), str(tmp_path / "run")],
            stdout=file,
            stderr=file,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
    test_pretrain.wait_for(tmp_path / "run" / CHECKPOINTS / "checkpoint-2/complete.json", child)
    (worker,) = psutil.Process(child.pid).children()
    start = time.monotonic()
    worker.kill()
    assert child.wait(timeout=60) == 1
    assert time.monotonic() - start < 60
    assert not psutil.pid_exists(worker.pid)
    assert "train.workers: a process that makes views died or hangs" in log.read_text()


def test_a_worker_that_gives_nothing_is_told(recipe, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE_SECONDS", 1)
    monkeypatch.setattr(engine.Batches, "__call__", lambda self, items: time.sleep(30))
    with pytest.raises(RecipeError, match=r"train\.workers: .* hangs \(DataLoader timed out"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides={"train.workers": 1})


# The run's folder.


def test_a_folder_in_which_a_run_is_at_work_is_refused_until_it_dies(
    recipe, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "_LOCK_SECONDS", 0.1)
    output = tmp_path / "run"
    child = test_pretrain.start(recipe, pictures, output)
    test_pretrain.wait_for(output / "run.json", child)
    with pytest.raises(OutputExists, match="another run is at work in it"):
        pretrain.run(recipe, data=pictures, output=output)
    child.send_signal(signal.SIGKILL)
    child.wait()
    # Its lock died with it: now only the recipe is compared.
    with pytest.raises(RecipeError, match="started differently"):
        pretrain.run(recipe, data=pictures, output=output, overrides=ONE_EPOCH)


def test_a_folder_that_is_not_writable_is_told_before_anything_is_trained(
    recipe, pictures, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputFailed, match="the place is not writable"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "file" / "run")


def test_other_versions_are_refused_by_name(recipe, pictures, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.stages, "run_stage", refuse)
        with pytest.raises(CxrError, match="not today"):
            pretrain.run(recipe, data=pictures, output=run)
    note = json.loads((run / "run.json").read_text())
    note["versions"]["torch"] = "1.0"
    (run / "run.json").write_text(json.dumps(note))
    with pytest.raises(RecipeError, match=r"versions\.torch: '1\.0' → "):
        pretrain.run(recipe, data=pictures, output=run)


def refuse(*args, **kwargs):
    raise CxrError("run_stage", "not today")
