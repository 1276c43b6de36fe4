"""A curriculum in the order of what each of its stages does alone."""

import json
import os
import signal
import subprocess
import sys
import time

import drawn_run
import pytest
import torch

from cxr_foundation import catalog, pretrain
from cxr_foundation.errors import BadLabels, RecipeError
from cxr_foundation.files import sha256_of
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import order
from cxr_foundation.pretrain.recipe_file import read_recipe

# Told apart by their learning rates.
STAGES = [{"train": {"lr": rate}} for rate in (0.05, 0.2)]

CHILD = """
import sys, torch
torch.set_num_threads(1)
from cxr_foundation.models.architectures import STOCK
STOCK["cxr_tiny"] = ("test_resnet", {})
from cxr_foundation.cli import main
main()
"""


@pytest.fixture(autouse=True, scope="module")
def tiny_architecture():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STOCK, "cxr_tiny", ("test_resnet", {}))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("order")


@pytest.fixture(scope="module")
def recipe(root):
    return drawn_run.recipe(root, stages=STAGES)


@pytest.fixture(scope="module")
def pictures(root):
    return drawn_run.labelled(root / "pictures")


def start(recipe, pictures, output):
    command = ["pretrain", str(recipe), "--data", str(pictures), "--output", str(output)]
    command += ["--order-by-probe", "--order-epochs", "1"]
    with open(output.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CHILD, *command],
            stdout=log,
            stderr=log,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )


@pytest.fixture(scope="module")
def ordered(root, recipe, pictures):
    """A run that was killed after its first trial, and started again."""
    output = root / "run"
    child = start(recipe, pictures, output)
    deadline = time.monotonic() + 200
    while not (output / "order" / "1-moco_v2" / "score.json").exists():
        assert child.poll() is None, output.with_suffix(".log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (output / "ordered.yaml").exists()
    child = start(recipe, pictures, output)
    assert child.wait(timeout=200) == 0, output.with_suffix(".log").read_text()
    return output


def test_stages_come_in_the_order_of_their_scores_lowest_first(ordered):
    scores = [
        json.loads((ordered / "order" / f"{i}-moco_v2" / "score.json").read_text())["knn_mean"]
        for i in (1, 2)
    ]
    rates = [stage.train.lr for stage in read_recipe(ordered / "ordered.yaml").stages]
    assert rates == ([0.05, 0.2] if scores[0] <= scores[1] else [0.2, 0.05])


def test_the_card_says_that_labels_chose_the_order(ordered):
    card = catalog.read_record(ordered / "encoder" / "README.md")
    assert card.training.labels_used_for_selection is True
    text = catalog.body_of(ordered / "encoder" / "README.md")
    assert "The order of the stages was chosen with labels" in text


def test_the_ordered_recipe_gives_the_same_encoder_by_itself(ordered, pictures, tmp_path):
    again = pretrain.run(ordered / "ordered.yaml", data=pictures, output=tmp_path / "again")
    files = [folder / "model.safetensors" for folder in (ordered / "encoder", again)]
    assert sha256_of(files[0]) == sha256_of(files[1])


def test_other_labels_are_another_run(ordered, recipe, pictures, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes((ordered / "run.json").read_bytes())
    with pytest.raises(RecipeError, match=r"order\.watch\.labels: 2 → 3"):
        pretrain.run(
            recipe,
            data=pictures,
            output=tmp_path / "run",
            overrides={"watch.labels": 3},
            order_epochs=1,
        )


def test_equal_scores_keep_the_recipes_order(recipe, tmp_path, monkeypatch):
    plan = read_recipe(recipe, overrides={"stages": [*STAGES, *STAGES]})
    scores = iter([0.8, 0.6, 0.7, 0.6])
    monkeypatch.setattr(order, "_score", lambda *_: next(scores))

    class Probe:
        score_key = "knn_mean"

    changed, places = order.by_probe(plan, [[]] * 4, run=tmp_path, probe=Probe(), epochs=3)
    assert places == [1, 3, 2, 0]
    assert [s.train.lr for s in changed.stages] == [0.2, 0.2, 0.05, 0.05]


def test_a_stage_alone_keeps_the_shape_of_its_schedule(recipe):
    plan = read_recipe(recipe, overrides={"train.epochs": 40, "train.warmup_epochs": 10})
    single = order.alone(plan, 1, epochs=4)
    assert [(s.train.lr, s.train.epochs, s.train.warmup_epochs) for s in single.stages] == [
        (0.2, 4, 1.0)
    ]


def test_one_stage_has_no_order(pictures, tmp_path):
    with pytest.raises(RecipeError, match="one stage has no order"):
        pretrain.run(
            drawn_run.recipe(tmp_path), data=pictures, output=tmp_path / "run", order_epochs=1
        )


def test_without_labels_nothing_is_ordered_and_nothing_was_started(recipe, pictures, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for path in pictures.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadLabels, match=r"no task can be scored.*no split at all"):
        pretrain.run(recipe, data=folder, output=tmp_path / "run", order_epochs=1)
    assert not (tmp_path / "run" / "order").exists()
