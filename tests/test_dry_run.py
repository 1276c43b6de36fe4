"""What a recipe costs, before it is run: counted, measured, and by a formula."""

import json

import drawn_run
import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from cxr_foundation import pretrain
from cxr_foundation.cli import app
from cxr_foundation.errors import RecipeError
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import dry_run
from cxr_foundation.pretrain.cost import bill


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


@pytest.fixture
def recipe(tmp_path):
    return drawn_run.recipe(tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_architecture):
    """Of drawn pictures, with AdamW."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("dry")
    overrides = {"train.optimiser": "adamw"}
    return pretrain.estimate(drawn_run.recipe(root), images=1000, overrides=overrides)


def test_the_bill_of_moco_on_five_million_radiographs():
    # ResNet-50 at 224 x 224: 8.2 GFLOP forward, and 4 times that in a step of MoCo.
    paid = bill(
        images=4_800_000,
        epochs=200,
        flop_per_image=4 * 8.2e9,
        rate=170e12,
        bytes_per_image=64_000,
        core_seconds=0.0096,
    )
    assert paid.gpu_hours == pytest.approx(51.5, abs=0.1)
    assert paid.images_per_second == pytest.approx(5183, abs=1)
    assert paid.read_bytes_per_second == pytest.approx(332e6, abs=1e6)
    assert paid.cores_per_gpu == pytest.approx(49.8, abs=0.1)
    assert paid.disk_bytes == 307_200_000_000


def test_parameters_are_told_apart(found):
    (stage,) = found.stages
    encoder = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    inside, width = sum(p.numel() for p in encoder.parameters()), encoder.num_features
    # Two linear layers with biases: to the width of the encoder, and to 8.
    head = width * width + width + width * 8 + 8
    assert (stage.encoder_parameters, stage.head_parameters) == (inside, head)
    # The momentum encoder and its head.
    assert stage.frozen_parameters == inside + head


def test_memory_counts_weights_gradients_and_two_moments_of_adam(found):
    (stage,) = found.stages
    trained = stage.encoder_parameters + stage.head_parameters
    assert stage.gradient_bytes == 4 * trained
    # Two moments, and a step count for each tensor.
    assert 8 * trained < stage.optimiser_bytes < 8.01 * trained
    assert stage.weight_bytes > 4 * (trained + stage.frozen_parameters)
    held = stage.weight_bytes + stage.gradient_bytes + stage.optimiser_bytes
    assert stage.memory_bytes == held + stage.activation_bytes


def test_flop_and_activations_are_those_of_a_hand_count():
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    images = torch.ones(4, 10)
    flop, kept = dry_run._counted(lambda: model(images).sum().backward(), model)
    # Forward, weight gradients, and the gradient of the second layer's input: 2 m n k each.
    assert flop == 2 * 4 * (2 * 10 * 20 + 3 * 20 * 5)
    # The input of each layer; ReLU keeps its output, which is the second layer's input.
    assert kept == 4 * (4 * 10 + 4 * 20)


def test_a_step_of_moco_costs_four_forward_passes(found):
    (stage,) = found.stages
    encoder = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    with FlopCounterMode(display=False) as counter:
        encoder.eval()(torch.zeros(1, 1, 32, 32))
    assert stage.flop_per_image == pytest.approx(4 * counter.get_total_flops(), rel=0.15)


def test_the_time_is_that_of_all_epochs_at_the_measured_speed(found):
    (stage,) = found.stages
    assert stage.images_per_second > 0
    assert stage.seconds == pytest.approx(1000 * 2 / stage.images_per_second)
    assert (stage.images, stage.epochs) == (1000, 2)
    assert stage.bill.images == 1000


def test_real_radiographs_are_read_and_nothing_is_written(recipe, tmp_path, monkeypatch):
    pictures = drawn_run.labelled(tmp_path / "pictures")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    found = pretrain.estimate(recipe, data=pictures)
    assert sorted(tmp_path.rglob("*")) == before
    # The pretrain part has eight.
    assert found.stages[0].images == 8
    assert found.stages[0].read_seconds > 0
    assert not found.drawn
    assert not any("drawn" in sentence for sentence in found.assumptions)


def test_without_radiographs_their_number_is_needed(recipe):
    with pytest.raises(RecipeError, match=r"images: neither .*Set --images N"):
        pretrain.estimate(recipe)


def test_fewer_radiographs_than_a_batch_are_refused(recipe, tmp_path):
    pictures = drawn_run.labelled(tmp_path / "pictures")
    with pytest.raises(RecipeError, match="8 pictures are fewer than one batch of 16"):
        pretrain.estimate(recipe, data=pictures, overrides={"train.batch": 16, "method.queue": 16})


def test_where_memory_is_short_a_smaller_step_is_measured_and_that_is_said(recipe, monkeypatch):
    whole = pretrain.estimate(recipe, images=100, overrides={"train.batch": 8})
    # Both views are reckoned with, of which MoCo keeps one; and a part of the memory stays free.
    free = round(2.2 * whole.stages[0].activation_bytes)
    monkeypatch.setattr(dry_run, "_free_bytes", lambda device: free)
    found = pretrain.estimate(recipe, images=100, overrides={"train.batch": 8})
    assert (found.stages[0].batch, found.stages[0].measured_batch) == (8, 4)
    ratio = found.stages[0].activation_bytes / whole.stages[0].activation_bytes
    assert ratio == pytest.approx(1, rel=0.1)
    assert any("steps of 4 radiographs; those of 8" in line for line in found.assumptions)
    monkeypatch.setattr(dry_run, "_free_bytes", lambda device: 10_000)
    with pytest.raises(RecipeError, match=r"train\.batch: a step of 4 radiographs may keep"):
        pretrain.estimate(recipe, images=100, overrides={"train.batch": 8})


def test_stages_of_a_curriculum_are_told_one_by_one(tmp_path):
    stages = [{"train": {"epochs": 1}}, {"train": {"epochs": 3}}]
    found = pretrain.estimate(drawn_run.recipe(tmp_path, stages=stages), images=10)
    assert [stage.epochs for stage in found.stages] == [1, 3]


def test_the_command_prints_lines_for_people_and_json_for_programs(recipe):
    command = ["pretrain", str(recipe), "--dry-run", "--images", "5000"]
    lines = CliRunner().invoke(app, command)
    assert lines.exit_code == 0, lines.output
    for told in ("parameters", "memory", "radiographs/s", "time here", "bill", "Assumed:"):
        assert told in lines.stdout
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert found["stages"][0]["bill"]["images"] == 5000
    assert found["stages"][0]["memory_bytes"] > 0
    assert found["drawn"] is True


def test_the_number_of_radiographs_goes_with_a_dry_run_only(recipe):
    result = CliRunner().invoke(app, ["pretrain", str(recipe), "--images", "5"])
    assert result.exit_code == 2
    assert "goes with --dry-run" in result.output
