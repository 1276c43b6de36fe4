"""A pretraining run from recipe to published folder, and its resumption after every cut."""

import importlib.resources
import json
import resource
import signal

import drawn_first_sets
import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from pretraining import ARCHITECTURES, TINY, draw_pictures, finish, start, wait_for
from safetensors.torch import load_file

from cxr_foundation import catalog, data, hub, pretrain
from cxr_foundation.data.sample import Settings
from cxr_foundation.data.sharding import shard
from cxr_foundation.errors import (
    ContractError,
    NoImages,
    OutputExists,
    OutputFailed,
    PushRefused,
    RecipeError,
    UnknownName,
    UnreadableImage,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import checkpoints
from cxr_foundation.pretrain.engine import learning_rate
from cxr_foundation.pretrain.pictures import data_digest
from cxr_foundation.pretrain.recipe_file import parse_overrides, read_recipe, recipes


@pytest.fixture(autouse=True, scope="module")
def tiny_architecture():
    """timm's own tiny network for tests, under a name of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STOCK, "cxr_tiny", ARCHITECTURES["cxr_tiny"])
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another take ten times as long where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture
def pictures(tmp_path):
    """Eighteen 40 x 40 pictures: four steps of four per epoch, two left over."""
    return draw_pictures(tmp_path / "pictures", 18)


CHECKPOINTS = "stages/1-moco_v2/checkpoints"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """SHA-256 of the encoder of a run that nothing interrupts."""
    root = tmp_path_factory.mktemp("whole")
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return sha256_of(finish(root / "tiny.yaml", draw_pictures(root / "pictures", 18), root / "run"))


def test_a_killed_run_ends_in_the_same_bytes_as_an_uninterrupted_one(
    recipe, pictures, tmp_path, whole
):
    child = start(recipe, pictures, tmp_path / "killed")
    # Checkpoints are written every two steps; the sixth step is in the middle of an epoch.
    wait_for(tmp_path / "killed" / CHECKPOINTS / "checkpoint-6" / "complete.json", child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed" / "encoder").exists()
    resumed = finish(recipe, pictures, tmp_path / "killed")
    assert sha256_of(resumed) == whole


def test_a_terminated_run_writes_a_checkpoint_and_goes_on_from_it(
    recipe, pictures, tmp_path, whole
):
    output = tmp_path / "stopped"
    child = start(recipe, pictures, output)
    wait_for(output / CHECKPOINTS / "checkpoint-2" / "complete.json", child)
    child.send_signal(signal.SIGTERM)
    child.wait()
    assert child.returncode == 143
    assert checkpoints.newest(output / CHECKPOINTS) is not None
    assert sha256_of(finish(recipe, pictures, output)) == whole


def test_a_run_from_shards_ends_in_the_same_bytes_as_one_from_files(
    recipe, pictures, tmp_path, whole
):
    shard(data.read_index(pictures), tmp_path / "shards", settings=Settings(size=32), per_shard=7)
    assert sha256_of(finish(recipe, tmp_path / "shards", tmp_path / "run")) == whole


def test_shards_that_are_too_small_are_refused(recipe, pictures, tmp_path):
    shard(data.read_index(pictures), tmp_path / "shards", settings=Settings(size=24))
    with pytest.raises(ContractError, match="the shards have 24 pixels a side, 32 are asked for"):
        pretrain.run(recipe, data=tmp_path / "shards", output=tmp_path / "run")


def test_a_published_data_set_is_taken_by_its_official_parts(tmp_path):
    studies = pretrain._studies(drawn_first_sets.nih(tmp_path))
    assert {s.split for s in studies} == {"pretrain", "test"}
    assert all(s.source == "nih" for s in studies)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The root of a finished run of one epoch, and its published folder."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("finished")
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    folder = draw_pictures(root / "pictures", 9)
    published = pretrain.run(
        root / "tiny.yaml",
        data=folder,
        output=root / "run",
        overrides={"train.epochs": 1, "publish.precision": "fp32"},
    )
    return root, published


def test_a_run_ends_in_a_folder_that_plain_timm_loads(finished):
    _, published = finished
    model = timm.create_model(f"local-dir:{published}", pretrained=True)
    tensors = load_file(published / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in state)
    assert model.num_classes == 0


def test_the_card_states_recipe_data_and_hash(finished):
    root, published = finished
    card = catalog.read_record(published / "README.md")
    assert card.name == "cxr_tiny.tiny"
    assert card.training.images == 9
    assert card.training.recipe == "tiny"
    assert card.source.sha256 == sha256_of(published / "model.safetensors")
    assert card.golden is not None
    text = catalog.body_of(published / "README.md")
    assert data_digest(data.read_index(root / "pictures")) in text
    assert "not for clinical use" in text
    assert "lr: 0.05" in text


def test_a_finished_run_is_not_overwritten(finished):
    root, _ = finished
    with pytest.raises(OutputExists, match="this run is finished"):
        pretrain.run(root / "tiny.yaml", data=root / "pictures", output=root / "run")


def test_a_run_logs_what_shows_a_collapse(finished):
    root, _ = finished
    state = json.loads((root / "run" / CHECKPOINTS / "checkpoint-2/trainer_state.json").read_text())
    line = state["log_history"][0]
    assert {"loss", "wins", "feature_std", "effective_rank", "learning_rate"} <= line.keys()
    assert list((root / "run" / CHECKPOINTS).rglob("events.out.tfevents.*"))


def test_nothing_of_transformers_own_card_is_written(finished):
    root, published = finished
    assert [p for p in root.rglob("README.md") if p.parent != published] == []


def test_a_pushed_encoder_names_its_repository(recipe, pictures, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(hub, "push", lambda folder, repo: pushed.append((folder, repo)))
    published = pretrain.run(
        recipe,
        data=pictures,
        output=tmp_path / "run",
        push_to="someone/tiny",
        overrides={"train.epochs": 1},
    )
    assert pushed == [(published, "someone/tiny")]
    source = catalog.read_record(published / "README.md").source
    assert (source.kind, source.repo, source.revision) == ("hub", "someone/tiny", None)
    assert "hf-hub:someone/tiny" in catalog.body_of(published / "README.md")


def test_a_push_without_a_licence_is_refused_before_training(recipe, pictures, tmp_path):
    with pytest.raises(PushRefused, match=r"publish\.licence: the recipe names no licence"):
        pretrain.run(
            recipe,
            data=pictures,
            output=tmp_path / "run",
            push_to="someone/tiny",
            overrides={"publish.licence": None},
        )
    assert not (tmp_path / "run").exists()


def test_a_changed_recipe_is_refused_by_its_keys(finished, tmp_path):
    root, _ = finished
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text((root / "run" / "run.json").read_text())
    same = {"train.epochs": 1, "publish.precision": "fp32"}
    with pytest.raises(RecipeError, match=r"recipe\.stages\.0\.train\.lr: 0\.05 → 0\.1\)"):
        pretrain.run(
            root / "tiny.yaml",
            data=root / "pictures",
            output=run,
            overrides={**same, "train.lr": 0.1},
        )


def test_changed_pictures_are_refused(finished, tmp_path):
    root, _ = finished
    run, folder = tmp_path / "run", tmp_path / "pictures"
    run.mkdir()
    (run / "run.json").write_text((root / "run" / "run.json").read_text())
    folder.mkdir()
    for path in (root / "pictures").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "00.png")
    same = {"train.epochs": 1, "publish.precision": "fp32"}
    with pytest.raises(RecipeError, match=r"data\.sha256"):
        pretrain.run(root / "tiny.yaml", data=folder, output=run, overrides=same)


def test_a_folder_of_something_else_is_not_taken(recipe, pictures, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExists, match="no pretraining run"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "taken")


def test_a_loss_that_is_not_finite_stops_the_run(recipe, pictures, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.lr: the loss is nan at step 2"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides={"train.lr": 1e38})
    assert not (tmp_path / "run" / "encoder").exists()


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_unreadable_picture_stops_the_run_by_name(recipe, pictures, tmp_path, in_memory):
    (pictures / "07.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match=r"07\.png"):
        pretrain.run(
            recipe,
            data=pictures,
            output=tmp_path / "run",
            overrides={"data.in_memory": in_memory},
        )


def test_pictures_read_by_workers_give_the_same_encoder(recipe, pictures, tmp_path):
    files = [
        pretrain.run(
            recipe,
            data=pictures,
            output=tmp_path / str(workers),
            overrides={"train.epochs": 1, "train.workers": workers, "data.in_memory": False},
        )
        / "model.safetensors"
        for workers in (0, 1)
    ]
    assert sha256_of(files[0]) == sha256_of(files[1])


def test_too_few_pictures_for_a_batch_are_refused(recipe, pictures, tmp_path):
    for path in sorted(pictures.iterdir())[3:]:
        path.unlink()
    with pytest.raises(RecipeError, match="3 pictures are fewer than one batch of 4"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run")


# Largest file: the first meets the weights (3.10 MB), the second the optimiser's state (3.12 MB).
@pytest.mark.parametrize("limit", [50_000, 3_100_000])
def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_room(
    recipe, pictures, tmp_path, limit
):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    overrides = {"train.epochs": 1, "train.optimiser": "adamw"}
    arguments = {"data": pictures, "output": tmp_path / "run", "overrides": overrides}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputFailed, match="a checkpoint could not be written"):
            pretrain.run(recipe, **arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (pretrain.run(recipe, **arguments) / "README.md").exists()


def test_no_data_is_an_error_that_says_what_to_pass(recipe, tmp_path):
    with pytest.raises(NoImages, match="--data FOLDER"):
        pretrain.run(recipe, output=tmp_path / "run")


# Recipes.


def test_every_shipped_recipe_reads_and_the_sweep_saw_them_all():
    folder = importlib.resources.files("cxr_foundation.recipes")
    files = {f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")}
    others = {name for name in files if name == "standing" or name.startswith("experiment_")}
    assert recipes() == sorted(files - others)
    assert len(recipes()) >= 24
    assert [read_recipe(name).name for name in recipes()] == recipes()


def test_the_chess_recipe_is_the_published_one():
    recipe = read_recipe("chess")
    (chess,) = recipe.stages
    settings = chess.settings
    assert (settings.queue, settings.momentum, settings.temperature) == (65536, 0.999, 0.2)
    assert (chess.train.lr, chess.train.batch, chess.train.epochs) == (0.03, 256, 200)
    assert (recipe.contract.mean, recipe.contract.std) == ((0.658,), (0.221,))
    assert recipe.contract.size == (512, 512)
    assert chess.views.flip_p == 0
    assert chess.views.crop_area == (1.0, 1.0)


def test_the_small_recipe_never_flips_and_its_queue_is_a_quarter_of_its_pictures():
    (small,) = read_recipe("moco_open_small").stages
    assert small.views.flip_p == 0
    assert small.settings.queue <= 1165 // 4
    assert small.data.only_may_ship


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(UnknownName, match="Did you mean 'chess'"):
        read_recipe("ches")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": 2}, r"train\.epoch: unknown key\. Did you mean 'epochs'"),
        ({"train.epochs": 0}, r"train\.epochs: 0 is not above 0"),
        ({"train.epochs": "two"}, r"train\.epochs: 'two' is not a whole number"),
        ({"train.epochs": True}, r"train\.epochs: True is not a whole number"),
        ({"train.lr": float("nan")}, r"train\.lr: nan is not a finite number"),
        ({"train.optimiser": "adam"}, r"train\.optimiser: 'adam' is not one of sgd, adamw"),
        ({"views.flip_p": 2.0}, r"views\.flip_p: 2\.0 is not a probability"),
        ({"views.crop_area": [0.5]}, r"views\.crop_area: \[0\.5\] is not a list of 2"),
        ({"contract.std": [0]}, r"contract\.std"),
        ({"contract.mean": None}, r"contract: mean, std or intensity is not set"),
        ({"encoder.in_chans": 3}, r"contract: channels and encoder\.in_chans differ"),
        ({"method.queue": 2}, r"method\.queue: smaller than a batch"),
        ({"method.split_batch_norm": 3}, r"method\.split_batch_norm: train\.batch \(4\) is not"),
        ({"name.first": "a"}, r"name\.first: 'name' holds no keys"),
        ({"encoder.architecture": "cxr_resnet_18"}, r"Did you mean 'cxr_resnet18'"),
        ({"publish.tag": "Mine"}, r"publish\.tag: 'Mine' is not lower-case"),
    ],
)
def test_a_wrong_key_is_refused_by_name(recipe, pictures, tmp_path, overrides, message):
    with pytest.raises(RecipeError, match=message):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=overrides)


def test_a_missing_key_is_refused_by_name(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "train": {"epochs": 1, "batch": 4}}))
    with pytest.raises(RecipeError, match=r"train\.lr: missing"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']", "é".encode("latin1")]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError):
        read_recipe(path)


def test_a_recipe_survives_its_own_yaml(tmp_path):
    for name in recipes():
        recipe = read_recipe(name)
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
        assert read_recipe(tmp_path / "again.yaml") == recipe


def test_stages_start_from_what_stands_at_the_top_and_keep_their_own_method(tmp_path):
    stages = [
        {"train": {"epochs": 1}},
        {"method": {"queue": 16}, "second_view": {"blur_p": 1.0}},
    ]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "stages": stages}))
    first, second = read_recipe(tmp_path / "r.yaml", overrides={"stages.1.train": {"lr": 1}}).stages
    assert (first.train.epochs, second.train.epochs) == (1, 4)
    assert (first.settings.queue, second.settings.queue) == (8, 16)
    assert second.train.lr == 1
    assert second.views.blur_p == 0
    assert second.second_view.blur_p == 1.0
    assert second.second_view.crop_area == (0.5, 1.0)


def test_overrides_are_read_as_yaml():
    assert parse_overrides(["train.epochs=2", "data.sources=null", "start=a=b"]) == {
        "train.epochs": 2,
        "data.sources": None,
        "start": "a=b",
    }
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_overrides(["train.epochs"])


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    train = read_recipe("chess").stages[0].train
    rates = [learning_rate(s, total=12, warmup=2, recipe=train) for s in (0, 1, 2, 7, 12)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


# Which radiographs a recipe takes.


def test_only_pictures_that_may_ship_are_taken(radiographs):
    studies = data.read_index(radiographs)
    small = read_recipe("moco_open_small").stages[0].data
    if not any(s.split == "pretrain" for s in studies):
        pytest.skip("the bundled radiographs have no pretrain part")
    chosen = pretrain.choose(studies, small)
    assert len(chosen) == 1165
    assert {s.source for s in chosen} == {"kermany", "nih", "shenzhen", "cohen"}
    assert {s.licence for s in chosen if s.source == "cohen"} == {"CC BY 3.0", "CC BY 4.0"}
    assert {s.split for s in chosen} == {"pretrain"}


def test_a_plain_folder_is_refused_by_a_recipe_for_open_pictures(pictures):
    with pytest.raises(NoImages, match=r"--set data\.sources=null"):
        pretrain.choose(data.read_index(pictures), read_recipe("moco_open_small").stages[0].data)
