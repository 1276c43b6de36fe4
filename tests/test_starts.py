"""What a pretraining run may start from, exactly, and what of its start it hands on."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import timm
import torch
import yaml
from encoders import install, publish, random_encoder
from pretraining import ARCHITECTURES, TINY, draw_pictures
from safetensors.torch import load_file, save_file
from timm.models import _registry

from cxr_foundation import catalog, pretrain
from cxr_foundation.catalog import Training
from cxr_foundation.contract import InputContract
from cxr_foundation.errors import (
    KeyMismatch,
    PushRefused,
    RecipeError,
    UnknownName,
    UnsafeCheckpoint,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.models import loading
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import card_body, stages, starts
from cxr_foundation.pretrain.recipe_file import read_recipe

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


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


def recipe(folder, architecture="test_resnet", channels=1, size=32, **changes):
    """A recipe's file: one step of four pictures."""
    fed = {"mean": [0.5] * channels, "std": [0.25] * channels}
    raw = {
        **TINY,
        "encoder": {"architecture": architecture, "in_chans": channels},
        "contract": {"channels": channels, "size": [size, size], **fed},
        "train": {**TINY["train"], "epochs": 1},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def plan(folder, *args, **changes):
    return read_recipe(recipe(folder, *args, **changes))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# timm's weights.


@pytest.fixture
def timm_has(monkeypatch, tmp_path):
    """Gives timm weights of a tiny network, as a file with the head of ImageNet: its tensors."""

    def give(name, **told):
        model = random_encoder(name, num_classes=1000)
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        cfg = timm.get_pretrained_cfg(name)
        tagged = f"{name}.{cfg.tag}"
        file = {"file": str(tmp_path / "weights.safetensors"), "license": "apache-2.0"}
        changed = dataclasses.replace(cfg, hf_hub_id=None, url="", **{**file, **told})
        monkeypatch.setitem(_registry._model_pretrained_cfgs, tagged, changed)
        return f"timm:{tagged}", model.reset_classifier(0) or model

    return give


def test_a_name_of_timm_gives_all_its_tensors_but_the_head(timm_has, tmp_path):
    start, model = timm_has("test_resnet")
    assert equal(starts.tensors(plan(tmp_path, channels=3, start=start)), model.state_dict())


def test_of_timm_licence_input_and_hash_are_known_but_not_what_it_has_seen(timm_has, tmp_path):
    start, _ = timm_has("test_resnet", mean=(0.1, 0.2, 0.3))
    told = starts.read(plan(tmp_path, channels=3, start=start))
    assert told.sha256 == sha256_of(tmp_path / "weights.safetensors")
    assert (told.name, told.licence, told.mean) == (start, "apache-2.0", (0.1, 0.2, 0.3))
    assert (told.data, told.overlaps) == (None, None)


def test_a_stem_of_one_channel_gives_the_same_features_of_grey_pictures(timm_has, tmp_path):
    start, model = timm_has("test_resnet", mean=(0.5,) * 3, std=(0.5,) * 3)
    own = stages.build(plan(tmp_path, start=start), 0, run=tmp_path).encoder.eval()
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(own(grey), model(grey.expand(-1, 3, -1, -1)))


def test_a_patch_embedding_folds_means_that_differ_into_its_bias(timm_has, tmp_path):
    start, model = timm_has("test_vit", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    ours = plan(tmp_path, "test_vit", size=160, start=start)
    own = stages.build(ours, 0, run=tmp_path).encoder.eval()
    told = starts.read(ours)
    grey = torch.rand(2, 1, 160, 160, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model((grey - mean) / std)
        torch.testing.assert_close(
            own((grey - told.mean[0]) / told.std[0]), expected, rtol=1e-4, atol=1e-5
        )


def test_a_padded_stem_with_means_that_differ_is_refused_for_one_channel(timm_has, tmp_path):
    start, _ = timm_has("test_resnet", mean=(0.485, 0.456, 0.406))
    with pytest.raises(KeyMismatch, match=r"Use in_chans=3"):
        starts.tensors(plan(tmp_path, start=start))


def test_a_name_that_timm_has_no_weights_for_is_refused(tmp_path):
    with pytest.raises(UnknownName, match="timm has no weights"):
        starts.tensors(plan(tmp_path, channels=3, start="timm:resnet50.of_nobody"))


def test_weights_of_another_network_are_refused_though_timm_has_them(timm_has, tmp_path):
    start, _ = timm_has("test_vit")
    with pytest.raises(RecipeError, match="is test_vit, not test_resnet"):
        starts.tensors(plan(tmp_path, channels=3, start=start))


# Files and folders.


def test_a_torchvision_file_sets_every_tensor_and_loses_its_head_by_name(tmp_path):
    import torchvision

    network = torchvision.models.resnet18(num_classes=10)
    torch.save(network.state_dict(), tmp_path / "r.pth")
    state = starts.tensors(plan(tmp_path, "resnet18", channels=3, start=str(tmp_path / "r.pth")))
    expected = {n: t for n, t in network.state_dict().items() if not n.startswith("fc.")}
    assert equal(state, expected)


def test_a_timm_file_of_a_network_that_is_in_no_table_is_held_to_the_recipes(tmp_path):
    network = timm.create_model("test_efficientnet", num_classes=5)
    torch.save(network.state_dict(), tmp_path / "e.pth")
    state = starts.tensors(
        plan(tmp_path, "test_efficientnet", channels=3, start=str(tmp_path / "e.pth"))
    )
    assert equal(state, {n: t for n, t in network.state_dict().items() if "classifier" not in n})


def test_a_file_that_leaves_a_tensor_out_is_refused_by_its_name(tmp_path):
    state = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    del state["conv_head.weight"]
    torch.save(state, tmp_path / "e.pth")
    with pytest.raises(KeyMismatch, match=r"1 missing \(conv_head\.weight\)"):
        starts.tensors(
            plan(tmp_path, "test_efficientnet", channels=3, start=str(tmp_path / "e.pth"))
        )


def test_a_file_that_names_code_is_not_opened(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}, "x": os.system}, tmp_path / "e")
    with pytest.raises(UnsafeCheckpoint):
        starts.tensors(plan(tmp_path, "resnet18", channels=3, start=str(tmp_path / "e")))


@pytest.fixture
def lite0(tmp_path):
    """A file of three channels that does not say how they were normalised."""
    network = random_encoder("test_efficientnet")
    torch.save(network.state_dict(), tmp_path / "e.pth")
    return network, str(tmp_path / "e.pth")


def test_channels_of_a_file_that_says_nothing_of_its_input_are_not_guessed_at(lite0, tmp_path):
    with pytest.raises(RecipeError, match=r"nothing says how they were normalised.*start_facts"):
        starts.tensors(plan(tmp_path, "test_efficientnet", start=lite0[1]))


def test_what_the_recipe_states_of_its_input_makes_the_fold_exact(lite0, tmp_path):
    network, path = lite0
    facts = {"mean": [0.5], "std": [0.5]}
    ours = plan(tmp_path, "test_efficientnet", start=path, start_facts=facts)
    own = stages.build(ours, 0, run=tmp_path).encoder.eval()
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(own(grey), network(grey.expand(-1, 3, -1, -1)))


def test_a_recipe_that_contradicts_its_start_is_refused(timm_has, tmp_path):
    start, _ = timm_has("test_resnet")
    with pytest.raises(RecipeError, match=r"start_facts\.licence.*'mit'.*says 'apache-2.0'"):
        starts.read(plan(tmp_path, channels=3, start=start, start_facts={"licence": "mit"}))


def test_a_published_folder_gives_its_tensors_and_the_licence_of_its_card(tmp_path):
    folder = publish(tmp_path / "made", "test_resnet")
    ours = plan(tmp_path, start=str(folder))
    assert equal(starts.tensors(ours), load_file(folder / "model.safetensors"))
    told = starts.read(ours)
    assert (told.name, told.licence) == ("made", "mit")
    assert told.sha256 == sha256_of(folder / "model.safetensors")


def test_a_folder_of_another_size_of_pictures_has_its_position_table_resampled(tmp_path):
    made = InputContract(channels=1, size=(64, 64), mean=(0.5,), std=(0.25,))
    folder = publish(tmp_path / "made", "test_vit", made=made, img_size=64)
    state = starts.tensors(plan(tmp_path, "test_vit", size=32, start=str(folder)))
    held = load_file(folder / "model.safetensors")
    assert state["pos_embed"].shape[1] == 1 + (32 // 16) ** 2
    assert equal(
        {n: t for n, t in state.items() if n != "pos_embed"},
        {n: t for n, t in held.items() if n != "pos_embed"},
    )


def test_a_folder_whose_network_was_built_otherwise_is_refused(tmp_path):
    made = InputContract(channels=1, size=(160, 160), mean=(0.5,), std=(0.25,))
    folder = publish(tmp_path / "made", "test_vit", made=made, global_pool="avg")
    with pytest.raises(RecipeError, match=r"with the arguments \{'global_pool': 'avg'\}"):
        starts.tensors(plan(tmp_path, "test_vit", size=160, start=str(folder)))


def test_a_model_of_the_catalogue_hands_on_what_it_has_seen(tmp_path, monkeypatch):
    file = publish(tmp_path / "made", "cxr_resnet18", layers=[1, 1, 1, 1]) / "model.safetensors"
    monkeypatch.setitem(STOCK, "cxr_resnet18", ("resnet18", {"layers": [1, 1, 1, 1]}))
    seen = Training(
        method="MoCo v2",
        recipe=None,
        images=9,
        data=("NIH ChestX-ray14",),
        overlaps=("RSNA",),
        labels_used_for_selection=False,
    )
    install(monkeypatch, file, training=seen)
    ours = plan(tmp_path, "cxr_resnet18", start="cxr_resnet18.made_up")
    told = starts.read(ours)
    assert equal(starts.tensors(ours), load_file(file))
    assert (told.method, told.data, told.overlaps) == ("MoCo v2", ("NIH ChestX-ray14",), ("RSNA",))


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no file and no folder"):
        starts.tensors(plan(tmp_path, start="no/such/file.pth"))


def test_facts_without_a_start_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="start_facts: there is no start"):
        plan(tmp_path, start_facts={"licence": "mit"})


# Networks.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "none of ours and none of timm's. Did you mean"),
        ("resnet50.a1_in1k", "names weights, not a network. Write resnet50"),
    ],
)
def test_a_network_that_nobody_knows_is_refused_before_anything_is_read(tmp_path, name, message):
    with pytest.raises(RecipeError, match=message):
        pretrain.run(recipe(tmp_path, name), data=tmp_path, output=tmp_path / "run")


# Tiny networks of each family; Swin has none in timm.
FAMILIES = {
    "vit": ("test_vit", {}),
    "resnet": ("test_resnet", {}),
    "densenet": ("densenet121", {"block_config": (1, 1, 1, 1), "growth_rate": 8}),
    "convnext": ("test_convnext", {}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8)},
    ),
}


@pytest.mark.parametrize("pixels", [112, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_views_of_another_size_are_trained_on_and_the_encoder_keeps_the_contracts_shape(
    tmp_path, monkeypatch, family, pixels
):
    monkeypatch.setitem(STOCK, "cxr_small", FAMILIES[family])
    ours = plan(tmp_path, "cxr_small", size=224, views={"size": [pixels, pixels]})
    stock, args = starts.network_of(ours)
    expected = timm.create_model(stock, num_classes=0, **args).state_dict()
    method = stages.build(ours, 0, run=tmp_path).train()
    views = [torch.randn(4, 1, pixels, pixels) for _ in range(2)]
    loss = method(views, draw=0)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    state = method.result().state_dict()
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in expected.items()}
    assert not equal(state, expected)


def test_a_network_of_one_size_says_so(tmp_path):
    ours = plan(tmp_path, "test_coatnet", size=160, views={"size": [112, 112]})
    with pytest.raises(RecipeError, match=r"takes pictures of 160 x 160 pixels only, not 112"):
        stages.build(ours, 0, run=tmp_path)


# The recipes of Verma & Tapaswi's arms.


@pytest.mark.parametrize("small", ["", "_small"])
def test_the_arms_of_verma_differ_in_start_pictures_and_views_only(small):
    imagenet, cxr, both = (
        read_recipe(f"verma_{arm}{small}")
        for arm in ("ssl_imagenet", "ssl_cxr", "imagenet_then_cxr")
    )
    assert both.start.startswith("timm:")
    assert (imagenet.start, cxr.start) == (None, None)
    assert [r.stages[0].data.colour for r in (imagenet, cxr, both)] == [True, False, False]
    assert both.stages == cxr.stages
    for other in (imagenet, both):
        assert (other.encoder, other.contract) == (cxr.encoder, cxr.contract)
        for part in ("method", "settings", "train"):
            assert getattr(other.stages[0], part) == getattr(cxr.stages[0], part)


def test_no_radiograph_is_mirrored_in_an_arm_of_verma():
    for name in ("verma_ssl_cxr", "verma_ssl_cxr_small"):
        assert read_recipe(name).stages[0].views.flip_p == 0


# From start to card.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a network of timm's that starts from a file under a licence for research."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("finished")
    torch.save(random_encoder("test_vit", in_chans=1).state_dict(), root / "before.pth")
    facts = {
        "mean": [0.4],
        "std": [0.2],
        "licence": "cc-by-nc-4.0",
        "method": "supervised",
        "data": ["VinDr-CXR"],
        "overlaps": ["VinDr-RibCXR"],
    }
    path = recipe(
        root,
        "test_vit",
        size=160,
        data={"size": [160, 160]},
        start=str(root / "before.pth"),
        start_facts=facts,
        publish={"tag": "own", "title": "Own", "data": ["Noise"], "overlaps": ["JSRT"]},
    )
    pictures = draw_pictures(root / "pictures", 4)
    pretrain.run(path, data=pictures, output=root / "run")
    return root


def test_the_published_folder_has_timms_own_name_and_loads_in_plain_timm(finished):
    folder = finished / "run" / "encoder"
    assert json.loads((folder / "config.json").read_text())["architecture"] == "test_vit"
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert equal(
        {n: t.half() for n, t in model.state_dict().items()},
        load_file(folder / "model.safetensors"),
    )
    assert equal(loading.load(folder).state_dict(), model.state_dict())


def test_the_cards_name_is_the_networks(finished):
    card = catalog.read_record(finished / "run" / "encoder" / "README.md")
    assert (card.name, card.architecture) == ("test_vit.own", "test_vit")


def test_the_card_hands_on_what_the_start_has_seen(finished):
    training = catalog.read_record(finished / "run" / "encoder" / "README.md").training
    assert training.method == "supervised (before.pth) → MoCo v2"
    assert training.data == ("VinDr-CXR", "Noise")
    assert training.overlaps == ("VinDr-RibCXR", "JSRT")


def test_the_cards_text_tells_hash_licence_and_input_of_the_start(finished):
    text = catalog.body_of(finished / "run" / "encoder" / "README.md")
    digest = sha256_of(finished / "before.pth")
    assert (
        f"Started from `before.pth` (sha256 `{digest}`; licence cc-by-nc-4.0; trained on "
        "VinDr-CXR). It may have seen pictures of VinDr-RibCXR. It was fed pixels of mean 0.4 and "
        "standard deviation 0.2." in text
    )


def test_no_card_tells_the_way_to_a_local_file(finished):
    assert str(finished) not in (finished / "run" / "encoder" / "README.md").read_text()


def test_weights_from_a_start_for_research_have_no_licence_and_are_not_pushed(finished):
    card = catalog.read_record(finished / "run" / "encoder" / "README.md")
    assert card.licences.weights is None
    assert card.unknown["licences.weights"].endswith("the licence of its start is cc-by-nc-4.0")
    with pytest.raises(PushRefused, match="names no licence"):
        pretrain.run(
            finished / "recipe.yaml",
            data=finished / "pictures",
            output=finished / "other",
            push_to="org/name",
        )
    assert not (finished / "other").exists()


def test_the_run_notes_its_start(finished):
    noted = json.loads((finished / "run" / "run.json").read_text())["start"]
    assert noted["name"] == "before.pth"
    assert noted["sha256"] == sha256_of(finished / "before.pth")
    assert noted["licence"] == "cc-by-nc-4.0"


def test_a_run_whose_start_has_changed_is_not_taken_up_again(tmp_path):
    for seed in (0, 1):
        state = random_encoder("test_resnet", in_chans=1, seed=seed).state_dict()
        torch.save(state, tmp_path / "before.pth")
        path = recipe(tmp_path, start=str(tmp_path / "before.pth"), train=TINY["train"])
        pictures = tmp_path / "pictures"
        if seed == 0:
            draw_pictures(pictures, 4)
            pretrain.run(path, data=pictures, output=tmp_path / "run")
            (tmp_path / "run" / "encoder").rename(tmp_path / "elsewhere")
        else:
            with pytest.raises(RecipeError, match=r"start\.sha256"):
                pretrain.run(path, data=pictures, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("apache-2.0", False),
        ("mit", False),
        ("cc-by-4.0", False),
        ("bsd-3-clause", False),
        ("cc-by-nc-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("msrla-research", True),
        ("other", True),
        (None, True),
    ],
)
def test_a_licence_that_is_unknown_or_for_some_uses_only_is_told_apart(licence, restricted):
    assert card_body.restricts(licence) is restricted


def test_every_figure_that_a_method_logs_has_words():
    written = {
        figure
        for file in Path(card_body.__file__).parent.joinpath("methods").glob("*.py")
        for figure in file.read_text().split('"')[1::2]
        if figure in card_body._FIGURES
    }
    assert {"accuracy", "agreement", "correlation", "psnr", "teacher_entropy", "wins"} <= written
