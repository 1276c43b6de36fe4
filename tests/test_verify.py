"""The golden check, and features of many radiographs."""

import dataclasses

import numpy as np
import pytest
import torch
from cards import BYTES
from encoders import contract, install, publish, random_encoder
from safetensors.torch import load_file, save_file

from cxr_foundation.catalog import Golden, Source, render_card
from cxr_foundation.errors import CheckpointError, NoImages
from cxr_foundation.files import sha256_of
from cxr_foundation.images import phantom
from cxr_foundation.images.processor import Processor
from cxr_foundation.models.embed import embed
from cxr_foundation.models.loading import load
from cxr_foundation.models.verify import golden_embedding, verify

NAME = "cxr_resnet18.made_up"


@pytest.fixture
def folder(tmp_path):
    return publish(tmp_path / "folder", "resnet18")


def give_card(folder, monkeypatch, *, golden=True, sha256=None):
    """A card for the folder, inside it and in the catalogue."""
    weights = folder / "model.safetensors"
    embedding = golden_embedding(load(folder), contract())
    source = Source(
        kind="bundled",
        path=NAME,
        sha256=sha256 or sha256_of(weights),
        size_bytes=weights.stat().st_size,
    )
    facts = {"contract": contract(), "source": source}
    if golden:
        values = tuple(float(v) for v in embedding)
        facts["golden"] = Golden(phantom=phantom.NAME, embedding=values)
    record = install(monkeypatch, weights, **facts)
    if golden:
        record = dataclasses.replace(record, evidence={**record.evidence, "golden": BYTES})
    (folder / "README.md").write_text(render_card(record, body="# x\n", hub_keys={}))
    return record


def statuses(verdict):
    return {c.name: c.status for c in verdict.checks}


def test_the_right_weights_pass_by_name_and_by_folder(folder, monkeypatch):
    give_card(folder, monkeypatch)
    every = {"card": "pass", "weights": "pass", "sha256": "pass", "golden": "pass"}
    for subject in (NAME, folder):
        verdict = verify(subject)
        assert verdict.status == "pass"
        assert statuses(verdict) == every
        assert verdict.to_dict()["status"] == "pass"
        assert verdict.lines()[-1] == f"{subject}: pass"


def test_without_a_golden_embedding_weights_are_unverified(folder, monkeypatch):
    give_card(folder, monkeypatch, golden=False)
    verdict = verify(folder)
    assert verdict.status == "unverified"
    assert "weights unverified" in verdict.lines()[-1]


def test_a_folder_whose_card_states_no_facts_is_unverified(folder):
    verdict = verify(folder)
    assert verdict.status == "unverified"
    assert statuses(verdict) == {
        "card": "unverified",
        "weights": "pass",
        "sha256": "unverified",
        "golden": "unverified",
    }


def test_other_weights_fail(folder, monkeypatch):
    give_card(folder, monkeypatch)
    state = random_encoder("resnet18", in_chans=1, seed=1).state_dict()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    verdict = verify(folder)
    assert verdict.status == "fail"
    assert statuses(verdict) == {
        "card": "pass",
        "weights": "pass",
        "sha256": "fail",
        "golden": "fail",
    }
    assert verify(NAME).status == "fail"


def test_weights_that_are_scaled_keep_the_cosine_and_fail_by_the_norm(folder, monkeypatch):
    give_card(folder, monkeypatch)
    state = load_file(folder / "model.safetensors")
    for name in ("layer4.1.bn2.weight", "layer4.1.bn2.bias"):
        state[name] = state[name] * 1.01
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    golden = next(c for c in verify(folder).checks if c.name == "golden")
    assert golden.status == "fail"


def test_damaged_weights_fail_and_are_not_a_crash(folder, monkeypatch):
    give_card(folder, monkeypatch)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert statuses(verify(folder))["weights"] == "fail"
    assert statuses(verify(NAME))["weights"] == "fail"


def test_the_golden_embedding_is_the_encoders_output_for_the_phantom(folder):
    model = load(folder)
    embedding = golden_embedding(model, contract())
    pixels = Processor(contract())(phantom.draw())["pixel_values"]
    with torch.no_grad():
        expected = model(pixels)[0].numpy()
    assert embedding.dtype == np.float32 and embedding.shape == (512,)
    np.testing.assert_array_equal(embedding, expected)


def test_embed_gives_each_picture_the_row_that_it_has_alone(folder):
    model, processor = load(folder), Processor(contract())
    pictures = [np.rot90(phantom.draw(), k).copy() for k in range(4)]
    together = embed(model, processor, pictures, batch_size=3, device="cpu")
    assert together.shape == (4, 512) and together.dtype == np.float32
    with torch.no_grad():
        for row, picture in zip(together, pictures, strict=True):
            expected = model(processor(picture)["pixel_values"])[0].numpy()
            # Of the whole vector: a feature that is nearly zero is a difference of large ones, and
            # sums of a batch and of one picture are taken in another order.
            assert np.linalg.norm(row - expected) < 2e-6 * np.linalg.norm(expected)


def test_embed_leaves_the_mode_of_the_model_and_its_gradients_alone(folder):
    model = load(folder).train()
    embed(model, Processor(contract()), iter([phantom.draw()]), device="cpu")
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_embed_refuses_nothing_and_maps(folder):
    processor = Processor(contract())
    with pytest.raises(NoImages):
        embed(load(folder), processor, [], device="cpu")
    maps = random_encoder("resnet18", in_chans=1, global_pool="")
    with pytest.raises(CheckpointError, match="one vector"):
        embed(maps, processor, [phantom.draw()], device="cpu")
