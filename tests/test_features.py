"""Which features of an encoder are taken."""

import pytest
import timm
import torch

from cxr_foundation.errors import RecipeError
from cxr_foundation.models.features import FeatureKind, FeatureReader

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("text", ["pooled", "grid:4", "grid:5:-2", "grid:1:3"])
def test_a_kind_is_written_as_it_is_read(text):
    assert str(FeatureKind.parse(text)) == text


@pytest.mark.parametrize("text", ["", "grid", "grid:0", "grid:4:", "map:4", "grid:4:1:1", "grid:٤"])
def test_another_text_is_refused(text):
    with pytest.raises(RecipeError, match="neither 'pooled' nor"):
        FeatureKind.parse(text)


def pictures(size):
    return torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("resnet18", 64, 512),
        ("vit_tiny_patch16_224", 224, 192),
        ("densenet121", 64, 1024),
        ("swin_tiny_patch4_window7_224", 224, 768),
        ("convnext_tiny", 64, 768),
    ],
)
def test_a_grid_of_one_is_the_mean_over_the_map_and_larger_ones_average_to_it(name, size, width):
    encoder = timm.create_model(name, in_chans=1, num_classes=0).eval()
    with torch.no_grad():
        one, two = (FeatureReader(encoder, FeatureKind(grid=g))(pictures(size)) for g in (1, 2))
    assert one.shape == (2, width)
    # Two by two places of an even map are equal shares; uneven maps overlap by a row.
    if size != 224:
        assert torch.allclose(two.view(2, width, 4).mean(2), one, atol=1e-5)
    assert two.shape == (2, 4 * width)


def test_pooled_features_are_the_encoders_own():
    encoder = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    with torch.no_grad():
        assert torch.equal(
            FeatureReader(encoder, FeatureKind())(pictures(64)), encoder(pictures(64))
        )


def test_an_earlier_level_of_a_residual_network_is_its_stage():
    encoder = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    with torch.no_grad():
        x = encoder.maxpool(encoder.act1(encoder.bn1(encoder.conv1(pictures(64)))))
        third = encoder.layer3(encoder.layer2(encoder.layer1(x)))
        found = FeatureReader(encoder, FeatureKind(grid=4, level=-2))(pictures(64))
    assert torch.allclose(found, third.flatten(1), atol=1e-6)


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(RecipeError, match="level 7 is none of 5"):
        FeatureReader(timm.create_model("resnet18"), FeatureKind(grid=2, level=7))
