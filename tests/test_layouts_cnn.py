"""Layouts of convolutional encoders: what the sweep over all layouts cannot see."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS
from wild.moco import network_of
from wild.selfsupervised import below

from cxr_foundation.convert import convert, detect, inspect, layouts
from cxr_foundation.errors import KeyMismatch, UnknownLayout


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(name, folder, index=0):
    """The stand-in's file."""
    standin = STANDINS[name]
    standin.write(folder / "checkpoint", standin.cases[index])
    return folder / "checkpoint"


def shapes_of(*names):
    """A file of scalars: recognition needs no more than names here."""
    return dict.fromkeys(names, ())


RESNET = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")


def recognised(*names):
    return [n for n, layout in layouts.items() if layout.recognises(shapes_of(*names))]


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("byol", "target"),
        ("byol_bolts", "target"),
        ("lightly", "backbone_momentum"),
        ("solo_learn", "momentum_backbone"),
        ("solo_learn_1_0_2", "momentum_backbone"),
        ("covid_prognosis", "encoder_k"),
    ],
)
def test_the_momentum_copy_is_taken_only_if_it_is_asked_for(tmp_path, name, takes):
    path = written(name, tmp_path)
    trained, copy = convert(path), convert(path, takes=takes)
    assert (trained.report.takes, copy.report.takes) == (
        layouts[STANDINS[name].layout].takes,
        takes,
    )
    assert list(trained.state) == list(copy.state)
    first = next(iter(copy.state))
    assert not torch.equal(trained.state[first], copy.state[first])


# Numbers of tensors: resnet18 has 120 without its last layer, which has 2; resnet50 has 318.
@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("simclr", {"training state": 1, "pretraining head": 4}),
        (
            "byol_bolts",
            {"training state": 2, "target encoder": 122, "pretraining head": 2 + 24},
        ),
        ("swav", {"pretraining head": 9, "prototypes": 1}),
        ("vicreg", {"training state": 1, "pretraining head": 15}),
        ("barlow_twins", {"training state": 1, "pretraining head": 16}),
        ("vissl", {"training state": 2, "pretraining head": 4}),
        (
            "solo_learn",
            {
                "training state": 2,
                "momentum_backbone encoder": 120,
                "pretraining head": 27,
                "online classifier": 4,
            },
        ),
        ("gloria", {"training state": 2, "pretraining head": 3, "text encoder": 24}),
        ("convirt", {"pretraining head": 8, "text encoder": 24}),
        ("biovil", {"pretraining head": 2 + 8}),
        ("biovil_t", {"pretraining head": 2 + 8, "comparison with a prior image": 5 + 3 * 13}),
        ("xrv_densenet121", {"operating thresholds": 1, "classification head": 2}),
        (
            "moco_cxr_fine_tuned",
            {"training state": 1, "unused last layer": 2, "classification head": 2},
        ),
    ],
)
def test_each_tensor_that_is_left_out_has_a_rule_with_a_name(tmp_path, name, dropped):
    report = inspect(written(name, tmp_path))
    assert report.problem is None
    assert report.dropped == dropped


def test_lucidrains_byol_holds_its_online_encoder_twice(tmp_path):
    report = inspect(written("byol", tmp_path))
    assert report.dropped["the online encoder again"] == 122
    assert report.dropped["target encoder"] == 122


def test_the_released_encoder_of_a_pretraining_is_plain_torchvision(tmp_path):
    network = network_of("resnet18", 3)
    torch.save(below("", network), tmp_path / "resnet18.pth")
    assert convert(tmp_path / "resnet18.pth").report.layout == "torchvision"


@pytest.mark.parametrize(
    "beside",
    [
        "projector.0.weight",
        "projection_head.0.weight",
        "prototypes.weight",
        "momentum_encoder.conv1.weight",
        "head.mlp.0.weight",
        "decoder_embed.weight",
    ],
)
def test_a_network_beside_a_mark_of_pretraining_is_not_plain(beside):
    assert "torchvision" in recognised(*RESNET)
    assert "torchvision" not in recognised(*RESNET, beside)
    vit = ("patch_embed.proj.weight", "blocks.0.norm1.weight")
    assert recognised(*vit) == ["timm"]
    assert "timm" not in recognised(*vit, beside)


def test_a_stray_tensor_is_named_and_does_not_hide_the_layout(tmp_path):
    state = {**below("", network_of("resnet18", 3)), "extra.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(KeyMismatch, match=r"1 unexpected \(extra\.weight\)"):
        convert(tmp_path / "c.pth")


def test_a_family_that_nobody_knows_is_refused_instead_of_guessed():
    names = [f"backbone.{n}" for n in RESNET]
    with pytest.raises(UnknownLayout, match="no known layout"):
        detect(shapes_of(*names, "projector.0.weight", "predictor.0.weight"))


@pytest.mark.parametrize(
    ("beside", "layout"),
    [
        ((), "torchvision"),
        (("backbone.fc.weight",), "torchvision"),
        (("backbone.fc.0.weight", "backbone.fc.2.weight"), "simclr"),
        (("backbone.fc.1.weight", "backbone.fc.2.weight"), "torchvision"),
        (("projector.0.weight",), "vicreg"),
        (("projector.0.weight", "bn.running_mean"), "barlow_twins"),
        (("projector.0.weight", "classifier.weight"), "solo_learn"),
        (("projection_head.layers.0.weight",), "lightly"),
        (("classifier.weight",), "torchvision"),
    ],
)
def test_families_with_one_prefix_are_told_apart_by_what_stands_beside(beside, layout):
    assert recognised(*(f"backbone.{n}" for n in RESNET), *beside) == [layout]


def test_a_classifier_of_several_layers_is_dropped_by_name(tmp_path):
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 64), nn.BatchNorm1d(64))
    torch.save(network.state_dict(), tmp_path / "c.pth")
    assert convert(tmp_path / "c.pth").report.dropped == {"classification head": 7}


def test_a_classifier_of_transformers_is_kept_on_request(tmp_path):
    converted = convert(written("hf_resnet", tmp_path), num_classes=14)
    assert converted.num_classes == 14
    assert converted.state["fc.weight"].shape == (14, 512)


def test_a_classifier_of_moco_cxr_is_kept_on_request(tmp_path):
    converted = convert(written("moco_cxr_fine_tuned", tmp_path), num_classes=14)
    assert converted.state["fc.weight"].shape == (14, 512)


@pytest.mark.parametrize(
    ("name", "index"),
    [(n, i) for n in ("gloria", "hf_resnet", "medical_mae_cnn", "moco") for i in (0, 1)],
)
def test_a_layout_finds_each_of_its_networks(tmp_path, name, index):
    case = STANDINS[name].cases[index]
    converted = convert(written(name, tmp_path, index))
    assert (converted.architecture, converted.model_args) == (case.network, case.args)
