"""MAE: what the encoder sees, what the decoder is asked, and which encoders it refuses."""

import math

import pytest
import timm
import torch
from lightly.models.modules import MaskedVisionTransformerTIMM
from timm.models.vision_transformer import VisionTransformer

from cxr_foundation.pretrain.methods.mae import Mae, MaeSettings, patches, picture


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
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return VisionTransformer(**{**tiny, "in_chans": 1, "num_classes": 0, **args})


def method(encoder=None, *, view=(1, 32, 32), **settings):
    small = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    return Mae.build(
        encoder or vit(),
        settings=MaeSettings(**{**small, **settings}),
        view=view,
        generator=generator(),
    )


def images(n=3, seed=1, channels=1, size=(32, 32)):
    return torch.randn(n, channels, *size, generator=generator(seed))


# Patches.


def test_patches_are_read_row_by_row_and_put_back():
    pixels = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    cut = patches(pixels, (2, 3))
    assert cut.shape == (2, 4, 18)
    assert cut[1, 1].tolist() == pixels[1, :, 0:2, 3:6].permute(1, 2, 0).flatten().tolist()
    assert cut[1, 2].tolist() == pixels[1, :, 2:4, 0:3].permute(1, 2, 0).flatten().tolist()
    assert torch.equal(picture(cut, (2, 3), torch.Size((4, 6))), pixels)


@pytest.mark.parametrize(("hidden", "visible"), [(0.75, 4), (0.9, 1), (0.5, 8), (0.99, 1)])
def test_the_asked_part_of_the_patches_is_hidden(hidden, visible):
    model = method(hidden=hidden)
    tokens = model._encode(images(), model._order(images(), 0)[:, : model.visible])
    assert tokens.shape == (3, 1 + visible, 16)


def test_each_picture_hides_other_patches_and_each_patch_equally_often():
    model = method()
    order = model._order(images(2000), 5)
    often = torch.zeros(16).scatter_add_(
        0, order[:, : model.visible].flatten(), torch.ones(2000 * model.visible)
    )
    assert (often / 2000 - 0.25).abs().max() < 0.05
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(2000, -1))


# The encoder.


@pytest.mark.parametrize(
    "args",
    [{}, {"reg_tokens": 3}, {"class_token": False, "global_pool": "avg"}, {"pre_norm": True}],
)
def test_the_encoder_gives_what_lightlys_masked_transformer_gives(args):
    encoder = vit(**args).eval()
    reference = MaskedVisionTransformerTIMM(vit=encoder, pos_embed_initialization="skip")
    model = method(encoder)
    visible = model._order(images(), 0)[:, : model.visible]
    ours = model._encode(images(), visible)
    prefix = encoder.num_prefix_tokens
    kept = torch.cat([torch.arange(prefix).expand(3, -1), visible + prefix], dim=1)
    if args.get("reg_tokens") or not prefix:
        # lightly numbers tokens only behind one class token: the same by hand.
        tokens = encoder._pos_embed(encoder.patch_embed(images()))
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, 16))
        theirs = encoder.norm(encoder.blocks(encoder.norm_pre(tokens)))
    else:
        theirs = reference.encode(images(), idx_keep=kept)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_all_patches_in_their_order_give_the_encoders_own_features():
    encoder = vit(reg_tokens=1).eval()
    model = method(encoder)
    everything = torch.arange(16).expand(3, -1)
    assert torch.equal(model._encode(images(), everything), encoder.forward_features(images()))


def test_hidden_pixels_change_nothing_that_the_encoder_says():
    model, clean = method().eval(), images()
    masked = model.illustrate([clean], draw=3)["masked"]
    assert not torch.equal(masked, clean)
    features = [model([x], draw=3)["features"] for x in (clean, masked)]
    assert torch.equal(*features)
    assert not torch.equal(features[0], model([clean], draw=4)["features"])


def test_views_of_another_size_take_interpolated_positions():
    encoder = vit(dynamic_img_size=True)
    model = method(encoder, view=(1, 48, 24))
    assert model.positions.shape[1] == 18
    assert model([images(size=(48, 24))], draw=0)["loss"].item() > 0


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        encoder = vit()
        encoder.set_grad_checkpointing(recompute)
        model = method(encoder)
        model([images()], draw=0)["loss"].backward()
        gradients.append(encoder.patch_embed.proj.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


# The decoder and the loss.


def test_the_loss_equals_a_loop_over_the_hidden_patches():
    model = method(normalise=True).eval()
    clean, order = images(), model._order(images(), 3)
    drawn = model._decode(model._encode(clean, order[:, :4]), order)
    assert drawn.shape == (3, 12, 64)
    total = 0.0
    for i in range(3):
        for number, place in enumerate(order[i, 4:].tolist()):
            row, column = divmod(place, 4)
            pixels = clean[i, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten()
            target = (pixels - pixels.mean()) / math.sqrt(float(pixels.var()) + 1e-6)
            total += ((drawn[i, number] - target) ** 2).mean().item()
    assert model([clean], draw=3)["loss"].item() == pytest.approx(total / 36, rel=1e-5)


def test_without_normalisation_the_pixels_themselves_are_asked_for():
    model = method(normalise=False).eval()
    clean = images()
    shown = model.illustrate([clean], draw=3)
    error = (shown["output"] - clean).square().sum() / (3 * 12 * 64)
    assert model([clean], draw=3)["loss"].item() == pytest.approx(error.item(), rel=1e-5)


def test_a_patch_of_one_grey_asks_for_nothing_and_stays_finite():
    model = method()
    loss = model([torch.ones(3, 1, 32, 32)], draw=0)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_picture_keeps_what_was_visible_and_normalised_patches_get_their_grey_back(normalise):
    model, clean = method(normalise=normalise).eval(), 5 + 2 * images()
    shown = model.illustrate([clean], draw=3)
    assert list(shown) == ["input", "masked", "output"]
    hidden = shown["masked"] == 0
    assert hidden.float().mean() == 0.75
    assert torch.equal(shown["output"][~hidden], clean[~hidden])
    mean = shown["output"][hidden].mean().item()
    assert mean == pytest.approx(5, abs=0.5) if normalise else abs(mean) < 2


def test_the_decoder_knows_places_by_the_papers_sines():
    positions = method(decoder_width=8).positions
    row, column = 2, 3
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    expected += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    assert positions[0, 4 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_decoder_does_not_depend_on_the_order_of_the_visible_patches():
    model = method().eval()
    order = model._order(images(), 3)
    turned = torch.cat([order[:, :4].flip(1), order[:, 4:]], dim=1)
    drawn = [model._decode(model._encode(images(), o[:, :4]), o) for o in (order, turned)]
    assert torch.allclose(*drawn, atol=1e-5)


# Refusals.


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit_relpos"])
def test_an_encoder_without_separable_tokens_is_refused(name):
    encoder = timm.create_model(name, in_chans=1, num_classes=0)
    with pytest.raises(ValueError, match="gmml and sit take every encoder"):
        method(encoder)


@pytest.mark.parametrize("view", [(1, 30, 32), (1, 8, 8)])
def test_a_view_that_is_not_several_whole_patches_is_refused(view):
    with pytest.raises(ValueError, match=r"views\.size: .* whole patches of 8 x 8"):
        method(view=view)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": 0.0},
        {"hidden": 1.0},
        {"decoder_depth": 0},
        {"decoder_width": 18},
        {"decoder_width": 20, "decoder_heads": 8},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaeSettings(**{"decoder_width": 16, "decoder_heads": 2, **wrong})
