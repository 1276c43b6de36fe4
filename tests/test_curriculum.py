"""A curriculum: pretext tasks in order, each from the encoder that the last one left."""

import copy
import json
import signal

import pytest
import timm
import torch
import yaml
from pretraining import ARCHITECTURES, TINY, draw_pictures, start, wait_for
from safetensors.torch import load_file

from cxr_foundation import catalog, data, pretrain
from cxr_foundation.errors import RecipeError
from cxr_foundation.files import sha256_of
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import stages
from cxr_foundation.pretrain.methods.jigsaw import _Places
from cxr_foundation.pretrain.pictures import data_digest
from cxr_foundation.pretrain.recipe_file import read_recipe

# Three tasks, three sizes of views; four steps of four pictures per epoch, checkpoints every two.
THREE = {
    **{key: value for key, value in TINY.items() if key != "method"},
    "data": {"size": [48, 48]},
    "train": {**TINY["train"], "epochs": 2, "lr": 0.01},
    "stages": [
        {"method": {"name": "rotation"}},
        {
            "method": {"name": "jigsaw", "orders": 10, "tile_width": 8, "hidden": 16},
            "views": {"size": [48, 48]},
            "train": {"epochs": 3},
        },
        {"method": {"name": "inpainting", "width": 16}, "views": {"size": [40, 40]}},
    ],
}


@pytest.fixture(autouse=True, scope="module")
def tiny_architectures():
    """timm's own tiny networks for tests, under names of ours."""
    with pytest.MonkeyPatch.context() as patch:
        for name, network in ARCHITECTURES.items():
            patch.setitem(STOCK, name, network)
        yield


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(folder, **changes):
    path = folder / "three.yaml"
    path.write_text(yaml.safe_dump({**THREE, **changes}))
    return path


@pytest.fixture
def recipe(tmp_path):
    return written(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    return draw_pictures(tmp_path / "pictures", 18)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with recipe, pictures and the run of a curriculum that nothing interrupts."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("whole")
    pictures = draw_pictures(root / "pictures", 18)
    pretrain.run(written(root), data=pictures, output=root / "run")
    return root


def published_digest(root):
    return sha256_of(root / "run" / "encoder" / "model.safetensors")


# From start to end.


def test_a_curriculum_ends_in_a_folder_that_plain_timm_loads(whole):
    model = timm.create_model(f"local-dir:{whole}/run/encoder", pretrained=True)
    tensors = load_file(whole / "run" / "encoder" / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name].float()) for name in state)


def test_what_is_published_is_what_the_last_stage_left(whole):
    last = load_file(whole / "run" / "stages" / "3-inpainting" / "result" / "encoder.safetensors")
    tensors = load_file(whole / "run" / "encoder" / "model.safetensors")
    halves = {n: t.half() if t.is_floating_point() else t for n, t in last.items()}
    assert halves.keys() == tensors.keys()
    assert all(torch.equal(halves[name], tensors[name]) for name in halves)


def test_the_card_tells_the_lineage_with_each_stages_figures(whole):
    card = whole / "run" / "encoder" / "README.md"
    assert catalog.read_record(card).training.method == "Rotation → Jigsaw → Inpainting"
    rows = [line for line in catalog.body_of(card).splitlines() if line.startswith("| ")][1:]
    digest = data_digest(data.read_index(whole / "pictures"))
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| 1", "Rotation (arXiv 1803.07728)", "18", "2"],
        ["| 2", "Jigsaw (arXiv 1603.09246)", "18", "3"],
        ["| 3", "Inpainting (arXiv 1604.07379)", "18", "2"],
    ]
    for number, (row, task) in enumerate(
        zip(rows, ("rotation", "jigsaw", "inpainting"), strict=True), start=1
    ):
        result = whole / "run" / "stages" / f"{number}-{task}" / "result"
        figures = json.loads((result / "figures.json").read_text())
        assert f"loss {figures['loss']:.4g}" in row
        own = "psnr" if task == "inpainting" else "accuracy"
        assert f"{figures[own]:.4g}" in row
        assert digest in row


def test_each_stage_starts_from_the_encoder_that_the_last_one_left(whole):
    plan = read_recipe(whole / "three.yaml")
    first = load_file(whole / "run" / "stages" / "1-rotation" / "result" / "encoder.safetensors")
    start_of_second = stages.build(plan, 1, run=whole / "run").encoder.state_dict()
    random = stages.build(plan, 0, run=whole / "run").encoder.state_dict()
    assert all(torch.equal(start_of_second[name], first[name]) for name in first)
    assert not all(torch.equal(random[name], first[name]) for name in first)


def test_a_stage_that_learns_nothing_hands_on_what_it_was_given(tmp_path, pictures):
    still = {"epochs": 1, "lr": 1e-30, "weight_decay": 0.0}
    recipe = written(
        tmp_path,
        encoder={"architecture": "cxr_tiny_vit", "in_chans": 1},
        stages=[
            {"method": {"name": "denoising", "width": 16}, "train": {"epochs": 1}},
            {**THREE["stages"][1], "train": still},
        ],
    )
    pretrain.run(recipe, data=pictures, output=tmp_path / "run")
    first, second = (
        load_file(tmp_path / "run" / "stages" / name / "result" / "encoder.safetensors")
        for name in ("1-denoising", "2-jigsaw")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = stages.build(read_recipe(recipe), 0, run=tmp_path / "run").encoder.state_dict()
    assert not torch.equal(before["blocks.0.attn.qkv.weight"], first["blocks.0.attn.qkv.weight"])


# What interrupts it.


def test_a_curriculum_killed_in_its_second_stage_ends_in_the_same_bytes(
    recipe, pictures, tmp_path, whole
):
    run = tmp_path / "run"
    child = start(recipe, pictures, run)
    second = run / "stages" / "2-jigsaw"
    # The sixth of twelve steps is in the middle of an epoch.
    wait_for(second / "checkpoints" / "checkpoint-6" / "complete.json", child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (second / "result").exists()
    first = run / "stages" / "1-rotation" / "result" / "encoder.safetensors"
    written_at = first.stat().st_mtime_ns
    pretrain.run(recipe, data=pictures, output=run)
    assert published_digest(tmp_path) == published_digest(whole)
    assert first.stat().st_mtime_ns == written_at


def test_a_curriculum_killed_between_stages_ends_in_the_same_bytes(
    recipe, pictures, tmp_path, whole
):
    run = tmp_path / "run"
    child = start(recipe, pictures, run)
    wait_for(run / "stages" / "1-rotation" / "result", child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not list((run / "stages").glob("2-jigsaw/checkpoints/checkpoint-*"))
    pretrain.run(recipe, data=pictures, output=run)
    assert published_digest(tmp_path) == published_digest(whole)


def test_a_changed_stage_is_refused_by_its_key(whole, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text((whole / "run" / "run.json").read_text())
    changed = copy.deepcopy(THREE["stages"])
    changed[1]["method"]["orders"] = 12
    recipe = written(tmp_path, stages=changed)
    with pytest.raises(RecipeError, match=r"recipe\.stages\.1\.method\.orders: 10 → 12\)"):
        pretrain.run(recipe, data=whole / "pictures", output=run)


def test_stages_in_another_order_are_refused(whole, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text((whole / "run" / "run.json").read_text())
    recipe = written(tmp_path, stages=THREE["stages"][::-1])
    with pytest.raises(RecipeError, match=r"recipe\.stages\.0\.method\."):
        pretrain.run(recipe, data=whole / "pictures", output=run)


# Data of its own.


def test_a_stage_may_have_radiographs_of_its_own(tmp_path, pictures):
    own = draw_pictures(tmp_path / "own", 9, seed=1)
    recipe = written(
        tmp_path,
        train={**THREE["train"], "epochs": 1},
        stages=[
            {"method": {"name": "rotation"}},
            {"method": {"name": "denoising", "width": 16}, "data": {"path": str(own)}},
        ],
    )
    published = pretrain.run(recipe, data=pictures, output=tmp_path / "run")
    card = published / "README.md"
    assert catalog.read_record(card).training.images == 27
    rows = [line for line in catalog.body_of(card).splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[2] for row in rows] == ["18", "9"]
    for row, folder in zip(rows, (pictures, own), strict=True):
        assert data_digest(data.read_index(folder)) in row


# The recipes that ship.


@pytest.mark.parametrize("name", ["curricular", "curricular_small"])
def test_the_shipped_curricula_order_four_pretext_tasks_on_one_set_of_radiographs(name):
    recipe = read_recipe(name)
    assert [stage.method for stage in recipe.stages] == [
        "denoising",
        "inpainting",
        "jigsaw",
        "rotation",
    ]
    assert len({stage.data for stage in recipe.stages}) == 1
    assert all(stage.views.flip_p == 0 for stage in recipe.stages)


def test_the_curriculums_jigsaw_has_the_papers_cells_and_tiles():
    recipe = read_recipe("curricular")
    (jigsaw,) = (stage for stage in recipe.stages if stage.method == "jigsaw")
    places = [_Places(side, jigsaw.settings) for side in jigsaw.views.size]
    assert [(p.cell, p.tile) for p in places] == [(75, 64), (75, 64)]


def test_the_small_curriculum_takes_open_radiographs_only():
    assert all(stage.data.only_may_ship for stage in read_recipe("curricular_small").stages)
