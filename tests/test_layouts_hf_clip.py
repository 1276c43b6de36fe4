"""CLIP and SigLIP by transformers' names, beyond the sweep: claims, and drops by name."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS, Case
from wild.dinov2 import save_as_transformers
from wild.hf_clip import clip_of_transformers, pooled_output_of

from cxr_foundation.convert import convert
from cxr_foundation.errors import KeyMismatch
from cxr_foundation.models.architectures import STOCK

_SMALL = Case("vit_base_patch32_clip_224", {"in_chans": 3, "img_size": 64}, 64)


def features_of(converted, pictures):
    """Features of plain timm with what was converted."""
    network = timm.create_model(converted.architecture, num_classes=0, **converted.model_args)
    network.load_state_dict(converted.state)
    with torch.no_grad():
        return network.eval()(pictures)


def test_the_ordinary_gelu_is_claimed_by_the_networks_name(tmp_path):
    network = clip_of_transformers(_SMALL, activation="gelu")
    save_as_transformers(network, tmp_path / "a")
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = pooled_output_of(network.vision_model)(pictures)
    claimed = convert(tmp_path / "a", architecture=_SMALL.network, model_args={"img_size": 64})
    unclaimed = convert(tmp_path / "a")
    assert unclaimed.architecture == "vit_base_patch32_clip_quickgelu_224"
    right = (features_of(claimed, pictures) - expected).norm() / expected.norm()
    wrong = (features_of(unclaimed, pictures) - expected).norm() / expected.norm()
    assert right < 1e-5
    assert wrong > 1e-3


def test_what_is_no_part_of_an_image_tower_is_dropped_by_name(tmp_path):
    STANDINS["hf_clip"].write(tmp_path / "a", STANDINS["hf_clip"].cases[0])
    dropped = convert(tmp_path / "a").report.dropped
    # One layer of 16 tensors, two embeddings and the last norm.
    assert dropped == {"text tower": 20, "projection": 2, "temperature": 1}


def test_a_layer_that_no_rule_knows_is_refused_and_not_dropped(tmp_path):
    STANDINS["hf_clip"].write(tmp_path / "a", STANDINS["hf_clip"].cases[0])
    state = {**load_file(tmp_path / "a"), "vision_model.adapter.weight": torch.ones(2, 2)}
    save_file(state, tmp_path / "b")
    with pytest.raises(KeyMismatch, match=r"adapter\.weight"):
        convert(tmp_path / "b")


def test_siglip_has_the_approximate_gelu_under_our_names():
    for name in ("cxr_vit_b16_siglip", "cxr_vit_l16_siglip"):
        stock, args = STOCK[name]
        with torch.device("meta"):
            network = timm.create_model(stock, **args)
        blocks = {type(b.mlp.act).__name__ for b in network.blocks}
        assert blocks | {type(network.attn_pool.mlp.act).__name__} == {"GELUTanh"}
