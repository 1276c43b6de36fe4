"""An encoder made ready for many pictures gives the features that it gave before."""

import pytest
import timm
import torch
from encoders import random_encoder
from torch import nn

from cxr_foundation.errors import CheckpointError
from cxr_foundation.models.encoding import Encoding, folded

CONVOLUTIONAL = ["test_resnet", "resnet18", "densenet121", "test_efficientnet", "convnext_atto"]


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def pixels(seed=0):
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
def test_a_folded_network_gives_the_same_features(architecture):
    model = random_encoder(architecture, in_chans=1)
    with torch.inference_mode():
        before, after = model(pixels(1)), folded(model, pixels())(pixels(1))
    assert (before - after).abs().max() <= 1e-4 * before.abs().max()


def test_every_normalisation_of_a_resnet_is_folded_and_the_model_keeps_its_own():
    model = random_encoder("resnet18", in_chans=1)
    assert (norms(model), norms(folded(model, pixels()))) == (20, 0)


def test_a_normalisation_before_its_convolution_stays():
    model = random_encoder("densenet121", in_chans=1)
    # Each dense layer's first one, the transitions' and the last one follow a concatenation.
    assert norms(folded(model, pixels())) == 58 + 3 + 1


def test_a_transformer_is_handed_back_as_it_is():
    model = timm.create_model("test_vit", in_chans=1, num_classes=0, img_size=64).eval()
    assert folded(model, pixels()) is model


class Twice(nn.Module):
    """One convolution before two normalisations: folding either would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        nn.init.constant_(self.two.running_var, 4.0)

    def forward(self, x):
        found = self.conv(x)
        return (self.one(found) + 3 * self.two(found)).mean((2, 3))


class Beside(Twice):
    """The convolution's output is used once more, beside its normalisation."""

    def forward(self, x):
        found = self.conv(x)
        return (self.two(found) + found).mean((2, 3))


@pytest.mark.parametrize("kind", [Twice, Beside])
def test_a_fold_that_does_not_hold_is_not_made(kind):
    model = kind().eval()
    assert folded(model, pixels()) is model


def test_bfloat16_is_close_and_comes_back_as_float32():
    model = random_encoder("test_resnet", in_chans=1)
    exact = Encoding(model, device="cpu")(pixels())
    close = Encoding(model, device="cpu", precision="bfloat16")(pixels())
    assert close.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, close).min() > 0.999


def test_a_model_without_pooling_is_refused():
    model = timm.create_model("test_resnet", in_chans=1, num_classes=0, global_pool="")
    with pytest.raises(CheckpointError, match="does not give one vector for each radiograph"):
        Encoding(model, device="cpu")(pixels())
