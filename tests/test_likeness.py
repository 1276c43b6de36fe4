"""The same radiograph in two files is recognised, and two radiographs are not taken for one."""

import io

import numpy as np
import pytest
from PIL import Image

from cxr_foundation.data import read_index
from cxr_foundation.images.likeness import ALIKE, clusters, fingerprint, near_duplicates

# Alterations of an 8-bit picture that leave the radiograph the same.
ALTERED = {
    "untouched": lambda a: a,
    "jpeg of quality 30": lambda a: _jpeg(a, 30),
    "a quarter of the size": lambda a: _resized(a, (a.shape[1] // 4, a.shape[0] // 4)),
    "squashed to 224": lambda a: _resized(a, (224, 224)),
    "gamma 2": lambda a: (255 * (a / 255) ** 2).astype(np.uint8),
    "a narrower window": lambda a: np.clip((a - 20.0) * 255 / 215, 0, 255).astype(np.uint8),
    "equalised": lambda a: (np.bincount(a.ravel(), minlength=256).cumsum() * 255 // a.size)[
        a
    ].astype(np.uint8),
    "inverted": lambda a: 255 - a,
    "mirrored": lambda a: a[:, ::-1],
    "mirrored and inverted": lambda a: 255 - a[:, ::-1],
    "padded to a square": lambda a: _padded(a),
    "letters in a corner": lambda a: _lettered(a),
    "cropped by 1 %": lambda a: a[len(a) // 100 : -(len(a) // 100), a.shape[1] // 100 :],
}


def _jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def _resized(pixels, size):
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _padded(pixels):
    side = max(pixels.shape) + 40
    square = np.zeros((side, side), np.uint8)
    y, x = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    square[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return square


def _lettered(pixels):
    pixels = pixels.copy()
    pixels[5 : 5 + len(pixels) // 14, 5 : 5 + pixels.shape[1] // 6] = 255
    return pixels


def drawn(seed):
    """Smooth random shades: nothing of one picture is in another."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(24, 20), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((300, 360), Image.Resampling.BICUBIC))


def prints_of(pictures):
    return [fingerprint(np.asarray(p, dtype=np.float32) / 255) for p in pictures]


@pytest.fixture(scope="module")
def bundled_pictures():
    from conftest import ROOT

    studies = read_index(ROOT / "cxr_foundation" / "demo" / "radiographs")[::3]
    return [(s.pixels() * 255).round().astype(np.uint8) for s in studies]


@pytest.mark.parametrize("alteration", ALTERED, ids=str)
def test_an_altered_copy_is_found_and_nothing_else_on_drawn_pictures(alteration):
    pictures = [drawn(seed) for seed in range(30)]
    pairs = near_duplicates(prints_of([*pictures, ALTERED[alteration](pictures[7])]))
    assert [(p.first, p.second) for p in pairs] == [(7, 30)]
    assert pairs[0].inverted == ("inverted" in alteration)
    assert pairs[0].mirrored == ("mirrored" in alteration)


@pytest.mark.parametrize("alteration", ALTERED, ids=str)
def test_an_altered_copy_is_found_and_nothing_else_on_radiographs(bundled_pictures, alteration):
    copied = range(0, len(bundled_pictures), 5)
    copies = [ALTERED[alteration](bundled_pictures[i]) for i in copied]
    pairs = near_duplicates(prints_of([*bundled_pictures, *copies]))
    expected = [(i, len(bundled_pictures) + n) for n, i in enumerate(copied)]
    assert [(p.first, p.second) for p in pairs] == expected


def test_the_correlation_of_an_exact_copy_is_one():
    picture = drawn(1)
    (pair,) = near_duplicates(prints_of([picture, drawn(2), picture]))
    assert (pair.first, pair.second) == (0, 2)
    assert pair.correlation == 1.0


def test_the_correlation_is_that_of_the_textures():
    one, other = prints_of([drawn(3), _jpeg(drawn(3), 30)])
    (pair,) = near_duplicates([one, other])
    expected = np.corrcoef(one.texture[0].ravel(), other.texture[0].ravel())[0, 1]
    assert pair.correlation == pytest.approx(expected, abs=0.01)
    assert pair.correlation > ALIKE


def test_a_sixteen_bit_range_changes_nothing():
    small, large = drawn(4).astype(np.float32) / 255, drawn(4).astype(np.float32) * 257
    one, other = fingerprint(small), fingerprint(large)
    assert np.abs(one.texture.astype(int) - other.texture).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (47, 49)])
def test_a_picture_of_any_size_has_a_fingerprint(shape):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    found = fingerprint(values)
    assert found.texture.shape[1:] == (48, 48)


def test_uniform_pictures_are_like_nothing():
    blank = fingerprint(np.full((64, 64), 0.3, np.float32))
    assert len(blank.signs) == 0
    assert near_duplicates([blank, blank]) == []


def test_blocks_do_not_change_what_is_found():
    pictures = [drawn(seed) for seed in range(12)]
    prints = prints_of([*pictures, *(_jpeg(p, 60) for p in pictures)])
    whole = near_duplicates(prints)
    assert len(whole) == 12
    assert [(p.first, p.second) for p in near_duplicates(prints, block=5)] == [
        (p.first, p.second) for p in whole
    ]


def test_a_thousand_equal_pictures_cost_a_thousand_links_not_a_million():
    prints = prints_of([drawn(0)]) * 1000
    pairs = near_duplicates(prints)
    assert len(pairs) == 999
    assert clusters(1000, ((p.first, p.second) for p in pairs)) == [list(range(1000))]


def test_clusters_join_chains():
    assert clusters(6, [(4, 5), (0, 2), (2, 3)]) == [[0, 2, 3], [4, 5]]
    assert clusters(3, []) == []
