"""Pixels to model input, against the same filter written in float64."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from drawn_dicom import draw
from PIL import Image

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError, NoImages, UnreadableImage, UnsupportedPixels
from cxr_foundation.images import phantom, processor, read_image
from cxr_foundation.images.processor import Processor

torch.set_num_threads(1)


def contract(**changes):
    return InputContract(
        **{"channels": 1, "size": (32, 32), "mean": (0.0,), "std": (1.0,), **changes}
    )


def triangle(source, target):
    """Weights (target, source) of the antialiased triangle filter, float64."""
    scale = source / target
    support = max(scale, 1.0)
    weights = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        distance = np.abs(np.arange(source) + 0.5 - centre) / support
        weights[i] = np.maximum(0.0, 1.0 - distance)
        weights[i] /= weights[i].sum()
    return weights


def reference(pixels, rows, columns):
    pixels = np.asarray(pixels, np.float64)
    return triangle(pixels.shape[0], rows) @ pixels @ triangle(pixels.shape[1], columns).T


def prepared(image, **changes):
    out = Processor(contract(**changes))(image)["pixel_values"]
    assert out.dtype == torch.float32
    assert out.shape[0] == 1
    return out[0].numpy()


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).random((321, 257)).astype(np.float32)


# --- the one resize


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (300, 400), (64, 320)])
def test_the_resize_is_within_1e_6_of_float64(noise, size):
    assert np.abs(prepared(noise, size=size)[0] - reference(noise, *size)).max() <= 1e-6


@pytest.mark.parametrize("side", [224, 512])
def test_a_full_size_radiograph_is_as_exact_however_noisy(side):
    # Noise is the worst case: in float32 the kernel is off by more than 1e-6 of it.
    pixels = np.random.default_rng(0).random((2500, 2048), dtype=np.float32)
    out = prepared(pixels, size=(side, side))[0]
    assert np.abs(out - reference(pixels, side, side)).max() <= 1e-7


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_strips_leave_no_seam(monkeypatch, interpolation):
    pixels = np.random.default_rng(0).random((301, 257), dtype=np.float32)
    whole = prepared(pixels, interpolation=interpolation)
    monkeypatch.setattr(processor, "_STRIP", 7 * 257)
    assert np.array_equal(prepared(pixels, interpolation=interpolation), whole)


def test_sixteen_bit_pixels_are_resized_without_a_detour_over_eight(noise):
    deep = (noise * 65535).astype(np.uint16)
    expected = reference(deep / 65535, 32, 32)
    assert np.abs(prepared(deep)[0] - expected).max() <= 1e-6


def test_squash_fills_the_size(noise):
    assert np.abs(prepared(noise[:100])[0] - reference(noise[:100], 32, 32)).max() <= 1e-6


def test_crop_takes_the_centre_of_the_longer_side(noise):
    wide = noise[:64, :128]
    out = prepared(wide, aspect="crop")[0]
    assert np.abs(out - reference(wide, 32, 64)[:, 16:48]).max() <= 1e-6


def test_crop_takes_the_window_out_of_the_resized_side(noise):
    out = prepared(noise[:80, :80], aspect="crop", resize=40)[0]
    assert np.abs(out - reference(noise[:80, :80], 40, 40)[4:36, 4:36]).max() <= 1e-6


def test_pad_centres_the_picture_on_black(noise):
    wide = noise[:64, :128]
    out = prepared(wide, aspect="pad")[0]
    assert np.abs(out[8:24] - reference(wide, 16, 32)).max() <= 1e-6
    assert out[:8].max() == out[24:].max() == 0


def test_black_beside_the_picture_is_normalised_as_the_picture_is(noise):
    for first in (False, True):
        out = prepared(
            noise[:64, :128], aspect="pad", mean=(0.5,), std=(0.25,), normalise_first=first
        )
        assert np.all(out[0, :8] == -2.0)


def test_bicubic_stays_within_the_range_of_pixels():
    edge = np.zeros((64, 64), np.float32)
    edge[:, 32:] = 1
    out = prepared(edge, interpolation="bicubic")
    assert out.min() == 0
    assert out.max() == 1


# --- mean, std, channels


def test_grey_is_replicated_and_normalised_per_channel(noise):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = prepared(noise, channels=3, mean=mean, std=std)
    grey = reference(noise, 32, 32)
    for channel in range(3):
        expected = (grey - mean[channel]) / std[channel]
        assert np.abs(out[channel] - expected).max() <= 1e-5


def test_the_order_of_resize_and_normalise_changes_rounding_only(noise):
    changes = {"mean": (0.5,), "std": (0.25,)}
    difference = prepared(noise, **changes) - prepared(noise, normalise_first=True, **changes)
    assert 0 < np.abs(difference).max() <= 2e-6


# --- intensity

LEVELS = np.array([[0.2, 0.3], [0.4, 0.6]], np.float32).repeat(8, 0).repeat(8, 1)
SIZE = {"size": (16, 16)}


def corners(out):
    return [out[0, 0, 0], out[0, 0, 15], out[0, 15, 0], out[0, 15, 15]]


def test_voi_and_full_range_take_arrays_as_they_are():
    for intensity in ("voi", "full_range"):
        assert corners(prepared(LEVELS, intensity=intensity, **SIZE)) == pytest.approx(
            [0.2, 0.3, 0.4, 0.6]
        )


def test_minmax_spans_the_pictures_own_range():
    out = prepared(LEVELS, intensity="minmax", **SIZE)
    assert corners(out) == pytest.approx([0, 0.25, 0.5, 1], abs=1e-6)


def test_percentiles_are_clipped():
    ramp = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16)
    out = prepared(ramp, intensity="percentile", percentile=(20.0, 60.0), **SIZE).ravel()
    # Position 0.2 * 255 = 51 and 0.6 * 255 = 153 of the sorted pixels.
    assert out[51] == pytest.approx(0, abs=1e-6)
    assert out[102] == pytest.approx(0.5, abs=1e-6)
    assert out[153:].min() == pytest.approx(1, abs=1e-6)


def test_equalisation_spreads_levels_by_their_share():
    pixels = np.zeros((16, 16), np.float32)
    pixels[4:8], pixels[8:] = 0.1, 1.0
    out = prepared(pixels, intensity="minmax_equalize", **SIZE)[0]
    # Shares above the darkest level: 64 and 192 of the 192 other pixels.
    assert out[0, 0] == 0
    assert out[5, 0] == pytest.approx(64 / 192, abs=1 / 510)
    assert out[15, 0] == 1


@pytest.mark.parametrize("intensity", ["minmax", "percentile", "minmax_equalize"])
def test_a_constant_picture_is_black_not_nan(intensity):
    percentile = {"percentile": (1.0, 99.0)} if intensity == "percentile" else {}
    out = prepared(np.full((20, 20), 0.7, np.float32), intensity=intensity, **percentile)
    assert np.all(out == 0)


def test_statistics_leave_padding_out_and_padding_ends_black(tmp_path):
    pixels = np.array([[0, 1000], [2000, 3000]], np.uint16).repeat(8, 0).repeat(8, 1)
    path = draw(tmp_path / "a.dcm", pixels, BitsStored=12, PixelPaddingValue=0)
    out = prepared(path, intensity="minmax", **SIZE)
    assert corners(out) == pytest.approx([0, 0, 0.5, 1], abs=1e-6)


def test_only_voi_sees_the_window(tmp_path):
    pixels = np.array([[0, 1024], [2048, 4095]], np.uint16).repeat(8, 0).repeat(8, 1)
    path = draw(
        tmp_path / "a.dcm", pixels, BitsStored=12,
        WindowCenter="1024", WindowWidth="2048", VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    assert corners(prepared(path, **SIZE)) == pytest.approx([0, 0.5, 1, 1], abs=1e-6)
    assert corners(prepared(path, intensity="full_range", **SIZE)) == pytest.approx(
        [0, 1024 / 4095, 2048 / 4095, 1], abs=1e-6
    )


# --- what may be given


def test_all_kinds_of_input_give_the_same_tensor(tmp_path):
    grey = phantom.draw()
    Image.fromarray(grey).save(tmp_path / "a.png")
    phantom.draw_dicom(tmp_path / "a.dcm", bits=16)
    one = torch.from_numpy(grey)
    kinds = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        tmp_path / "a.dcm",
        read_image(tmp_path / "a.png"),
        grey,
        grey.astype(np.uint16) * 257,
        grey.astype(np.float64) / 255,
        grey[None],
        grey[..., None],
        np.stack([grey] * 3, -1),
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGB"),
        one,
        one[None] / 255,
        one.expand(3, -1, -1),
    ]
    processor = Processor(contract())
    out = processor(kinds)["pixel_values"]
    assert out.shape == (len(kinds), 1, 32, 32)
    expected = torch.from_numpy(reference(grey / 255, 32, 32))
    assert (out[:, 0] - expected).abs().max() <= 1e-6
    assert torch.equal(processor(one[None, None])["pixel_values"], processor(grey)["pixel_values"])
    assert torch.equal(processor.prepare(grey), processor(grey)["pixel_values"][0])


def test_what_is_given_is_not_changed(noise):
    kept = noise.copy()
    prepared(noise, intensity="minmax", mean=(0.5,))
    assert np.array_equal(noise, kept)
    kept.flags.writeable = False
    prepared(kept, intensity="minmax_equalize")


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4), np.int64), "pixels of type int64 have no known range"),
        (np.full((4, 4), 2.0), r"floating-point pixels outside \[0, 1\]"),
        (np.full((4, 4), np.nan), r"floating-point pixels outside \[0, 1\]"),
        (np.zeros((4, 4, 7), np.uint8), r"an array of shape \(4, 4, 7\) is no radiograph"),
        (np.zeros((0, 4), np.uint8), r"an array of shape \(0, 4\) is no radiograph"),
        (np.dstack([np.eye(4), np.zeros((4, 4)), np.zeros((4, 4))]), "is a colour picture"),
        (None, "a NoneType is no radiograph"),
        (7, "a int is no radiograph"),
    ],
    ids=["int64", "above 1", "nan", "channels", "empty", "colour", "none", "number"],
)
def test_what_cannot_be_a_radiograph_is_refused(image, sentence):
    with pytest.raises(UnsupportedPixels, match=sentence):
        Processor(contract())(image)


def test_an_error_in_a_list_names_its_place(noise, tmp_path):
    with pytest.raises(UnsupportedPixels, match=r"^images\[1\]: "):
        Processor(contract())([noise, noise * 3])
    with pytest.raises(UnreadableImage, match=r"absent\.png: no such file"):
        Processor(contract())([noise, tmp_path / "absent.png"])


def test_an_empty_list_is_refused():
    with pytest.raises(NoImages, match="an empty list"):
        Processor(contract())([])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mean": None}, "mean unknown"),
        ({"std": None, "intensity": "unknown"}, "std, intensity unknown"),
    ],
)
def test_an_incomplete_contract_makes_no_processor(changes, sentence):
    with pytest.raises(ContractError, match=sentence):
        Processor(contract(**changes))


# --- a plain value


def test_it_compares_pickles_and_shows_its_contract():
    processor = Processor(contract(mean=(0.25,)))
    assert pickle.loads(pickle.dumps(processor)) == processor
    assert repr(processor) == f"Processor(contract={contract(mean=(0.25,))!r}, trust=None)"
    assert "mean=(0.25,)" in repr(processor)


def test_it_works_in_a_spawned_worker(noise):
    processor = Processor(contract())
    spawn = multiprocessing.get_context("spawn")
    # Not multiprocessing.Pool, which waits for ever if its worker is killed.
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        there = pool.submit(_in_a_worker, processor, noise).result(timeout=120)
    assert np.array_equal(there, processor.prepare(noise).numpy())


def _in_a_worker(processor, noise):
    torch.set_num_threads(1)
    return processor.prepare(noise).numpy()
