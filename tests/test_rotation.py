"""The rotation task: what is asked, and that neither frame nor resampling answers it."""

import math

import pretext
import pytest
import torch
import torch.nn.functional as F

from cxr_foundation.pretrain.methods.rotation import Rotation, RotationSettings, turned


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def method(encoder=None, **settings):
    return Rotation.build(
        encoder or pretext.vit(),
        settings=RotationSettings(**settings),
        view=(1, 32, 32),
        generator=pretext.generator(),
    )


def as_turned(pictures, turns):
    return torch.stack(
        [torch.rot90(p, int(k), (1, 2)) for p, k in zip(pictures, turns, strict=True)]
    )


def random_turns(count):
    return torch.randint(0, 4, (count,), generator=pretext.generator(9))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turn_is_a_quarter_counter_clockwise(turns):
    pictures = pretext.noise(2)
    disc = turned(pictures, torch.full((2,), turns), torch.zeros(2), side=32, feather=0.1)
    whole = torch.rot90(pictures, turns, (2, 3))
    assert torch.equal(disc[:, :, 12:20, 12:20], whole[:, :, 12:20, 12:20])


def test_the_disc_fades_out_along_a_cosine():
    disc = turned(
        torch.ones(1, 1, 100, 100), torch.tensor([0]), torch.zeros(1), side=100, feather=0.5
    )
    # Row 50 is half a pixel off the middle; pixel 75 is 25.5 of 50 from it.
    for column, radius in ((50, 0.01), (62, 0.25), (75, 0.51), (87, 0.75), (99, 0.99)):
        inside = min(1.0, (1 - math.hypot(radius, 0.01)) / 0.5)
        expected = 0.5 - 0.5 * math.cos(math.pi * inside)
        assert disc[0, 0, 50, column].item() == pytest.approx(expected, abs=0.03)
    assert disc[0, 0, 0, 0] == 0


def test_each_picture_is_shown_in_all_four_turns():
    shown, turns = method().task(pretext.noise(3), draw=1)
    assert shown.shape == (12, 1, 32, 32)
    assert turns.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_what_is_shown_is_the_picture_in_the_turn_that_is_asked_for():
    pictures = pretext.noise(2)
    shown, turns = method(margin=0.0, blur=0.0, jitter=1e-6).task(pictures, draw=1)
    whole = as_turned(pictures.repeat(4, 1, 1, 1), turns)
    assert (shown - whole)[:, :, 12:20, 12:20].abs().max() < 1e-5


def test_one_turn_of_each_picture_is_drawn_if_asked():
    shown, turns = method(every_turn=False).task(pretext.noise(400), draw=1)
    assert shown.shape == (400, 1, 32, 32)
    assert torch.bincount(turns, minlength=4).min() > 70


def test_a_head_that_knows_nothing_has_the_loss_of_four_equal_chances():
    rotation = method()
    torch.nn.init.zeros_(rotation.head.weight)
    torch.nn.init.zeros_(rotation.head.bias)
    out = rotation([pretext.noise(4)], draw=1)
    assert out["loss"].item() == pytest.approx(math.log(4), abs=1e-6)
    assert out["accuracy"].item() == 0.25


def test_the_loss_equals_a_loop_over_its_definition():
    rotation = method()
    pictures = pretext.noise(4)
    shown, turns = rotation.task(pictures, draw=1)
    total = 0.0
    for picture, turn in zip(shown, turns.tolist(), strict=True):
        scores = rotation.head(rotation.encoder(picture[None]))[0].tolist()
        total += math.log(sum(map(math.exp, scores))) - scores[turn]
    assert rotation([pictures], draw=1)["loss"].item() == pytest.approx(total / 16, abs=1e-5)


def test_nothing_outside_the_margin_is_shown():
    pictures, other = pretext.noise(4), pretext.noise(4, seed=1)
    other[:, :, 4:28, 4:28] = pictures[:, :, 4:28, 4:28]
    shown, _ = method().task(pictures, draw=1)
    assert torch.equal(shown, method().task(other, draw=1)[0])
    bare, _ = method(margin=0.0).task(pictures, draw=1)
    assert not torch.equal(bare, method(margin=0.0).task(other, draw=1)[0])


def test_the_frame_alone_solves_plain_turns_and_not_the_masked_task():
    pictures = pretext.framed(2000)
    turns = random_turns(2000)
    small = F.avg_pool2d(as_turned(pictures, turns), 4).flatten(1)
    assert pretext.probed(small, turns) > 0.99
    shown, turns = method(every_turn=False).task(pictures, draw=1)
    # Four standard deviations of 1,000 guesses.
    assert pretext.probed(F.avg_pool2d(shown, 4).flatten(1), turns) < 0.25 + 4 * 0.0137


def test_no_trace_of_the_resampling_tells_a_turn():
    pictures = pretext.noise(4000)
    # Resampling only what is turned leaves a trace: white noise loses its grain.
    turns = random_turns(4000)
    careless = torch.where(
        (turns == 0)[:, None, None, None],
        pictures,
        turned(pictures, turns, torch.full((4000,), 0.1), side=32, feather=1e-6),
    )[:, :, 8:24, 8:24]
    assert pretext.probed(pretext.grain(careless), turns) > 0.45
    shown, turns = method(every_turn=False, blur=0.0).task(pictures, draw=1)
    assert pretext.probed(pretext.grain(shown), turns) < 0.25 + 4 * 0.0097


def test_no_grain_of_a_squashed_picture_tells_a_turn():
    tall = torch.randn(4000, 1, 64, 40, generator=pretext.generator())
    squashed = F.interpolate(tall, (32, 32), mode="bilinear", antialias=True)
    squashed = squashed / squashed.std()
    turns = random_turns(4000)
    assert pretext.probed(pretext.grain(as_turned(squashed, turns)), turns) > 0.38
    shown, turns = method(every_turn=False).task(squashed, draw=1)
    assert pretext.probed(pretext.grain(shown), turns) < 0.25 + 4 * 0.0097


def test_a_picture_without_content_looks_the_same_in_all_turns():
    shown, _ = method().task(torch.full((2, 1, 32, 32), 0.7), draw=1)
    by_turn = shown.view(4, 2, 1, 32, 32)
    assert (by_turn - by_turn[:1]).abs().max() < 1e-6


def test_equal_draws_ask_the_same_and_others_do_not():
    rotation, pictures = method(), pretext.noise(4)
    first, again, other = (rotation.task(pictures, draw=d)[0] for d in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_encoder_learns_the_task_on_a_fixed_batch():
    assert pretext.loss_falls(method(pretext.resnet()), [pretext.framed(8)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.5}, r"margin: 0\.5 is not within \[0, 0\.5\)"),
        ({"feather": 0.0}, r"feather: 0\.0 is not within \(0, 1\]"),
        ({"jitter": 45.0}, r"jitter: 45\.0 is not within \(0, 45\)"),
        ({"jitter": 0.0}, r"jitter: 0\.0 is not within \(0, 45\)"),
        ({"blur": -1.0}, r"blur: -1\.0 is below 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RotationSettings(**settings)


def test_a_view_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"views\.size: \(32, 48\) is not square"):
        Rotation.build(
            pretext.vit(),
            settings=RotationSettings(),
            view=(1, 32, 48),
            generator=pretext.generator(),
        )
