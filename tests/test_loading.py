"""Weights by name and by file: every tensor from the file, bit for bit, or an error."""

import json
import multiprocessing
import os

import pytest
import timm
import torch
from encoders import FETCHES, contract, install, largest_difference, publish, random_encoder
from safetensors.torch import load_file, save_file

from cxr_foundation import hub
from cxr_foundation.catalog import Conversion, Source
from cxr_foundation.errors import (
    AskTheAuthors,
    ContractError,
    HashMismatch,
    KeyMismatch,
    UnknownLayout,
    UnknownName,
    UnreadableCheckpoint,
    UnsafeCheckpoint,
)
from cxr_foundation.models.loading import contract_of, create_model, load, processor, weights_path

NAME = "cxr_resnet18.made_up"
PUBLISHED = Source(kind="hub", repo="org/made_up", revision="0" * 40)
WILD = Source(kind="google_drive", file_id="0123456789", filename="wild.pth.tar")
MOCO = Conversion(layout="moco", takes="encoder_q", ran_on_authors_file=True)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures():
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path):
    """A published one-channel ResNet-18 in half precision."""
    return publish(tmp_path / "folder", "resnet18", dtype=torch.float16)


@pytest.fixture
def card(folder, monkeypatch):
    """The catalogue has a card whose source is that folder."""
    return install(monkeypatch, folder / "model.safetensors", contract=contract(), source=PUBLISHED)


@pytest.fixture
def wild_file(tmp_path):
    """A one-channel ResNet-18 as MoCo saves it, with a head, a queue and a momentum encoder."""
    encoder = random_encoder("resnet18", in_chans=1).state_dict()
    names = [("encoder_q", 0), ("encoder_k", 1)]
    state = {f"module.{q}.{k}": v + d for q, d in names for k, v in encoder.items()}
    state |= {"module.encoder_q.fc.weight": torch.randn(8, 512), "module.queue": torch.randn(8, 4)}
    file = tmp_path / "wild.pth.tar"
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": state}, file)
    return file, encoder


def features(model, pictures):
    with torch.no_grad():
        return model.eval()(pictures)


def test_half_precision_files_become_float32_with_the_very_values(card, folder):
    model = timm.create_model(NAME, pretrained=True)
    state = model.state_dict()
    held = load_file(folder / "model.safetensors")
    assert {v.dtype for k, v in held.items() if v.is_floating_point()} == {torch.float16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(state[k], held[k].to(state[k].dtype)) for k in held)
    assert state.keys() == held.keys()


def test_all_doors_give_the_same_features(card, folder, pictures):
    expected = features(load(folder), pictures)
    doors = {
        "timm": timm.create_model(NAME, pretrained=True),
        "create_model": create_model(NAME),
        "local-dir": timm.create_model(f"local-dir:{folder}", pretrained=True),
        "file": load(folder / "model.safetensors"),
    }
    found = {door: largest_difference(features(m, pictures), expected) for door, m in doors.items()}
    assert found == dict.fromkeys(doors, 0.0)


def test_parameters_can_be_trained_and_the_file_stays_as_it_is(tmp_path, pictures):
    folder = publish(tmp_path / "fp32", "resnet18")
    before = (folder / "model.safetensors").read_bytes()
    model = load(folder).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(pictures).sum().backward()
    optimizer.step()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_new_head_is_initialised_and_the_encoder_is_the_files(card, folder):
    model = create_model(NAME, num_classes=6)
    held = load_file(folder / "model.safetensors")
    state = model.state_dict()
    assert state["fc.weight"].shape == (6, 512)
    # A linear layer starts uniformly within 1/sqrt(512), so its deviation is that over sqrt(3).
    assert state["fc.weight"].std() == pytest.approx(1 / (512 * 3) ** 0.5, rel=0.05)
    assert all(torch.equal(state[k], held[k].to(state[k].dtype)) for k in held)


def test_a_head_of_the_asked_size_is_taken_from_the_file_and_any_other_is_dropped(tmp_path):
    folder = publish(tmp_path / "head", "resnet18", num_classes=3)
    held = load_file(folder / "model.safetensors")
    file = {"file": str(folder / "model.safetensors")}
    args = {"pretrained": True, "pretrained_cfg_overlay": file, "in_chans": 1}
    kept = timm.create_model("cxr_resnet18", num_classes=3, **args)
    assert torch.equal(kept.fc.weight, held["fc.weight"])
    other = timm.create_model("cxr_resnet18", num_classes=4, **args)
    assert other.fc.weight.shape == (4, 512)
    assert torch.equal(other.conv1.weight, held["conv1.weight"])
    encoder = timm.create_model("cxr_resnet18", **args)
    assert encoder.num_classes == 0 and not any(k.startswith("fc") for k in encoder.state_dict())


def test_one_channel_becomes_three_with_the_same_response_to_grey(card, pictures):
    grey, colour = create_model(NAME), create_model(NAME, in_chans=3)
    assert colour.conv1.weight.shape[1] == 3
    found = features(colour, pictures.repeat(1, 3, 1, 1))
    torch.testing.assert_close(found, features(grey, pictures), rtol=1e-4, atol=1e-4)


def test_channels_that_have_no_exact_equivalent_are_refused(card):
    with pytest.raises(KeyMismatch, match="only 1 and 3 turn into each other"):
        create_model(NAME, in_chans=2)


def test_feature_maps_are_those_of_the_whole_encoder(card, pictures):
    maps = features(create_model(NAME, features_only=True, out_indices=(1, 4)), pictures)
    whole = create_model(NAME).eval()
    with torch.no_grad():
        stem = whole.layer1(whole.maxpool(whole.act1(whole.bn1(whole.conv1(pictures)))))
        expected = [stem, whole.forward_features(pictures)]
    assert largest_difference(maps, expected) == 0


def test_another_image_size_resamples_positions_as_timm_does(tmp_path):
    folder = publish(tmp_path / "vit", "vit_tiny_patch16_224", made=contract(3, 224))
    file = {"file": str(folder / "model.safetensors")}
    ours = timm.create_model(
        "cxr_vit_ti", pretrained=True, pretrained_cfg_overlay=file, img_size=96
    )
    stock = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={**file, "num_classes": 0, "custom_load": False},
        num_classes=0,
        img_size=96,
    )
    small = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    assert largest_difference(features(ours, small), features(stock, small)) == 0
    assert "state_dict" not in ours.pretrained_cfg


def test_layers_that_the_file_does_not_have_are_an_error_and_never_random(tmp_path):
    folder = publish(tmp_path / "vit", "vit_tiny_patch16_224", made=contract(3, 224))
    file = {"file": str(folder / "model.safetensors")}
    for classes in (0, 5):
        with pytest.raises(KeyMismatch, match="fc_norm"):
            timm.create_model(
                "cxr_vit_ti",
                pretrained=True,
                pretrained_cfg_overlay=file,
                global_pool="avg",
                num_classes=classes,
            )


def test_half_a_state_dict_is_refused(tmp_path):
    state = random_encoder("resnet18").state_dict()
    half = {k: v for n, (k, v) in enumerate(state.items()) if n % 2}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(KeyMismatch, match="missing"):
        load(tmp_path / "half.safetensors", architecture="cxr_resnet18")
    with pytest.raises(KeyMismatch, match="missing"):
        timm.create_model(
            "cxr_resnet18",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "half.safetensors")},
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = random_encoder("resnet18").state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(KeyMismatch, match=r"layer2\.0\.conv1\.weight"):
        timm.create_model(
            "cxr_resnet18",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "broken.safetensors")},
        )


def test_a_truncated_file_is_refused(card, folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UnreadableCheckpoint, match="cut short"):
        timm.create_model(NAME, pretrained=True)


def test_a_checkpoint_that_names_code_is_never_run(tmp_path):
    sentinel = tmp_path / "sentinel"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {sentinel}",)

    torch.save({"state_dict": {"a": torch.zeros(1), "b": Payload()}}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpoint, match=r"posix\.system"):
        load(tmp_path / "evil.pth", architecture="cxr_resnet18")
    assert not sentinel.exists()


def test_the_wrong_architecture_is_refused(folder):
    with pytest.raises(KeyMismatch, match="is resnet18, not cxr_resnet50"):
        load(folder, architecture="cxr_resnet50")
    with pytest.raises(KeyMismatch, match="resnet50"):
        load(folder / "model.safetensors", architecture="cxr_resnet50")


def test_unknown_names_name_the_closest():
    with pytest.raises(UnknownName, match="Did you mean 'cxr_resnet50'"):
        create_model("cxr_resnet5O")
    for door in (create_model, lambda n: timm.create_model(n, pretrained=True)):
        with pytest.raises(UnknownName, match=r"Did you mean 'cxr_resnet50\.chess'"):
            door("cxr_resnet50.ches")
    with pytest.raises(UnknownName, match="no model card"):
        timm.create_model("cxr_resnet101", pretrained=True)


def test_weights_that_are_only_had_by_asking_say_how(folder, monkeypatch):
    real_fetch = hub.fetch
    record = install(monkeypatch, folder, source=Source(kind="ask", how="Write to the authors."))
    monkeypatch.setattr(hub, "fetch", real_fetch)
    with pytest.raises(AskTheAuthors, match="Write to the authors"):
        weights_path(record)


def test_weights_that_no_converter_knows_say_so(tmp_path, monkeypatch):
    none = Conversion(layout=None, takes=None, ran_on_authors_file=False)
    unknown = {"conversion.layout": "no converter for this layout yet"}
    install(monkeypatch, tmp_path, source=WILD, conversion=none, unknown=unknown)
    with pytest.raises(UnknownLayout, match="no converter for this layout yet"):
        timm.create_model(NAME, pretrained=True)
    assert FETCHES == []


def test_a_wild_file_is_converted_once_and_then_needs_no_source(wild_file, monkeypatch, pictures):
    file, encoder = wild_file
    install(monkeypatch, file, contract=contract(), source=WILD, conversion=MOCO)
    first = timm.create_model(NAME, pretrained=True)
    assert all(torch.equal(v, encoder[k]) for k, v in first.state_dict().items())
    file.unlink()
    second = create_model(NAME)
    assert largest_difference(features(first, pictures), features(second, pictures)) == 0
    assert len(FETCHES) == 1


def test_a_damaged_conversion_is_made_again(wild_file, monkeypatch):
    file, encoder = wild_file
    record = install(monkeypatch, file, contract=contract(), source=WILD, conversion=MOCO)
    converted = weights_path(record)
    content = bytearray(converted.read_bytes())
    content[-1] ^= 0x40
    converted.write_bytes(content)
    assert weights_path(record) == converted
    assert all(torch.equal(v, encoder[k]) for k, v in load_file(converted).items())


def test_caches_are_where_the_caller_says(wild_file, monkeypatch, tmp_path):
    file, _ = wild_file
    record = install(monkeypatch, file, contract=contract(), source=WILD, conversion=MOCO)
    timm.create_model(NAME, pretrained=True, cache_dir=str(tmp_path / "mine"))
    assert FETCHES[-1]["cache_dir"] == str(tmp_path / "mine")
    assert list((tmp_path / "mine" / "cxr_foundation" / "converted" / NAME).glob("*/*.safetensors"))
    weights_path(record, token="hf_x", local_files_only=True, revision="main")
    options = {"token": "hf_x", "local_files_only": True, "revision": "main", "cache_dir": None}
    assert {k: FETCHES[-1][k] for k in options} == options


def _convert_in_a_process(place):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HF_HOME", str(place / "home"))
        record = install(
            monkeypatch, place / "wild.pth.tar", contract=contract(), source=WILD, conversion=MOCO
        )
        path = weights_path(record)
        return str(path), path.stat().st_ino


def test_several_processes_convert_once(wild_file, tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(_convert_in_a_process, [tmp_path] * 3)
    assert len(set(found)) == 1


def test_the_token_is_in_nothing_that_the_model_says_of_itself(card):
    model = create_model(NAME, token="hf_secret")
    assert "hf_secret" not in json.dumps([model._model_args, model.pretrained_cfg], default=str)
    assert FETCHES[-1]["token"] == "hf_secret"


def test_overlaid_weights_replace_the_cards(card, tmp_path):
    other = publish(tmp_path / "other", "resnet18", dtype=torch.float32)
    file = other / "model.safetensors"
    held = load_file(file)
    for overlay in ({"file": str(file)}, {"state_dict": held}):
        model = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay)
        assert torch.equal(model.conv1.weight, held["conv1.weight"])
    assert FETCHES == []
    timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"hf_hub_id": "org/x@v1"})
    assert FETCHES[-1]["name"] == NAME


def test_checkpoint_path_is_timms_own(card, tmp_path):
    other = publish(tmp_path / "other", "resnet18")
    file = other / "model.safetensors"
    model = timm.create_model("cxr_resnet18", in_chans=1, checkpoint_path=str(file))
    assert torch.equal(model.conv1.weight, load_file(file)["conv1.weight"])


def test_a_hash_that_differs_is_passed_through_timm(card, monkeypatch):
    def refuse(source, **options):
        raise HashMismatch(NAME, "other bytes")

    monkeypatch.setattr(hub, "fetch", refuse)
    with pytest.raises(HashMismatch):
        timm.create_model(NAME, pretrained=True)


def test_load_holds_a_checkpoint_to_what_is_claimed(wild_file):
    file, encoder = wild_file
    model = load(file)
    assert not model.training
    assert all(torch.equal(v, encoder[k]) for k, v in model.state_dict().items())
    assert load(file, architecture="cxr_resnet18", in_chans=1).conv1.weight.shape[1] == 1
    with pytest.raises(KeyMismatch, match=r"conv1\.weight"):
        load(file, architecture="cxr_resnet18", in_chans=3)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnreadableCheckpoint):
        load(tmp_path / "nothing.pth")


def test_the_processor_is_built_from_the_contract(card, folder):
    assert contract_of(NAME) == contract_of(folder) == contract()
    assert processor(folder).contract == processor(NAME).contract
    prepared = processor(folder)(torch.zeros(40, 30))["pixel_values"]
    assert prepared.shape == (1, 1, 64, 64)
    assert torch.equal(prepared, torch.full((1, 1, 64, 64), -2.0))


def test_a_folder_without_a_contract_has_no_processor(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["cxr_foundation"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ContractError, match="has no input contract"):
        processor(folder)
    with pytest.raises(UnreadableCheckpoint, match="no such folder"):
        processor(folder / "elsewhere")
