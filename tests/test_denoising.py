"""Denoising: what noise comes over a radiograph, what counts, and what is drawn."""

import math

import pretext
import pytest
import torch

from cxr_foundation.pretrain.methods.denoising import Denoising, DenoisingSettings


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def method(encoder=None, *, channels=1, **settings):
    return Denoising.build(
        encoder or pretext.vit(),
        settings=DenoisingSettings(**{"width": 16, **settings}),
        view=(channels, 32, 32),
        generator=pretext.generator(),
    )


# The noise.


def test_the_noise_has_the_asked_strength():
    noisy = method(noise=(0.5, 0.5), dropped=0.0).task(torch.ones(50, 1, 32, 32), draw=1)
    assert noisy.mean().item() == pytest.approx(1, abs=0.01)
    assert noisy.std().item() == pytest.approx(0.5, abs=0.01)


def test_the_strength_is_drawn_for_each_picture_over_the_whole_range():
    noisy = method(noise=(0.2, 1.0), dropped=0.0).task(torch.zeros(200, 1, 32, 32), draw=1)
    strength = noisy.flatten(1).std(1)
    assert strength.min() < 0.25
    assert strength.max() > 0.95
    assert strength.mean().item() == pytest.approx(0.6, abs=0.06)


def test_the_asked_part_of_the_pixels_is_dropped():
    noisy = method(noise=(0.0, 0.0), dropped=0.3).task(torch.ones(50, 1, 32, 32), draw=1)
    assert set(noisy.unique().tolist()) == {0.0, 1.0}
    assert (noisy == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_channels_of_a_grey_picture_stay_alike():
    noisy = method(channels=3).task(pretext.noise(2).expand(2, 3, 32, 32), draw=1)
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert torch.equal(noisy[:, 0], noisy[:, 2])


def test_pictures_have_noise_of_their_own():
    noisy = method().task(torch.zeros(20, 1, 32, 32), draw=1)
    assert len({row[0, 0, 0].item() for row in noisy.view(20, 1, 1, -1).sort(-1)[0]}) == 20


def test_equal_draws_have_equal_noise_and_others_do_not():
    denoising, pictures = method(), pretext.noise(4)
    first, again, other = (denoising.task(pictures, draw=d) for d in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# What counts.


class Constant(torch.nn.Module):
    """A decoder that draws one grey everywhere."""

    def forward(self, features, *, size):
        return torch.full((len(features), 1, *size), 0.5)


def test_the_loss_is_the_squared_error_to_the_clean_picture_inside_the_margin():
    denoising, pictures = method(), pretext.noise(3)
    denoising.decoder = Constant()
    errors = [0.5 - value for value in pictures[:, :, 4:28, 4:28].flatten().tolist()]
    out = denoising([pictures], draw=2)
    assert out["loss"].item() == pytest.approx(sum(e * e for e in errors) / len(errors), abs=1e-6)
    assert out["l1"].item() == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-6)


def test_the_signal_to_noise_ratio_is_against_a_pictures_own_range():
    denoising = method()
    denoising.decoder = Constant()
    picture = torch.zeros(1, 1, 32, 32)
    picture[0, 0, 4:16] = 1.0
    # Peak 1, error .5 everywhere: 20 log10(2).
    out = denoising([picture], draw=1)
    assert out["psnr"].item() == pytest.approx(20 * math.log10(2), abs=1e-4)


def test_the_frame_counts_for_nothing():
    denoising = method()
    kept = []
    denoising.decoder.register_forward_hook(lambda m, i, drawn: drawn.retain_grad())
    denoising.decoder.register_forward_hook(lambda m, i, drawn: kept.append(drawn))
    denoising([pretext.framed(3)], draw=2)["loss"].backward()
    gradient = kept[0].grad.clone()
    assert (gradient[:, :, 4:28, 4:28] != 0).all()
    gradient[:, :, 4:28, 4:28] = 0
    assert not gradient.any()


def test_drawing_the_frame_alone_lowers_the_error_without_a_margin_and_not_with_it():
    pictures = pretext.framed(20)
    frame = pictures.clone()
    frame[:, :, 4:28, 4:28] = 0

    def gain(**settings):
        denoising = method(**settings)
        losses = []
        for drawn in (torch.zeros_like(frame), frame):
            denoising._clean = lambda noisy, drawn=drawn: (drawn.flatten(1), drawn)
            losses.append(denoising([pictures], draw=2)["loss"].item())
        return losses[0] - losses[1]

    assert gain(margin=0.0) > 1
    assert gain() == 0


# What is drawn.


def test_the_illustration_shows_clean_noisy_and_drawn():
    denoising, pictures = method(), pretext.noise(3)
    shown = denoising.illustrate([pictures], draw=2)
    assert list(shown) == ["input", "masked", "output"]
    assert torch.equal(shown["input"], pictures)
    assert torch.equal(shown["masked"], denoising.task(pictures, draw=2))
    assert shown["output"].shape == (3, 1, 32, 32)


def test_an_illustration_leaves_no_trace():
    denoising = method(pretext.resnet())
    before = {name: t.clone() for name, t in denoising.state_dict().items()}
    denoising.illustrate([pretext.noise(3)], draw=2)
    assert denoising.training
    assert all(torch.equal(before[n], t) for n, t in denoising.state_dict().items())


def test_the_encoder_learns_the_task_on_a_fixed_batch():
    assert pretext.loss_falls(method(pretext.resnet()), [0.2 * pretext.noise(4) + 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": (0.5, 0.1)}, r"noise: \(0\.5, 0\.1\) is not a range from 0"),
        ({"noise": (-0.1, 0.1)}, "noise"),
        ({"dropped": 1.0}, r"dropped: 1\.0 is not within \[0, 1\)"),
        ({"noise": (0.0, 0.0), "dropped": 0.0}, "leave nothing to learn"),
        ({"margin": 0.5}, "margin"),
        ({"width": 0}, "width: 0 is not above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DenoisingSettings(**settings)
