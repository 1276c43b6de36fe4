"""Published folders: what is written, who can load them, what a hostile one may not do."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import timm
import torch
from encoders import contract, largest_difference, publish, random_encoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cxr_foundation.catalog import HubCard, read_card
from cxr_foundation.errors import (
    ContractError,
    KeyMismatch,
    OutputExists,
    OutputFailed,
    UnknownName,
    UnreadableCheckpoint,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.models import published
from cxr_foundation.models.loading import convert_to_folder, load, processor, read_config

# Run before anything else: this package does not exist for the process.
WITHOUT_US = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cxr_foundation":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path):
    return publish(tmp_path / "folder", "resnet18", dtype=torch.float16)


def change(folder, **values):
    """Rewrite keys of a config.json; a key with dots is one of pretrained_cfg or model_args."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        part, _, name = key.partition("__")
        if name:
            config[part][name] = value
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_config_is_timms_layout_with_the_stock_name(folder):
    assert json.loads((folder / "config.json").read_text()) == {
        "architecture": "resnet18",
        "num_classes": 0,
        "num_features": 512,
        "global_pool": "avg",
        "dtype": "float32",
        "model_args": {"in_chans": 1},
        "pretrained_cfg": {
            "tag": "made_up",
            "input_size": [1, 64, 64],
            "interpolation": "bilinear",
            "crop_mode": "squash",
            "crop_pct": 1.0,
            "mean": [0.5],
            "std": [0.25],
            "fixed_input_size": False,
            "num_classes": 0,
            "pool_size": [7, 7],
            "first_conv": "conv1",
            "classifier": "fc",
            "license": "mit",
        },
        "cxr_foundation": {"contract": contract().to_dict()},
    }


def test_the_folder_holds_three_files_and_one_key_of_metadata(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first, second = (publish(tmp_path / name, "resnet18") for name in ("a", "b"))
    for name in ("model.safetensors", "config.json", "README.md"):
        assert sha256_of(first / name) == sha256_of(second / name)


def test_nothing_is_overwritten_and_nothing_partial_is_left(folder, tmp_path, monkeypatch):
    with pytest.raises(OutputExists):
        publish(folder, "resnet18")
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(published, "save_file", full)
    with pytest.raises(OutputFailed, match="No space left"):
        publish(tmp_path / "new", "resnet18")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]


def test_tensors_that_are_not_the_networks_are_not_published(tmp_path):
    state = random_encoder("resnet18", in_chans=1).state_dict()
    for wrong in (
        {k: v for k, v in state.items() if k != "bn1.bias"},
        {**state, "fc.weight": torch.zeros(2, 512)},
        {**state, "bn1.bias": torch.zeros(3)},
    ):
        with pytest.raises(KeyMismatch):
            published.write(
                tmp_path / "folder",
                state=wrong,
                architecture="resnet18",
                model_args={},
                contract=contract(),
                card_text="",
                tag="x",
            )


@pytest.mark.parametrize(
    ("architecture", "dtype", "size"),
    [("resnet18", "float16", 64), ("vit_tiny_patch16_224", "float32", 224)],
)
def test_features_are_bit_equal_where_this_package_is_not_installed(
    tmp_path, architecture, dtype, size
):
    made = contract(1, size)
    folder = publish(tmp_path / "f", architecture, dtype=getattr(torch, dtype), made=made)
    pictures = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    code = WITHOUT_US + textwrap.dedent(f"""
        import numpy, timm, torch
        torch.set_num_threads(1)
        from transformers import AutoModel, AutoModelForImageClassification, AutoImageProcessor
        folder = {str(folder)!r}
        pictures = torch.from_numpy(numpy.load("pictures.npy"))
        plain = timm.create_model("local-dir:" + folder, pretrained=True).eval()
        auto = AutoModel.from_pretrained(folder).eval()
        classifier = AutoModelForImageClassification.from_pretrained(folder, num_labels=3)
        with torch.no_grad():
            numpy.save("timm.npy", plain(pictures).numpy())
            numpy.save("auto.npy", auto(pictures).pooler_output.numpy())
            backbone = classifier.timm_model
            backbone.reset_classifier(0)
            numpy.save("classifier.npy", backbone.eval()(pictures).numpy())
        kinds = {{str(p.dtype) for m in (plain, auto, classifier) for p in m.parameters()}}
        assert kinds == {{"torch.float32"}}, kinds
        assert classifier.num_labels == 3
        assert type(AutoImageProcessor.from_pretrained(folder)).__name__.startswith("TimmWrapper")
        assert not any(n.startswith("cxr_foundation") for n in sys.modules)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        ours = load(folder)(pictures).numpy()
    differences = {
        door: float(np.abs(np.load(tmp_path / f"{door}.npy") - ours).max())
        for door in ("timm", "auto", "classifier")
    }
    assert differences == {"timm": 0.0, "auto": 0.0, "classifier": 0.0}


def test_a_claimed_name_of_ours_is_written_as_the_stock_name(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file(random_encoder("resnet18").state_dict(), file)
    convert_to_folder(file, tmp_path / "out", architecture="cxr_resnet18")
    assert read_config(tmp_path / "out").architecture == "resnet18"


@pytest.mark.parametrize("dtype", [torch.float16, None])
def test_the_type_of_the_weights_is_the_files_or_the_one_that_is_asked_for(tmp_path, dtype):
    file = tmp_path / "a.safetensors"
    state = {
        n: t.double() if t.is_floating_point() else t
        for n, t in random_encoder("resnet18").state_dict().items()
    }
    save_file(state, file)
    report = convert_to_folder(file, tmp_path / "out", dtype=dtype)
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert held["conv1.weight"].dtype == (dtype or torch.float64)
    assert report.cast_to == (None if dtype is None else "float16")


def test_a_model_fine_tuned_and_saved_by_transformers_loads_in_timm_and_here(folder, tmp_path):
    from transformers import AutoModelForImageClassification

    tuned = AutoModelForImageClassification.from_pretrained(folder, num_labels=3).eval()
    with torch.no_grad():
        tuned.timm_model.fc.weight.fill_(0.01)
    saved = tmp_path / "saved"
    tuned.save_pretrained(saved)
    pictures = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = tuned(pictures).logits
        plain = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
        assert largest_difference(plain(pictures), expected) == 0
        assert largest_difference(load(saved, num_classes=3)(pictures), expected) == 0
        assert largest_difference(load(saved)(pictures), load(folder)(pictures)) == 0
    assert processor(saved).contract == contract()


def test_segmentation_encoders_get_the_feature_maps(folder):
    smp = pytest.importorskip("segmentation_models_pytorch")
    encoder = smp.encoders.get_encoder("tu-cxr_resnet18", in_channels=1, weights=None, depth=5)
    state = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    encoder.load_state_dict(state)
    maps = timm.create_model(
        "cxr_resnet18",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(folder / "model.safetensors")},
        features_only=True,
        in_chans=1,
    )
    pictures = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = encoder.eval()(pictures)[1:]
        assert largest_difference(found, maps.eval()(pictures)) == 0


def test_a_kept_head_has_its_labels(tmp_path):
    folder = publish(tmp_path / "head", "resnet18", num_classes=2)
    config = read_config(folder)
    assert config.num_classes == 2
    assert config.label_names == ("finding 0", "finding 1")
    assert load(folder, num_classes=2).fc.weight.shape == (2, 512)
    assert load(folder).num_classes == 0
    with pytest.raises(KeyMismatch, match="2 classes, not 3"):
        load(folder, num_classes=3)


@pytest.mark.parametrize(
    ("change_to", "error", "words"),
    [
        ({"architecture": "../../etc/passwd"}, UnreadableCheckpoint, "not the name of a network"),
        ({"architecture": "hf-hub:a/b"}, UnreadableCheckpoint, "not the name of a network"),
        ({"architecture": "resnet19"}, UnknownName, "resnet18"),
        ({"architecture": "resnet50"}, KeyMismatch, "resnet50"),
        ({"num_classes": -1}, UnreadableCheckpoint, "num_classes"),
        ({"num_classes": True}, UnreadableCheckpoint, "num_classes"),
        ({"num_classes": 3}, KeyMismatch, "0 classes where config.json says 3"),
        ({"num_classes": 2, "label_names": ["a", "a"]}, UnreadableCheckpoint, "twice"),
        ({"model_args": [1]}, UnreadableCheckpoint, "model_args"),
        ({"model_args": {"layers": [500, 500, 500, 500]}}, UnreadableCheckpoint, "more than 256"),
        ({"model_args": {"layers": {"a": 1}}}, UnreadableCheckpoint, "layers"),
        ({"model_args": {"in_chans": 1, "no_such": 1}}, KeyMismatch, "cannot build"),
        ({"model_args": {"in_chans": 0}}, UnreadableCheckpoint, "in_chans"),
        ({"pretrained_cfg": None}, UnreadableCheckpoint, "pretrained_cfg"),
        ({"pretrained_cfg__mean": ["0.5"]}, UnreadableCheckpoint, "mean"),
        ({"pretrained_cfg__std": [0.0]}, UnreadableCheckpoint, "above 0"),
        ({"pretrained_cfg__std": [0.1, 0.1]}, UnreadableCheckpoint, "each channel"),
        ({"pretrained_cfg__input_size": [1, 64]}, UnreadableCheckpoint, "input_size"),
        ({"pretrained_cfg__crop_pct": 0}, UnreadableCheckpoint, "crop_pct"),
        ({"cxr_foundation": {}}, UnreadableCheckpoint, "contract"),
        ({"cxr_foundation": {"contract": {"channels": 1}}}, ContractError, "missing"),
        (
            {"cxr_foundation": {"contract": {**contract().to_dict(), "size": "ab"}}},
            ContractError,
            "size",
        ),
    ],
)
def test_a_config_that_cannot_be_is_refused(folder, change_to, error, words):
    with pytest.raises(error, match=words):
        load(change(folder, **change_to))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"architecture": "resnet18", "architecture": "resnet50"}', "twice"),
        ('{"pretrained_cfg": {"mean": [NaN]}}', "NaN"),
        ("[" * 100_000, "JSON"),
        (" " * (1 << 20) + "{}", "larger than"),
        ("\xff", "JSON"),
    ],
)
def test_a_config_that_is_not_sound_json_is_refused(folder, text, words):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UnreadableCheckpoint, match=words):
        read_config(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_that_leave_the_folder_are_not_followed(folder, name):
    outside = folder.parent / name
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(UnreadableCheckpoint, match="leads out of the folder"):
        load(folder)


def test_links_into_the_folders_own_hub_cache_are_followed(folder, tmp_path):
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "abc", tmp_path / "repo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in folder.iterdir():
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(os.path.join("..", "..", "blobs", file.name))
    assert load(snapshot).num_features == 512


def test_other_weights_in_the_folder_are_not_looked_at(folder):
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load(folder).num_features == 512
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnreadableCheckpoint, match=r"has no model\.safetensors"):
        load(folder)


def test_weights_of_another_image_size_are_not_resampled_behind_the_back(tmp_path):
    folder = publish(tmp_path / "vit", "vit_tiny_patch16_224", made=contract(1, 224))
    change(folder, model_args={"in_chans": 1, "img_size": 96})
    with pytest.raises(KeyMismatch, match="pos_embed"):
        load(folder)


def test_convert_writes_a_folder_whose_contract_is_unknown_and_says_so(tmp_path):
    encoder = random_encoder("resnet18", in_chans=1)
    file = tmp_path / "wild.safetensors"
    save_file(encoder.state_dict(), file)
    report = convert_to_folder(file, tmp_path / "out")
    assert report.sha256 == sha256_of(file)
    config = read_config(tmp_path / "out")
    assert config.contract is not None and not config.contract.complete
    assert config.contract.size == (224, 224)
    assert "mean" not in config.pretrained_cfg
    card = read_card(tmp_path / "out")
    assert isinstance(card, HubCard) and card.license == "unknown"
    with pytest.raises(ContractError):
        processor(tmp_path / "out")
    model = load(tmp_path / "out")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in encoder.state_dict().items())


def test_convert_by_name_gives_the_cards_contract(tmp_path):
    from cxr_foundation.catalog import checkpoint

    state = random_encoder("resnet50", in_chans=1).state_dict()
    state = {f"module.encoder_q.{k}": v for k, v in state.items()}
    torch.save({"state_dict": state}, tmp_path / "chess.pth.tar")
    convert_to_folder(tmp_path / "chess.pth.tar", tmp_path / "out", name="cxr_resnet50.chess")
    assert read_config(tmp_path / "out").contract == checkpoint("cxr_resnet50.chess").contract
    assert read_card(tmp_path / "out").name == "cxr_resnet50.chess"


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "half.safetensors")
    with pytest.raises(KeyMismatch):
        convert_to_folder(tmp_path / "half.safetensors", tmp_path / "out", architecture="resnet18")
    assert [p.name for p in tmp_path.iterdir()] == ["half.safetensors"]
