"""First layers for one channel or three: exact for grey pictures, or refused."""

import pytest
import torch
from encoders import contract, publish
from torch.nn.functional import conv2d

from cxr_foundation.errors import KeyMismatch
from cxr_foundation.models.channels import Stem, adapt_channels
from cxr_foundation.models.loading import load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normalised(grey, mean, std):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))
    return (grey.expand(-1, len(mean.flatten()), -1, -1) - mean) / std


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_three_channels_become_one_and_grey_pictures_give_the_same(dtype):
    weight, grey = drawn(8, 3, 4, 4).to(dtype), drawn(2, 1, 16, 16)
    one = adapt_channels(Stem(weight=weight.double()), 1).weight
    assert one.shape == (8, 1, 4, 4)
    expected = conv2d(grey.expand(-1, 3, -1, -1), weight.double())
    assert torch.allclose(conv2d(grey, one), expected, rtol=1e-12, atol=1e-12)
    assert adapt_channels(Stem(weight=weight), 1).weight.dtype == dtype


def test_one_channel_becomes_three_and_grey_pictures_give_the_same():
    weight, grey = drawn(8, 1, 4, 4), drawn(2, 1, 16, 16)
    made = adapt_channels(Stem(weight=weight, mean=(0.658,), std=(0.221,)), 3)
    assert (made.mean, made.std) == ((0.658,) * 3, (0.221,) * 3)
    found = conv2d(grey.expand(-1, 3, -1, -1), made.weight)
    assert torch.allclose(found, conv2d(grey, weight), rtol=1e-12, atol=1e-12)


def test_different_means_and_deviations_are_folded_into_a_patch_embedding():
    weight, bias, grey = drawn(8, 3, 4, 4), drawn(8), drawn(2, 1, 16, 16)
    stem = Stem(weight=weight, bias=bias, mean=MEAN, std=STD)
    made = adapt_channels(stem, 1)
    assert made.mean == (pytest.approx(sum(MEAN) / 3),)
    expected = conv2d(normalised(grey, MEAN, STD), weight, bias, stride=4)
    found = conv2d(normalised(grey, made.mean, made.std), made.weight, made.bias, stride=4)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_different_deviations_alone_are_folded_into_a_padded_layer():
    weight, grey = drawn(8, 3, 7, 7), drawn(2, 1, 16, 16)
    stem = Stem(weight=weight, mean=(0.5, 0.5, 0.5), std=STD, padded=True)
    made = adapt_channels(stem, 1)
    assert made.mean == (0.5,)
    expected = conv2d(normalised(grey, stem.mean, STD), weight, padding=3)
    found = conv2d(normalised(grey, made.mean, made.std), made.weight, padding=3)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [({"bias": torch.zeros(8), "padded": True}, "pads with zeros"), ({}, "has no bias")],
)
def test_different_means_that_no_layer_of_one_channel_can_express_are_refused(facts, reason):
    stem = Stem(weight=drawn(8, 3, 4, 4), mean=MEAN, std=STD, **facts)
    with pytest.raises(KeyMismatch, match=rf"0\.485, 0\.456, 0\.406 and the first layer {reason}"):
        adapt_channels(stem, 1)


def test_other_channels_are_refused_and_equal_ones_untouched():
    stem = Stem(weight=torch.ones(8, 4, 2, 2))
    assert adapt_channels(stem, 4) is stem
    with pytest.raises(KeyMismatch, match="only 1 and 3 turn into each other"):
        adapt_channels(stem, 3)


def test_a_published_vit_of_three_channels_takes_one_and_says_how_it_is_normalised(tmp_path):
    made = contract(3, 64, mean=MEAN, std=STD)
    folder = publish(tmp_path / "a", "test_vit", made=made, img_size=64)
    three, one = load(folder), load(folder, in_chans=1)
    cfg = one.pretrained_cfg
    assert cfg["input_size"] == (1, 64, 64)
    assert cfg["mean"] == (pytest.approx(sum(MEAN) / 3),)
    grey = drawn(2, 1, 64, 64)
    with torch.no_grad():
        expected = three(normalised(grey, MEAN, STD).float())
        found = one(normalised(grey, cfg["mean"], cfg["std"]).float())
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_a_published_resnet_of_three_different_channels_does_not_take_one(tmp_path):
    folder = publish(tmp_path / "a", "resnet18", made=contract(3, 64, mean=MEAN, std=STD))
    with pytest.raises(KeyMismatch, match="pads with zeros"):
        load(folder, in_chans=1)
    grey = publish(tmp_path / "b", "resnet18", made=contract(3, 64))
    assert load(grey, in_chans=1).pretrained_cfg["mean"] == (0.5,)
