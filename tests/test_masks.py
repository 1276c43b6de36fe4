"""Group masking: its law against a loop over its description, and what it shows in place."""

import collections
import random

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cxr_foundation.pretrain import masks
from cxr_foundation.pretrain.masks import Blocks, Corruption, corrupt, cover, draw_blocks, to_pixels

PATCH = 16


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_picture(side, most, *, align, random):
    """What the released code hides of one picture, written from its description alone."""
    hidden = np.zeros((side, side), dtype=bool)
    target = random.uniform(min(0.5, most), most) * side * side
    while hidden.sum() < target:
        top = random.randrange(side - align) // align * align
        left = random.randrange(side - align) // align * align
        height = min(random.randrange(align, int(0.3 * side)), side - top)
        width = min(random.randrange(align, int(0.3 * side)), side - left)
        height, width = round(height / align) * align, round(width / align) * align
        hidden[top : top + height, left : left + width] = True
    return torch.from_numpy(hidden)


def looped(count, side, most, *, align):
    source = random.Random(1)
    return torch.stack([one_picture(side, most, align=align, random=source) for _ in range(count)])


def drawn(count, side, fraction, *, align, law="published", seed=0):
    """bool (N, side, side): the same number of pictures by the package, all at once."""
    source, size = generator(seed), (side, side)
    blocks = draw_blocks(
        count, size=size, align=align, largest=0.3, law=law, most=fraction[1], generator=source
    )
    target = fraction[0] + (fraction[1] - fraction[0]) * torch.rand(count, generator=source)
    cells, _ = cover(blocks, target, size=size, align=align)
    return to_pixels(cells, size=size, align=align)


def kolmogorov_smirnov(first, second):
    places = torch.cat([first, second]).sort().values
    shares = [
        torch.searchsorted(x.sort().values, places, right=True) / len(x) for x in (first, second)
    ]
    return float((shares[0] - shares[1]).abs().max())


def parts(hidden):
    return hidden.float().mean((1, 2))


# The published law.


@pytest.mark.parametrize(
    ("count", "side", "most", "align"),
    [(768, 224, 0.5, 16), (768, 224, 0.75, 16), (384, 64, 0.6, 1)],
)
def test_the_hidden_part_is_distributed_as_by_the_loop(count, side, most, align):
    ours = parts(drawn(count, side, (min(0.5, most), most), align=align))
    theirs = parts(looped(count, side, most, align=align))
    assert kolmogorov_smirnov(ours, theirs) < 1.36 * (2 / count) ** 0.5
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)
    assert ours.std().item() == pytest.approx(theirs.std().item(), abs=0.008)


def test_the_hidden_part_has_the_figures_that_were_simulated_for_224_pixels():
    half, more = (parts(drawn(768, 224, (0.5, most), align=16)) for most in (0.5, 0.75))
    assert half.mean().item() == pytest.approx(0.512, abs=0.003)
    assert more.mean().item() == pytest.approx(0.647, abs=0.01)
    assert half.min() >= 0.5
    assert half.max() < 0.58


def test_every_place_is_hidden_as_often_as_by_the_loop():
    ours, theirs = drawn(768, 224, (0.5, 0.5), align=16), looped(768, 224, 0.5, align=16)
    difference = (ours.float().mean(0) - theirs.float().mean(0))[::16, ::16]
    # Two samples of 768 pictures differ by as much by chance.
    assert difference.square().mean().sqrt().item() < 1.15 * (2 * 0.25 / 768) ** 0.5


def test_the_last_row_and_column_are_hidden_less_by_the_published_law():
    often = drawn(1500, 224, (0.5, 0.5), align=16).float().mean(0)
    assert often[-1].mean().item() == pytest.approx(0.396, abs=0.02)
    assert often[:, -1].mean().item() == pytest.approx(0.396, abs=0.02)


def test_the_sides_of_blocks_follow_the_published_law_exactly():
    exact = collections.Counter()
    for corner in range(224 - PATCH):
        for extent in range(PATCH, 67):
            extent = min(extent, 224 - corner // PATCH * PATCH)
            exact[round(extent / PATCH)] += 1 / (224 - PATCH) / (67 - PATCH)
    blocks = draw_blocks(
        800,
        size=(224, 224),
        align=16,
        largest=0.3,
        law="published",
        most=0.5,
        generator=generator(),
    )
    for sides in (blocks.height, blocks.width):
        shares = sides.flatten().bincount() / sides.numel()
        assert len(shares) == 5
        for cells, share in exact.items():
            assert shares[cells].item() == pytest.approx(share, abs=0.005)
    assert exact[1] == pytest.approx(0.155, abs=0.002)


def test_no_published_block_starts_in_the_last_cell():
    blocks = draw_blocks(
        200,
        size=(224, 224),
        align=16,
        largest=0.3,
        law="published",
        most=0.5,
        generator=generator(),
    )
    assert blocks.top.unique().tolist() == list(range(13))
    assert blocks.left.unique().tolist() == list(range(13))


@pytest.mark.parametrize(("side", "align"), [(32, 16), (16, 16), (16, 32), (40, 16)])
def test_the_even_law_hides_enough_of_pictures_of_a_few_cells(side, align):
    assert (parts(drawn(64, side, (0.5, 0.5), align=align, law="even")) >= 0.5).all()


@pytest.mark.parametrize(("side", "align", "part"), [(32, 16, 0.25), (16, 16, 1.0), (16, 32, 1.0)])
def test_the_published_law_takes_one_cell_where_it_would_draw_from_nothing(side, align, part):
    # Of 32 pixels it draws a side from [16, 9), and a corner from [0, 16): the first cell alone.
    assert (parts(drawn(64, side, (0.5, 0.5), align=align)) == part).all()


# The even law.


def test_the_even_law_hides_every_place_equally_often():
    often = drawn(4000, 112, (0.5, 0.5), align=16, law="even").float().mean(0)[::16, ::16]
    assert often.mean().item() == pytest.approx(0.53, abs=0.03)
    # Five standard deviations of a share of 4,000.
    assert (often - often.mean()).abs().max().item() < 5 * (0.25 / 4000) ** 0.5


# Laying blocks until the target is reached.


@pytest.mark.parametrize(("side", "align", "most"), [(224, 16, 0.9), (48, 1, 0.6), (50, 8, 0.7)])
def test_blocks_cover_what_a_loop_over_them_covers(side, align, most):
    blocks = draw_blocks(
        6, size=(side, side), align=align, largest=0.3, law="even", most=most, generator=generator()
    )
    target = torch.linspace(0.0, most, 6)
    cells, first = cover(blocks, target, size=(side, side), align=align)
    pixels = to_pixels(cells, size=(side, side), align=align)
    for i in range(6):
        hidden = torch.zeros(side, side, dtype=torch.bool)
        order = torch.full(cells.shape[1:], blocks.top.shape[1], dtype=torch.short)
        for k, (top, left, height, width) in enumerate(
            zip(*(b[i].tolist() for b in blocks), strict=True)
        ):
            rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
            order[rows, columns] = order[rows, columns].clamp(max=k)
            if hidden.float().mean() < target[i]:
                rows, columns = (slice(s.start * align, s.stop * align) for s in (rows, columns))
                hidden[rows, columns] = True
        assert torch.equal(pixels[i], hidden)
        assert torch.equal(first[i], order)


@pytest.mark.parametrize("law", ["published", "even"])
def test_no_more_is_hidden_than_the_target_and_one_largest_block(law):
    for fraction in (0.1, 0.3, 0.5, 0.75, 0.9):
        hidden = parts(drawn(200, 224, (fraction, fraction), align=16, law=law))
        assert hidden.min() >= fraction
        assert hidden.max() < fraction + (64 / 224) ** 2


def test_aligned_masks_are_constant_in_every_patch():
    mask = corrupt(torch.zeros(8, 1, 64, 96), Corruption(), align=16, draw=0)[1]
    patches = mask.view(8, 4, 16, 6, 16).float().mean((2, 4))
    assert set(patches.unique().tolist()) == {0.0, 1.0}


# What is shown in place.


def numbered(count, channels=3, side=32):
    """Picture i is all i + 1."""
    return (
        torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(-1, channels, side, side).contiguous()
    )


def test_what_is_not_hidden_stays_as_it_was_and_all_channels_hide_the_same():
    images = torch.randn(32, 3, 32, 32, generator=generator())
    settings = Corruption(fills=("noise", "zeros", "copy"))
    corrupted, mask = corrupt(images, settings, align=4, draw=1)
    assert mask.shape == (32, 1, 32, 32)
    assert torch.equal(corrupted.masked_fill(mask, 0), images.masked_fill(mask, 0))
    changed = corrupted != images
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not (changed & ~mask).any()


def test_another_picture_shows_its_own_same_place():
    base = torch.randn(1, 1, 32, 32, generator=generator())
    images = numbered(16, 1) * 100 + base
    corrupted, mask = corrupt(images, Corruption(alien_p=1.0), align=4, draw=1)
    donors = set()
    for i in range(16):
        shown = (corrupted[i] - base[0])[mask[i]]
        assert shown.std() < 1e-3
        donors.add(round(shown[0].item() / 100))
    assert len(donors) > 5
    part = mask.float().mean((1, 2, 3))
    assert part.min() >= 0.3
    assert part.max() < 0.4


def test_zeros_are_zeros_and_noise_is_standard_normal():
    images = numbered(64, 2)
    zeros, mask = corrupt(images, Corruption(fills=("zeros",), alien_p=0.0), align=4, draw=1)
    assert torch.equal(zeros, images.masked_fill(mask, 0))
    noisy, mask = corrupt(images, Corruption(alien_p=0.0), align=4, draw=1)
    values = noisy.masked_select(mask)
    assert values.mean().item() == pytest.approx(0, abs=0.02)
    assert values.std().item() == pytest.approx(1, abs=0.02)
    # Drawn for each channel and picture on its own.
    assert values.unique().numel() > 0.99 * values.numel()


def test_a_copy_is_of_whole_cells_of_another_place_of_the_same_picture():
    side, align = 32, 4
    pixels = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    images = pixels + side * side * torch.arange(40.0).view(-1, 1, 1, 1)
    settings = Corruption(fills=("copy",), alien_p=0.0)
    corrupted, mask = corrupt(images, settings, align=align, draw=3)
    source = corrupted - side * side * torch.arange(40.0).view(-1, 1, 1, 1)
    assert source.min() >= 0
    assert source.max() < side * side
    down = (source // side) - (pixels // side)
    across = (source % side) - (pixels % side)
    moved = (down != 0) | (across != 0)
    assert not (moved & ~mask).any()
    assert moved[mask].float().mean() > 0.9
    for shift in (down, across):
        cells = shift.view(40, 8, align, 8, align).transpose(2, 3).flatten(3)
        assert torch.equal(cells.amin(3), cells.amax(3))
        assert (cells % align == 0).all()


def test_the_ways_to_corrupt_have_the_stated_probabilities():
    images = numbered(4000, 1, 8)
    settings = Corruption(fills=("zeros", "copy"), alien_p=1 / 3, align=2)
    corrupted, mask = corrupt(images, settings, align=1, draw=0)
    hidden = corrupted.masked_fill(~mask, float("nan")).flatten(1).nanmean(1)
    zeros = (hidden == 0).float().mean().item()
    own = (hidden == images[:, 0, 0, 0]).float().mean().item()
    assert zeros == pytest.approx(1 / 3, abs=0.025)
    assert own == pytest.approx(1 / 3, abs=0.025)
    assert 1 - zeros - own == pytest.approx(1 / 3, abs=0.025)


def test_the_hidden_part_of_each_picture_is_drawn_between_the_two_fractions():
    settings = Corruption(fraction=(0.2, 0.6), alien_p=0.0, fills=("zeros",))
    mask = corrupt(torch.zeros(1000, 1, 64, 64), settings, align=1, draw=0)[1]
    part = mask.float().mean((1, 2, 3))
    assert part.min() >= 0.2
    assert part.max() < 0.6 + 0.3**2
    # A uniform number in this range has a deviation of .4 / sqrt(12).
    assert part.mean().item() == pytest.approx(0.415, abs=0.02)
    assert part.std().item() == pytest.approx(0.115, abs=0.01)


def test_a_fraction_of_nothing_hides_nothing():
    images = torch.randn(8, 1, 32, 32, generator=generator())
    settings = Corruption(fraction=(0.0, 0.0), alien_fraction=(0.0, 0.0))
    corrupted, mask = corrupt(images, settings, align=8, draw=0)
    assert not mask.any()
    assert torch.equal(corrupted, images)


# Where and when it is drawn.


def test_equal_draws_hide_equally_whatever_the_global_generator_does():
    images = torch.randn(8, 1, 32, 32, generator=generator())
    settings = Corruption(fills=("noise", "copy"))
    torch.manual_seed(1)
    first, mask = corrupt(images, settings, align=4, draw=5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again, same = corrupt(images, settings, align=4, draw=5)
    other = corrupt(images, settings, align=4, draw=6)[1]
    assert torch.equal(first, again)
    assert torch.equal(mask, same)
    assert not torch.equal(mask, other)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_writing_at_once_gives_what_writing_row_by_row_gives(monkeypatch):
    images = torch.randn(32, 2, 32, 32, generator=generator())
    settings = Corruption(fills=("zeros", "copy"))
    expected, mask = corrupt(images, settings, align=4, draw=2)
    monkeypatch.setattr(masks, "_write_by_row", masks._write_at_once)
    at_once, same = corrupt(images, settings, align=4, draw=2)
    assert torch.equal(at_once, expected)
    assert torch.equal(mask, same)


def test_nothing_waits_for_what_was_drawn(monkeypatch):
    # A fake tensor has a shape and no values: whoever asks for one raises.
    monkeypatch.setattr(masks, "_write_by_row", masks._write_at_once)
    with FakeTensorMode():
        images = torch.empty(4, 3, 64, 64)
        settings = Corruption(fills=("noise", "zeros", "copy"))
        corrupted, mask = corrupt(images, settings, align=1, draw=2)
        assert corrupted.shape == images.shape
        assert mask.shape == (4, 1, 64, 64)
        with pytest.raises(DataDependentOutputException):
            mask.any().item()


def test_two_processes_hide_what_one_would_of_both_their_batches(monkeypatch):
    images = torch.randn(8, 1, 32, 32, generator=generator())
    settings = Corruption(fills=("zeros",), alien_p=0.0)
    together, whole = corrupt(images, settings, align=4, draw=2)
    monkeypatch.setattr(masks, "world_size", lambda: 2)
    for rank, half in enumerate(images.chunk(2)):
        monkeypatch.setattr(masks, "own_rows", lambda rows, rank=rank: rows.chunk(2)[rank])
        corrupted, mask = corrupt(half, settings, align=4, draw=2)
        assert torch.equal(mask, whole.chunk(2)[rank])
        assert torch.equal(corrupted, together.chunk(2)[rank])


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": (0.5, 0.4)},
        {"fraction": (0.5, 1.0)},
        {"alien_fraction": (-0.1, 0.4)},
        {"fills": ()},
        {"alien_p": 1.1},
        {"align": 0},
        {"largest": 0.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Corruption(**wrong)


def test_blocks_that_do_not_suffice_cover_all_that_they_can():
    one = Blocks(*(torch.tensor([[value] * 62]) for value in (0, 0, 1, 1)))
    cells, _ = cover(one, torch.tensor([0.9]), size=(64, 64), align=16)
    assert cells.sum() == 1
