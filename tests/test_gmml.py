"""GMML: what is drawn, where its loss looks, and from which blocks it draws."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxr_foundation.pretrain import reconstruct
from cxr_foundation.pretrain.maps import pooled_and_map
from cxr_foundation.pretrain.masks import Corruption, corrupt
from cxr_foundation.pretrain.methods.gmml import Gmml, GmmlSettings
from cxr_foundation.pretrain.reconstruct import ReconstructionHead, l1, pooled_and_mean_map


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vit(**args):
    torch.manual_seed(0)
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return VisionTransformer(**{**tiny, "in_chans": 1, "num_classes": 0, **args})


def method(encoder=None, **settings):
    return Gmml.build(
        encoder or vit(),
        settings=GmmlSettings(**settings),
        view=(1, 32, 32),
        generator=generator(),
    )


def images(n=4, channels=1, side=32):
    return torch.randn(n, channels, side, side, generator=generator(1))


# The loss.


def test_the_loss_equals_a_loop_over_the_hidden_pixels():
    output, target = images(3, 2, 8), images(6, 2, 8)[3:]
    mask = torch.rand(3, 1, 8, 8, generator=generator()) < 0.3
    terms = [
        abs(float(output[i, c, y, x] - target[i, c, y, x]))
        for i in range(3)
        for c in range(2)
        for y in range(8)
        for x in range(8)
        if mask[i, 0, y, x]
    ]
    assert l1(output, target, mask).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_gradient_is_zero_wherever_nothing_is_hidden():
    output = images(3, 2, 8).requires_grad_()
    mask = torch.rand(3, 1, 8, 8, generator=generator()) < 0.3
    l1(output, torch.zeros(3, 2, 8, 8), mask).backward()
    assert torch.equal(output.grad != 0, mask.expand(-1, 2, -1, -1))


def test_without_a_mask_every_pixel_counts():
    output, target = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), -3.0)
    assert l1(output, target, None).item() == 3.0


def test_nothing_hidden_gives_a_loss_of_zero_with_a_gradient():
    nothing = Corruption(fraction=(0.0, 0.0), alien_fraction=(0.0, 0.0))
    model = method(corruption=nothing)
    loss = model([images()], draw=0)["loss"]
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_mean_over_processes_is_the_mean_over_all_their_hidden_pixels(monkeypatch):
    output, target = images(4, 1, 8), torch.zeros(4, 1, 8, 8)
    mask = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    mask[0, :, :2] = True
    mask[3, :, :, 1:] = True
    whole = l1(output, target, mask)
    counts = torch.tensor([mask[:2].sum(), mask[2:].sum()]).float()
    monkeypatch.setattr(reconstruct, "gather", lambda own: counts)
    halves = [l1(output[part], target[part], mask[part]) for part in (slice(2), slice(2, 4))]
    assert torch.allclose(sum(halves) / 2, whole)


def test_a_step_compares_the_drawing_of_the_corrupted_view_with_the_clean_one():
    model = method().eval()
    clean = images()
    corrupted, mask = corrupt(clean, Corruption(), align=8, draw=9)
    places = pooled_and_map(model.encoder, corrupted)[1]
    expected = l1(model.head(places, size=clean.shape[-2:]), clean, mask)
    outcome = model([clean], draw=9)
    assert torch.equal(outcome["loss"], expected)
    assert torch.equal(outcome["hidden"], mask.float().mean())
    assert torch.equal(outcome["features"], model.encoder(corrupted).detach())


def test_the_loss_can_be_over_the_whole_picture():
    model, clean = method(whole_picture=True).eval(), images()
    output = model.illustrate([clean], draw=9)["output"]
    assert torch.allclose(model([clean], draw=9)["loss"], (output - clean).abs().mean())


def test_blocks_are_aligned_to_the_encoders_patches():
    model = method(corruption=Corruption(fills=("zeros",), alien_p=0.0))
    masked = model.illustrate([images().abs() + 1], draw=0)["masked"]
    hidden = (masked == 0).view(4, 4, 8, 4, 8).float().mean((2, 4))
    assert set(hidden.unique().tolist()) == {0.0, 1.0}


# The head.


def test_every_place_of_the_map_draws_its_own_square_by_itself():
    head = ReconstructionHead(vit(), channels=2, generator=generator())
    features = torch.randn(1, 16, 2, 3, generator=generator(2))
    drawn = head(features, size=torch.Size((16, 24)))
    linear = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    assert drawn.shape == (1, 2, 16, 24)
    assert len(linear) == 3
    for row in range(2):
        for column in range(3):
            x = features[0, :, row, column]
            for layer in linear:
                x = nn.functional.gelu(layer(x))
            square = (
                torch.einsum("d,dcpq->cpq", x, head.draw.weight) + head.draw.bias[:, None, None]
            )
            place = drawn[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert torch.allclose(place, square, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_a_convolutional_encoder_draws_views_that_are_no_whole_number_of_its_places(name):
    torch.manual_seed(0)
    encoder = timm.create_model(name, in_chans=1, num_classes=0)
    model = method(encoder)
    assert model.head.draw.kernel_size == (32, 32)
    assert model.illustrate([images(2, side=80)], draw=0)["output"].shape == (2, 1, 80, 80)
    assert model([images(2, side=80)], draw=0)["loss"].item() > 0


def test_equal_seeds_give_equal_heads():
    torch.manual_seed(1)
    first = ReconstructionHead(vit(), channels=1, generator=generator(3))
    torch.manual_seed(2)
    again = ReconstructionHead(vit(), channels=1, generator=generator(3))
    assert all(
        torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True)
    )


# Several blocks.


def test_the_mean_of_the_last_block_alone_is_the_encoders_own_map():
    encoder = vit().eval()
    pooled, places = pooled_and_map(encoder, images())
    again, mean = pooled_and_mean_map(encoder, images(), blocks=(3,))
    assert torch.allclose(mean, places, atol=1e-6)
    assert torch.equal(again, pooled)


def test_several_blocks_are_averaged_before_the_norm():
    encoder, outputs = vit().eval(), {}
    for number, block in enumerate(encoder.blocks, start=1):
        block.register_forward_hook(lambda m, a, out, number=number: outputs.update({number: out}))
    places = pooled_and_mean_map(encoder, images(), blocks=(1, 3))[1]
    expected = encoder.norm((outputs[1] + outputs[3]) / 2)[:, 1:]
    assert torch.allclose(places.flatten(2).transpose(1, 2), expected, atol=1e-6)


@pytest.mark.parametrize("blocks", [(), (0,), (2, 4)])
def test_blocks_that_an_encoder_does_not_have_are_refused(blocks):
    with pytest.raises(ValueError, match=r"^blocks: .* 1 to 3"):
        method(blocks=blocks)


def test_blocks_of_a_network_without_blocks_are_refused():
    encoder = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    with pytest.raises(ValueError, match="blocks: ResNet is no plain vision transformer"):
        method(encoder, blocks=(1,))
