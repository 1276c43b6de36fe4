"""Colour pictures: read as they are, pretrained on, and told of in the card."""

import json

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from pretraining import TINY

from cxr_foundation import catalog, pretrain
from cxr_foundation.contract import InputContract
from cxr_foundation.data import read_index
from cxr_foundation.errors import (
    ContractError,
    RecipeError,
    UnreadableImage,
    UnsupportedPixels,
)
from cxr_foundation.images.colour import prepare_colour
from cxr_foundation.images.phantom import draw
from cxr_foundation.images.processor import Processor
from cxr_foundation.pretrain.pictures import Pictures


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contract(size=(16, 16), **changes):
    return InputContract(channels=3, size=size, mean=(0.0,) * 3, std=(1.0,) * 3, **changes)


def drawn(seed=0, size=(40, 60)):
    """A picture whose corners are of different colours, with noise."""
    rows, columns = (np.linspace(0, 1, n)[:, None] for n in size)
    red, green, blue = rows @ np.ones_like(columns).T, rows @ columns.T, 1 - rows @ columns.T
    noise = np.random.default_rng(seed).random((*size, 3))
    return ((np.stack([red, green, blue], -1) + noise) * 127).astype(np.uint8)


# Reading.


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_channels_are_red_green_and_blue_over_255(tmp_path, suffix):
    values = np.zeros((16, 16, 3), np.uint8)
    values[...] = (255, 102, 0)
    Image.fromarray(values).save(
        tmp_path / f"p.{suffix}", **{"quality": 100} if suffix == "jpg" else {}
    )
    pixels = prepare_colour(tmp_path / f"p.{suffix}", contract())
    expected = torch.tensor([1.0, 0.4, 0.0]).view(3, 1, 1).expand(3, 16, 16)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=2 / 255 if suffix == "jpg" else 1e-7)


def test_each_channel_is_resized_by_the_kernel_of_radiographs(tmp_path):
    values = drawn()
    Image.fromarray(values).save(tmp_path / "p.png")
    pixels = prepare_colour(tmp_path / "p.png", contract())
    grey = InputContract(channels=1, size=(16, 16), mean=(0.0,), std=(1.0,))
    for channel in range(3):
        alone = Processor(grey).prepare(np.ascontiguousarray(values[..., channel]))[0]
        assert torch.equal(pixels[channel], alone)


def test_a_grey_picture_is_repeated(tmp_path):
    Image.fromarray(drawn()[..., 0]).save(tmp_path / "p.png")
    red, green, blue = prepare_colour(tmp_path / "p.png", contract())
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def test_a_picture_stands_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right-hand side
    values = drawn(size=(16, 24))
    Image.fromarray(values).save(tmp_path / "p.png", exif=exif)
    pixels = prepare_colour(tmp_path / "p.png", contract(size=(24, 16)))
    upright = np.rot90(values, k=-1)
    assert torch.equal(pixels, torch.from_numpy(upright.transpose(2, 0, 1) / np.float32(255)))


def test_a_damaged_picture_is_refused(tmp_path):
    Image.fromarray(drawn()).save(tmp_path / "p.png")
    data = bytearray((tmp_path / "p.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(UnreadableImage, match="a checksum is wrong"):
        prepare_colour(tmp_path / "p.png", contract())


def test_colour_of_16_bits_is_refused(tmp_path):
    import imagecodecs

    deep = drawn().astype(np.uint16) * 257
    (tmp_path / "p.png").write_bytes(imagecodecs.png_encode(deep))
    with pytest.raises(UnsupportedPixels, match="16-bit colour"):
        prepare_colour(tmp_path / "p.png", contract())


def test_a_radiographs_file_is_refused(bundled):
    with pytest.raises(UnsupportedPixels, match=r"is a radiograph.*Set data\.colour to false"):
        prepare_colour(bundled / "phantom.dcm", contract())


def test_an_intensity_rule_for_radiographs_is_refused(tmp_path):
    Image.fromarray(drawn()).save(tmp_path / "p.png")
    with pytest.raises(ContractError, match="'minmax' is for radiographs"):
        prepare_colour(tmp_path / "p.png", contract(intensity="minmax"))


# Training.


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(8):
        Image.fromarray(drawn(seed=i)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_pictures_are_held_in_three_channels(photographs, in_memory):
    pictures = Pictures(
        read_index(photographs),
        contract=contract(),
        size=(16, 16),
        bits=8,
        in_memory=in_memory,
        colour=True,
    )
    taken = pictures.take([3, 1])
    assert (taken.shape, taken.dtype) == ((2, 3, 16, 16), torch.uint8)
    expected = prepare_colour(photographs / "3.png", contract()).mul(255).round().to(torch.uint8)
    assert torch.equal(taken[0], expected)


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def recipe(folder, **changes):
    raw = {
        **TINY,
        "encoder": {"architecture": "test_resnet", "in_chans": 3},
        "contract": {"channels": 3, "size": [32, 32], "intensity": "full_range", **IMAGENET},
        "data": {"size": [40, 40], "colour": True},
        "views": {
            "crop_area": [0.3, 1.0],
            "flip_p": 0.5,
            "jitter_p": 0.8,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
            "grayscale_p": 0.2,
        },
        "train": {**TINY["train"], "epochs": 1},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def published(photographs, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("colour")
    return pretrain.run(recipe(folder), data=photographs, output=folder / "run")


def test_the_contract_states_three_channels_with_their_own_mean_and_std(published):
    told = json.loads((published / "config.json").read_text())
    assert told["cxr_foundation"]["contract"]["channels"] == 3
    assert told["cxr_foundation"]["contract"]["mean"] == IMAGENET["mean"]
    assert told["pretrained_cfg"]["std"] == IMAGENET["std"]


def test_the_encoder_takes_colour_in_plain_timm(published):
    model = timm.create_model(f"local-dir:{published}", pretrained=True).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, model.num_features)


def test_downstream_a_grey_radiograph_is_repeated(published):
    import cxr_foundation

    pixels = cxr_foundation.processor(published)(draw())["pixel_values"][0]
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    plain = pixels * std + mean
    torch.testing.assert_close(plain[0], plain[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(plain[0], plain[2], rtol=0, atol=1e-6)


def test_the_card_calls_nothing_a_radiograph_that_is_none(published):
    text = catalog.body_of(published / "README.md")
    assert "is an image encoder, pretrained by MoCo v2 on 8 colour pictures" in text
    assert "Red, green and blue; a grey radiograph is repeated in all three channels" in text
    assert "chest-x-ray" not in catalog.hub_keys_of(published / "README.md")["tags"]


def test_a_curriculum_may_go_from_colour_pictures_to_radiographs(photographs, tmp_path):
    stages = [
        {"data": {"size": [40, 40], "colour": True, "path": str(photographs)}},
        {"data": {"size": [40, 40], "colour": False}},
    ]
    radiographs = tmp_path / "radiographs"
    radiographs.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(radiographs / f"{i}.png")
    folder = pretrain.run(
        recipe(tmp_path, stages=stages), data=radiographs, output=tmp_path / "run"
    )
    text = catalog.body_of(folder / "README.md")
    assert "on 12 radiographs and colour pictures" in text
    assert str(photographs) not in text


def test_one_channel_cannot_hold_colour(tmp_path):
    one = {"channels": 1, "size": [32, 32], "mean": [0.5], "std": [0.5]}
    encoder = {"architecture": "test_resnet", "in_chans": 1}
    with pytest.raises(RecipeError, match="colour pictures need 3"):
        pretrain.run(recipe(tmp_path, encoder=encoder, contract=one), data=tmp_path)
