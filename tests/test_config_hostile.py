"""What mutated `config.json` files have tried: each is refused by an error that names the value."""

import json

import encoders
import pytest

from cxr_foundation.errors import ContractError, CxrError, KeyMismatch, UnreadableCheckpoint
from cxr_foundation.models.config import read_config
from cxr_foundation.models.loading import load

TINY = {"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 1}


@pytest.fixture
def folder(tmp_path):
    return encoders.publish(
        tmp_path / "a", "vit_tiny_patch16_224", made=encoders.contract(1, 32), **TINY
    )


def change(folder, *keys, to):
    path = folder / "config.json"
    value = json.loads(path.read_text())
    holder = value
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = to
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "key",
    [
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "features_only",
        "device",
    ],
)
def test_arguments_of_the_loader_are_not_arguments_of_a_network(folder, key):
    change(folder, "model_args", key, to="x")
    with pytest.raises(UnreadableCheckpoint, match=f"model_args.{key}: is not an argument of a"):
        load(folder)


@pytest.mark.parametrize("key", ["norm_layer", "act_layer"])
def test_a_layer_that_timm_does_not_know_is_refused(folder, key):
    change(folder, "model_args", key, to="no_such_layer")
    with pytest.raises(KeyMismatch, match="timm cannot build vit_tiny_patch16_224"):
        load(folder)


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**30, float("1e300")])
@pytest.mark.parametrize("key", ["mean", "std"])
def test_numbers_beyond_all_pixels_are_refused(folder, key, number):
    change(folder, "pretrained_cfg", key, to=[number])
    with pytest.raises(UnreadableCheckpoint, match=f"pretrained_cfg.{key}"):
        read_config(folder)


@pytest.mark.parametrize("key", ["mean", "std", "percentile", "size", "resize", "channels"])
def test_a_whole_number_of_many_digits_in_the_contract_is_refused(folder, key):
    change(folder, "cxr_foundation", "contract", key, to=[10**400] * 2)
    with pytest.raises((UnreadableCheckpoint, ContractError)) as error:
        read_config(folder)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "keys",
    [
        ("cxr_foundation", "contract", "aspect"),
        ("cxr_foundation", "contract", "channels"),
        ("cxr_foundation", "contract", "x" * 5000),
        ("model_args", "x" * 5000),
        ("architecture",),
    ],
)
def test_a_message_quotes_no_more_than_a_line_of_the_file(folder, keys):
    change(folder, *keys, to="x" * 5000)
    with pytest.raises(CxrError) as error:
        read_config(folder)
    assert len(str(error.value)) < 1000
