"""Experiments: arms that are made in different ways, compared by one protocol."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from cxr_foundation import experiments
from cxr_foundation.errors import RecipeError, UnknownName
from cxr_foundation.pretrain.recipe_file import read_recipe

TINY = {
    "data.only_may_ship": False,
    "data.sources": None,
    "data.size": [40, 40],
    "views.size": [32, 32],
    "train.epochs": 1,
    "train.batch": 8,
    "train.precision": "fp32",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Sixty labelled pictures of one source in two parts; spots are tuberculosis."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "images").mkdir()
    lines, parts = ["file,patient,labels,source,split_group"], ["split_group,split"]
    for i in range(60):
        source = np.random.default_rng(i)
        pixels = source.integers(60, 120, (64, 64), dtype=np.uint8)
        sick = i % 2
        if sick:
            pixels[20:40, 20:40] += 90
        Image.fromarray(pixels).save(folder / "images" / f"shenzhen_{i:02}.png")
        label = "tb" if sick else "normal"
        lines.append(f"images/shenzhen_{i:02}.png,p{i},{label},shenzhen,p{i}")
        parts.append(f"p{i},{'pretrain' if i < 40 else 'dev'}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    (folder / "splits.csv").write_text("\n".join(parts) + "\n")
    return folder


def write(path, **changes):
    """A small experiment as a file."""
    arms = [
        {"name": "scratch", "title": "untrained", "recipe": "simclr_small", "trained": False},
        {"name": "ssl", "title": "SimCLR", "recipe": "simclr_small", "set": TINY},
        {
            "name": "labels",
            "title": "with labels",
            "recipe": "simclr_small",
            "set": {**TINY, "method": {"name": "supervised", "classes": ["normal", "tb"]}},
        },
        {"name": "file", "title": "a file", "recipe": "simclr_small", "file": "imagenet"},
    ]
    plan = {
        "name": "drawn",
        "title": "A drawn experiment",
        "question": "Does it run?",
        "arms": arms,
        "against": "scratch",
        "mode": "knn",
        "counts": [5, "all"],
        "draws": 3,
        "seeds": [0, 1],
        "tasks": ["shenzhen-tuberculosis"],
        **changes,
    }
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    plan = write(root / "drawn.yaml")
    command = [sys.executable, "-c", "from cxr_foundation.cli import main; main()"]
    done = subprocess.run(
        [*command, "experiment", plan, "--data", drawn, "--output", root / "run"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def test_every_experiment_that_ships_reads_and_so_do_the_recipes_of_its_arms():
    assert experiments.experiments() == ["curriculum", "masking", "methods", "starts"]
    for name in experiments.experiments():
        plan = experiments.read_experiment(name)
        assert plan.name == name
        for arm in plan.arms:
            overrides = {**arm.set, "train.seed": 1}
            recipe = read_recipe(arm.recipe, overrides=overrides)
            assert all(stage.train.seed == 1 for stage in recipe.stages)


def test_the_arms_of_the_curriculum_have_the_same_number_of_epochs():
    plan = experiments.read_experiment("curriculum")
    epochs = {
        arm.name: sum(s.train.epochs for s in read_recipe(arm.recipe, overrides=arm.set).stages)
        for arm in plan.arms
    }
    assert len(set(epochs.values())) == 1


def test_an_arm_with_labels_is_not_scored_on_their_source():
    plan = experiments.read_experiment("starts")
    assert not any("kermany" in task for task in plan.tasks)


def test_a_run_compares_its_arms_and_names_what_could_not_be_tested(finished):
    root = finished
    results = json.loads((root / "run" / "results" / "results.json").read_text())
    assert results["not_testable"] == {"file": "not testable here: no file 'imagenet' was given"}
    assert set(results["rows"]) == {"shenzhen-tuberculosis"}
    rows = results["rows"]["shenzhen-tuberculosis"]
    assert set(rows) == {"scratch", "ssl", "labels", "raw_pixels"}
    assert "difference" not in rows["scratch"]["5"]
    cell = rows["labels"]["all"]
    gain = cell["estimate"] - rows["scratch"]["all"]["estimate"]
    assert cell["difference"]["estimate"] == pytest.approx(gain, abs=1e-9)
    assert results["protocol"]["split_test"] == "dev"
    assert "experiment" in results["command"]


def test_the_page_and_the_table_hold_the_same_figures_and_load_nothing(finished):
    root = finished
    folder = root / "run" / "results"
    page, table = ((folder / name).read_text() for name in ("report.html", "table.md"))
    assert "http" not in page.replace("http-equiv", "")
    row = next(line for line in table.splitlines() if line.startswith("| SimCLR"))
    for cell in row.split("|")[2:-1]:
        assert cell.strip() in page
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_arms_that_are_made_are_not_made_again(drawn, finished):
    root = finished
    weights = root / "run" / "arms" / "ssl" / "0" / "encoder" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    (root / "run" / "results").rename(root / "run" / "earlier")
    experiments.run(root / "drawn.yaml", data=drawn, output=root / "run")
    assert weights.stat().st_mtime_ns == before
    again, earlier = (
        json.loads((root / "run" / name / "results.json").read_text())["rows"]
        for name in ("results", "earlier")
    )
    assert again == earlier


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"against": "nobody"}, "'nobody' is no arm"),
        ({"mode": "forest"}, "neither probe nor knn"),
        ({"tasks": ["lungs"]}, "no standing task is called 'lungs'"),
        ({"colour": 1}, "is no experiment"),
        ({"features": "map"}, "neither 'pooled' nor"),
    ],
)
def test_a_wrong_experiment_is_refused(drawn, tmp_path, changes, reason):
    plan = write(tmp_path / "e.yaml", **changes)
    with pytest.raises(RecipeError, match=reason):
        experiments.run(plan, data=drawn, output=tmp_path / "run")
    assert not (tmp_path / "run" / "results").exists()


def test_an_unknown_experiment_names_the_closest():
    with pytest.raises(UnknownName, match="Did you mean 'starts'"):
        experiments.read_experiment("start")


def test_a_run_that_is_shorter_than_its_log_interval_tells_its_last_step(finished):
    stage = finished / "run" / "arms" / "ssl" / "0" / "stages" / "1-simclr" / "result"
    assert json.loads((stage / "figures.json").read_text())["loss"] > 0
