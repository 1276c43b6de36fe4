"""Inpainting: where blocks lie, what counts, and what is drawn."""

import math

import pretext
import pytest
import torch

from cxr_foundation.pretrain.decoder import Decoder
from cxr_foundation.pretrain.methods.inpainting import Inpainting, InpaintingSettings, blocks


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def method(encoder=None, *, channels=1, **settings):
    return Inpainting.build(
        encoder or pretext.vit(),
        settings=InpaintingSettings(**{"width": 16, **settings}),
        view=(channels, 32, 32),
        generator=pretext.generator(),
    )


class Constant(torch.nn.Module):
    """A decoder that draws one grey everywhere."""

    def forward(self, features, *, size):
        return torch.full((len(features), 1, *size), 0.5)


# Where blocks lie.


def test_a_block_lies_where_its_four_numbers_say():
    # 32 pixels, 4 of margin: 24 inside. Height .25 × 24 = 6, width .5 × 24 = 12;
    # top 4 + 0, left 4 + floor(.99 × 13).
    drawn = torch.tensor([[[0.0, 1.0, 0.0, 0.99]]])
    hidden = blocks(drawn, (32, 32), side=(0.25, 0.5), margin=0.125)
    expected = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    expected[:, :, 4:10, 16:28] = True
    assert torch.equal(hidden, expected)


def test_no_block_ever_touches_the_margin():
    hidden = method().task(pretext.noise(500), draw=1)
    reached = hidden.any(0)[0]
    assert reached[4:28, 4:28].all()
    reached[4:28, 4:28] = False
    assert not reached.any()


def test_each_picture_has_hidden_pixels_of_its_own():
    hidden = method().task(pretext.noise(100), draw=1).flatten(1)
    assert hidden.any(1).all()
    assert len({tuple(row.tolist()) for row in hidden}) == 100


def test_sides_that_are_not_equal_have_blocks_in_proportion():
    hidden = blocks(torch.zeros(1, 1, 4), (64, 32), side=(0.5, 0.5), margin=0.0)
    assert hidden[0, 0].any(1).sum() == 32
    assert hidden[0, 0].any(0).sum() == 16


# What counts.


def test_the_loss_is_the_mean_over_pictures_of_the_squared_error_of_hidden_pixels():
    inpainting, pictures = method(), pretext.noise(3)
    inpainting.decoder = Constant()
    hidden = inpainting.task(pictures, draw=2)
    squares, absolutes = [], []
    for picture, mask in zip(pictures, hidden, strict=True):
        errors = [0.5 - value for value in picture[mask].tolist()]
        squares.append(sum(e * e for e in errors) / len(errors))
        absolutes.append(sum(map(abs, errors)) / len(errors))
    out = inpainting([pictures], draw=2)
    assert out["loss"].item() == pytest.approx(sum(squares) / 3, abs=1e-6)
    assert out["l1"].item() == pytest.approx(sum(absolutes) / 3, abs=1e-6)


def test_the_signal_to_noise_ratio_is_against_a_pictures_own_range():
    inpainting = method()
    inpainting.decoder = Constant()
    picture = torch.zeros(1, 1, 32, 32)
    picture[0, 0, 0, 0] = 4.0
    # Peak 4, error .5 everywhere: 20 log10(8).
    out = inpainting([picture], draw=1)
    assert out["psnr"].item() == pytest.approx(20 * math.log10(8), abs=1e-4)


def test_hidden_pixels_do_not_reach_the_encoder():
    inpainting, pictures = method(), pretext.noise(3)
    hidden = inpainting.task(pictures, draw=2)
    other = torch.where(hidden, pretext.noise(3, seed=1), pictures)
    before, after = (inpainting([p], draw=2)["features"] for p in (pictures, other))
    assert torch.equal(before, after)


def test_pixels_that_are_seen_count_for_nothing():
    inpainting, pictures = method(), pretext.noise(3)
    kept = []
    inpainting.decoder.register_forward_hook(lambda m, i, drawn: drawn.retain_grad())
    inpainting.decoder.register_forward_hook(lambda m, i, drawn: kept.append(drawn))
    inpainting([pictures], draw=2)["loss"].backward()
    hidden = inpainting.task(pictures, draw=2)
    assert (kept[0].grad[~hidden] == 0).all()
    assert (kept[0].grad[hidden] != 0).all()


def explained(pictures, hidden, frame):
    """R² of a line from the mean of the frame that is seen to the mean of what is hidden."""
    seen = (pictures * (frame & ~hidden)).sum((1, 2, 3)) / (frame & ~hidden).sum((1, 2, 3))
    asked = (pictures * hidden).sum((1, 2, 3)) / hidden.sum((1, 2, 3))
    return float(torch.corrcoef(torch.stack([seen, asked]))[0, 1] ** 2)


def test_the_frame_alone_tells_what_is_hidden_without_a_margin_and_nothing_with_it():
    pictures = 0.1 * pretext.noise(2000)
    frame = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    frame[:, :, 4:28, 4:28] = False
    pictures += frame * torch.randn(2000, 1, 1, 1, generator=pretext.generator(8))
    bare = method(margin=0.0).task(pictures, draw=1)
    assert explained(pictures, bare, frame) > 0.4
    assert explained(pictures, method().task(pictures, draw=1), frame) < 0.01


# What is drawn.


def test_the_illustration_keeps_what_is_seen_and_draws_what_is_hidden():
    inpainting, pictures = method(), pretext.noise(3)
    hidden = inpainting.task(pictures, draw=2)
    shown = inpainting.illustrate([pictures], draw=2)
    assert list(shown) == ["input", "masked", "output"]
    assert torch.equal(shown["input"], pictures)
    assert (shown["masked"][hidden] == 0).all()
    assert torch.equal(shown["output"][~hidden], pictures[~hidden])
    assert (shown["output"][hidden] != pictures[hidden]).all()


def test_an_illustration_leaves_no_trace():
    inpainting = method(pretext.resnet())
    before = {name: t.clone() for name, t in inpainting.state_dict().items()}
    shown = inpainting.illustrate([pretext.noise(3)], draw=2)
    assert inpainting.training
    assert inpainting.encoder.training
    assert not shown["output"].requires_grad
    assert all(torch.equal(before[n], t) for n, t in inpainting.state_dict().items())


@pytest.mark.parametrize("reduction", [1, 8, 14, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_decoder_draws_a_picture_of_every_reduction(reduction, channels):
    decoder = Decoder(12, reduction=reduction, channels=channels, width=20)
    drawn = decoder(torch.zeros(2, 12, 2, 3), size=(2 * reduction, 3 * reduction))
    assert drawn.shape == (2, channels, 2 * reduction, 3 * reduction)


def test_a_view_that_the_map_does_not_divide_is_drawn_in_full():
    inpainting = Inpainting.build(
        pretext.resnet(),
        settings=InpaintingSettings(width=16),
        view=(1, 80, 80),
        generator=pretext.generator(),
    )
    assert inpainting.illustrate([pretext.noise(2, 80)], draw=1)["output"].shape == (2, 1, 80, 80)


def test_the_decoder_comes_from_the_generator_alone():
    first, again = (method().decoder.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_equal_draws_hide_the_same_and_others_do_not():
    inpainting, pictures = method(), pretext.noise(4)
    first, again, other = (inpainting.task(pictures, draw=d) for d in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_encoder_learns_the_task_on_a_fixed_batch():
    assert pretext.loss_falls(method(pretext.resnet()), [0.2 * pretext.noise(4) + 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "blocks: 0 is not above 0"),
        ({"side": (0.4, 0.2)}, r"side: \(0\.4, 0\.2\) is not a range within \(0, 1\)"),
        ({"side": (0.4, 1.0)}, "side"),
        ({"margin": 0.5}, "margin"),
        ({"width": 0}, "width: 0 is not above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        InpaintingSettings(**settings)
