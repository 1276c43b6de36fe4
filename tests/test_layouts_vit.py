"""Layouts of vision transformers: what the sweep over all layouts cannot see."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import Dinov2Config, Dinov2Model, ViTMAEConfig, ViTMAEForPreTraining

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS, Case, randomise
from wild.clip import before_projection, clip_of
from wild.dinov2 import save_as_transformers
from wild.hf_vit import vit_of_transformers
from wild.moco import headless
from wild.moco import network_of as resnet_of
from wild.timm_vit import network_of

from cxr_foundation.convert import convert, detect
from cxr_foundation.errors import KeyMismatch, UnknownLayout

TINY = Case("vit_tiny_patch16_224", {"in_chans": 3}, 224)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(size=224):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def network_from(converted):
    network = timm.create_model(
        converted.architecture, num_classes=converted.num_classes, **converted.model_args
    )
    network.load_state_dict(converted.state)
    return network.eval()


def assert_close(found, expected, within=1e-5):
    assert float((found - expected).norm() / expected.norm()) < within


def written(name, folder):
    """The stand-in's file for its first case."""
    STANDINS[name].write(folder / "checkpoint", STANDINS[name].cases[0])
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def mocov3_vit(tmp_path_factory):
    return written("mocov3_vit", tmp_path_factory.mktemp("mocov3"))


# Which of two encoders


@pytest.mark.parametrize("name", ["sit", "dino"])
def test_the_student_is_taken_only_if_it_is_asked_for(tmp_path, name):
    path = written(name, tmp_path)
    teacher, student = convert(path), convert(path, takes="student")
    assert (teacher.report.takes, student.report.takes) == ("teacher", "student")
    # The writer's seeds: teacher 0, student 1.
    for seed, converted in ((0, teacher), (1, student)):
        expected = network_of(STANDINS[name].cases[0], seed).state_dict()
        assert all(torch.equal(converted.state[n], t) for n, t in expected.items())


def test_the_momentum_encoder_of_moco_v3_is_taken_only_if_it_is_asked_for(mocov3_vit):
    momentum = convert(mocov3_vit, takes="momentum_encoder")
    expected = network_of(STANDINS["mocov3_vit"].cases[0], 1).state_dict()
    assert all(torch.equal(momentum.state[n], t) for n, t in expected.items())


def test_a_gmml_file_holds_one_encoder_and_no_teacher(tmp_path):
    converted = convert(written("gmml", tmp_path))
    assert converted.report.takes == "weights"


def test_a_dino_file_of_a_resnet_gives_torchvisions_features(tmp_path):
    network = resnet_of("resnet18", 3)
    features = headless(network)
    state = {f"module.backbone.{n}": t for n, t in network.state_dict().items()}
    state["module.head.last_layer.weight_g"] = torch.ones(16, 1)
    torch.save({"student": state, "teacher": state, "epoch": 1}, tmp_path / "c.pth")
    converted = convert(tmp_path / "c.pth")
    assert (converted.report.layout, converted.architecture) == ("dino", "resnet18")
    assert_close(network_from(converted)(pictures(64)).detach(), features(pictures(64)))


def test_a_whole_training_state_of_dinov2_gives_its_teacher(tmp_path):
    teacher, student = (network_of(STANDINS["dinov2"].cases[0], seed) for seed in (0, 1))
    state = {
        f"{encoder}.{name}": tensor
        for encoder, network in (("teacher", teacher), ("student", student))
        for name, tensor in {
            **{f"backbone.{n}": t for n, t in network.state_dict().items()},
            "backbone.mask_token": torch.zeros(1, 384),
            "dino_head.last_layer.weight_g": torch.ones(16, 1),
        }.items()
    }
    state["dino_loss.center"] = torch.zeros(1, 16)
    state["ibot_patch_loss.center"] = torch.zeros(1, 1, 16)
    torch.save({"model": state, "iteration": 9, "optimizer": {}}, tmp_path / "c.pth")
    converted = convert(tmp_path / "c.pth")
    assert converted.report.layout == "dinov2"
    assert all(torch.equal(converted.state[n], t) for n, t in teacher.state_dict().items())
    assert converted.report.dropped == {
        "student encoder": len(student.state_dict()) + 2,
        "mask token": 1,
        "pretraining heads": 1,
        "centre of the teacher's outputs": 2,
    }


# What is left out, by name and number


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("gmml", {"training state": 1, "reconstruction head": 8}),
        ("dinov2", {"mask token": 1}),
        ("mae", {"training state": 1, "MAE decoder": 4 + 2 * 12 + 4}),
        ("dinov2_of_transformers", {"mask token": 1}),
        ("hf_vit", {"pooler": 2}),
        ("eva_x_finetuned", {"rotary tables": 2 + 2 * 12, "classification head": 2}),
    ],
)
def test_what_is_left_out_has_a_name(tmp_path, name, dropped):
    assert convert(written(name, tmp_path)).report.dropped == dropped


def test_the_decoder_of_transformers_masked_autoencoder_is_left_out(tmp_path):
    config = ViTMAEConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        decoder_hidden_size=64,
        decoder_num_attention_heads=2,
        decoder_num_hidden_layers=1,
        mask_ratio=0.0,
    )
    network = randomise(ViTMAEForPreTraining(config))
    save_as_transformers(network, tmp_path / "model.safetensors")
    converted = convert(tmp_path / "model.safetensors")
    assert (converted.report.layout, list(converted.report.dropped)) == ("hf_vit", ["MAE decoder"])
    with torch.no_grad():
        # Without masking the patches are only shuffled, which the class token does not see.
        expected = network.vit(pictures()).last_hidden_state[:, 0]
        assert_close(network_from(converted)(pictures()), expected)


# Names that mean more than one thing


def test_transformers_writes_other_names_into_files_than_its_models_have(tmp_path):
    """Both have to be known: a Trainer saves the one, torch.save of a state the other."""
    config = Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=28, patch_size=14
    )
    network = randomise(Dinov2Model(config))
    save_as_transformers(network, tmp_path / "file")
    torch.save(network.state_dict(), tmp_path / "state")
    file, state = convert(tmp_path / "file"), convert(tmp_path / "state")
    assert list(file.state) == list(state.state)
    assert all(torch.equal(tensor, file.state[name]) for name, tensor in state.state.items())


def test_a_classification_head_of_transformers_can_be_kept(tmp_path):
    network = vit_of_transformers(TINY)
    save_as_transformers(network, tmp_path / "model.safetensors")
    converted = convert(tmp_path / "model.safetensors", num_classes=14)
    with torch.no_grad():
        # transformers' norms add 1e-12 to the variance, timm's 1e-6.
        found, expected = network_from(converted)(pictures()), network(pictures()).logits
        assert_close(found, expected, within=1e-4)


def test_clip_with_the_ordinary_gelu_has_to_be_claimed(tmp_path):
    case = Case("vit_base_patch32_clip_224", {"in_chans": 3}, 224)
    network = clip_of(case, quick_gelu=False)
    torch.save(network.state_dict(), tmp_path / "c.pt")
    claimed = convert(tmp_path / "c.pt", architecture="vit_base_patch32_clip_224")
    by_rule = convert(tmp_path / "c.pt")
    assert by_rule.architecture == "vit_base_patch32_clip_quickgelu_224"
    expected = before_projection(network)(pictures())
    with torch.no_grad():
        assert_close(network_from(claimed)(pictures()), expected)
        with pytest.raises(AssertionError):
            assert_close(network_from(by_rule)(pictures()), expected)


def test_the_heads_of_moco_v3s_vit_small_are_not_timms(mocov3_vit):
    """What the number of heads does: the same tensors give other features with six."""
    converted = convert(mocov3_vit)
    six = timm.create_model("vit_small_patch16_224", num_classes=0)
    six.load_state_dict(converted.state)
    with torch.no_grad(), pytest.raises(AssertionError):
        assert_close(six.eval()(pictures()), network_from(converted)(pictures()))


# Refusals


def test_a_hidden_layer_without_gates_under_the_names_of_swiglu_is_refused(tmp_path):
    state = network_of(STANDINS["dinov2"].cases[0]).state_dict()
    state = {
        n.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for n, t in state.items()
    }
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "c.pth")
    with pytest.raises(KeyMismatch, match="do not go together"):
        convert(tmp_path / "c.pth")


def test_a_chunk_that_counts_anew_is_refused(tmp_path):
    """Were the second number to start again in each chunk, blocks would be overwritten."""
    state = {f"blocks.{n // 6}.{n % 6}.ls1.gamma": torch.full((384,), float(n)) for n in range(12)}
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "c.pth")
    with pytest.raises(KeyMismatch, match="become one"):
        convert(tmp_path / "c.pth")


def test_a_resnet_of_clip_is_not_taken_for_anything():
    shapes = {"visual.conv1.weight": (32, 3, 3, 3), "visual.attnpool.positional_embedding": (50, 9)}
    with pytest.raises(UnknownLayout):
        detect(shapes)


def test_a_distilled_deit_of_transformers_is_refused(tmp_path):
    state = {f"vit.{n}": t for n, t in vit_of_transformers(TINY).vit.state_dict().items()} | {
        "vit.embeddings.distillation_token": torch.zeros(1, 1, 192)
    }
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(KeyMismatch, match="distillation_token"):
        convert(tmp_path / "c.pth")
