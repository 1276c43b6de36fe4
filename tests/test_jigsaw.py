"""The jigsaw task: its orders, its tiles, and that neither frame nor edges answer it."""

import itertools
import math

import pretext
import pytest
import torch

from cxr_foundation.pretrain.methods.jigsaw import Jigsaw, JigsawSettings, orders

SMALL = {"orders": 10, "tile_width": 8, "hidden": 16}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def method(encoder=None, *, side=32, **settings):
    return Jigsaw.build(
        encoder or pretext.resnet(),
        settings=JigsawSettings(**{**SMALL, **settings}),
        view=(1, side, side),
        generator=pretext.generator(),
    )


def places(jigsaw, side, count=50):
    """Row and column of every pixel of every tile, in the tiles' true order."""
    rows = torch.arange(float(side))[:, None].expand(side, side)
    picture = torch.stack([rows, rows.T]).expand(count, 2, side, side)
    tiles = jigsaw.grid**2
    drawn = torch.rand(count, 2, tiles, generator=pretext.generator(3))
    return jigsaw._cut(picture, drawn).long()


# The orders.


def test_orders_are_permutations_and_all_different():
    chosen = orders(9, 100, generator=pretext.generator()).tolist()
    assert all(sorted(order) == list(range(9)) for order in chosen)
    assert len({tuple(order) for order in chosen}) == 100


def test_no_two_of_a_hundred_orders_of_nine_share_more_than_three_places():
    chosen = orders(9, 100, generator=pretext.generator())
    distance = (chosen[:, None] != chosen[None]).sum(-1) + 9 * torch.eye(100, dtype=torch.long)
    assert distance.min() == 6


def test_each_next_order_is_the_farthest_from_those_before_it():
    chosen = orders(4, 12, generator=pretext.generator(5)).tolist()

    def rank(order, before):
        distances = [sum(a != b for a, b in zip(order, o, strict=True)) for o in before]
        return min(distances), sum(distances)

    for i in range(1, 12):
        best = max(rank(o, chosen[:i]) for o in itertools.permutations(range(4)))
        assert rank(chosen[i], chosen[:i]) == best


def test_the_orders_come_from_the_generator_alone():
    first, again, other = (orders(9, 20, generator=pretext.generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_orders_are_part_of_the_state():
    assert method().state_dict()["orders"].shape == (10, 9)


# The tiles.


def test_tiles_have_the_papers_share_of_their_cells():
    jigsaw = method(side=225, margin=0.0)
    assert [(p.cell, p.tile) for p in jigsaw.places] == [(75, 64), (75, 64)]


@pytest.mark.parametrize(("side", "gap"), [(32, 1), (225, 4)])
def test_neighbouring_tiles_never_come_closer_than_the_gap(side, gap):
    rows = places(method(side=side), side)[:, :, 0]
    first, last = rows[..., 0, 0].view(50, 3, 3), rows[..., -1, 0].view(50, 3, 3)
    between = first[:, 1:] - last[:, :-1] - 1
    assert between.min() >= gap


def test_a_tiles_place_in_its_cell_varies():
    rows = places(method(side=225), 225)[:, 4, 0, 0, 0]
    assert len(rows.unique()) == 5


def test_no_tile_reaches_into_the_margin():
    pixels = places(method(side=225), 225)
    assert pixels.min() >= 28
    assert pixels.max() <= 224 - 28


def test_an_order_names_the_tile_at_each_position():
    jigsaw = method(tile_width=8)
    # Each cell has its own slope, which survives the normalisation of a tile.
    slopes = torch.arange(9.0).view(3, 3)[None, None] + 1
    pattern = torch.ones(1, 1, 32, 32)
    first, cell = jigsaw.places[0].first, jigsaw.places[0].cell
    for i, j in itertools.product(range(3), range(3)):
        span = torch.arange(float(cell))
        wave = torch.cos(slopes[0, 0, i, j] * span[:, None] + 0 * span)
        top, left = first + i * cell, first + j * cell
        pattern[0, 0, top : top + cell, left : left + cell] = wave
    drawn = torch.zeros(1, 2, 9)
    true = jigsaw._cut(pattern, drawn)[0]
    jigsaw.places[0].jitter = jigsaw.places[1].jitter = 0
    tiles, chosen = jigsaw.task(pattern, draw=2)
    for position, tile in enumerate(jigsaw.orders[chosen[0]].tolist()):
        expected = true[tile] - true[tile].mean()
        expected = expected / expected.square().mean().sqrt()
        shown = torch.nn.functional.interpolate(
            expected[None], jigsaw.shown, mode="bilinear", align_corners=False
        )[0]
        assert torch.allclose(tiles[0, position], shown, atol=1e-5)


def test_each_tile_has_mean_zero_and_deviation_one():
    jigsaw = method(pretext.vit(dynamic_img_size=True), side=225)
    tiles, _ = jigsaw.task(3 * pretext.noise(2, 225) + 5, draw=1)
    assert tiles.shape == (2, 9, 1, 48, 48)
    assert tiles.mean((2, 3, 4)).abs().max() < 1e-5
    assert (tiles.square().mean((2, 3, 4)) - 1).abs().max() < 1e-4


def test_a_tile_that_is_all_alike_becomes_zero():
    tiles, _ = method().task(torch.full((2, 1, 32, 32), 7.0), draw=1)
    assert torch.equal(tiles, torch.zeros_like(tiles))


def test_the_encoder_sees_each_tile_alone():
    pictures = pretext.noise(1, 225)
    jigsaw = method(side=225).eval()
    changed = pictures.clone()
    first, cell = jigsaw.places[0].first, jigsaw.places[0].cell
    changed[:, :, first : first + cell, first : first + cell] += pretext.noise(1, cell, seed=4)
    before, chosen = jigsaw.task(pictures, draw=1)
    after, _ = jigsaw.task(changed, draw=1)
    differs = (jigsaw.encoder(before[0]) - jigsaw.encoder(after[0])).abs().amax(1) > 0
    position = jigsaw.orders[chosen[0]].tolist().index(0)
    assert differs.nonzero().flatten().tolist() == [position]


@pytest.mark.parametrize(
    ("encoder", "shown"),
    [
        (pretext.vit, (32, 32)),
        (lambda: pretext.vit(dynamic_img_size=True), (8, 8)),
        (pretext.resnet, (32, 32)),
    ],
)
def test_a_tile_is_shown_in_a_size_that_the_encoder_takes(encoder, shown):
    jigsaw = method(encoder())
    assert jigsaw.shown == shown
    assert torch.isfinite(jigsaw([pretext.noise(2)], draw=1)["loss"])


# What is asked.


def test_a_head_that_knows_nothing_has_the_loss_of_equal_chances():
    jigsaw = method()
    torch.nn.init.zeros_(jigsaw.head[-1].weight)
    torch.nn.init.zeros_(jigsaw.head[-1].bias)
    out = jigsaw([pretext.noise(4)], draw=1)
    assert out["loss"].item() == pytest.approx(math.log(10), abs=1e-6)
    assert out["features"].shape == (4, jigsaw.encoder.num_features)


def test_the_loss_equals_a_loop_over_its_definition():
    jigsaw = method(pretext.vit())
    pictures = pretext.noise(3)
    tiles, chosen = jigsaw.task(pictures, draw=1)
    total = 0.0
    for nine, order in zip(tiles, chosen.tolist(), strict=True):
        seen = torch.cat([jigsaw.tile_head(jigsaw.encoder(tile[None]))[0] for tile in nine])
        scores = jigsaw.head(seen[None])[0].tolist()
        total += math.log(sum(map(math.exp, scores))) - scores[order]
    assert jigsaw([pictures], draw=1)["loss"].item() == pytest.approx(total / 3, abs=1e-5)


def test_the_frame_alone_solves_the_task_without_a_margin_and_not_with_it():
    pictures = pretext.framed(2000)
    tiles, chosen = method(margin=0.0).task(pictures, draw=1)
    assert pretext.probed(tiles[..., ::4, ::4].flatten(1), chosen) > 0.99
    tiles, chosen = method().task(pictures, draw=1)
    # Four standard deviations of 1,000 guesses among ten.
    assert pretext.probed(tiles[..., ::4, ::4].flatten(1), chosen) < 0.1 + 4 * 0.0095


def test_brightness_that_falls_off_across_the_picture_does_not_solve_the_task():
    pictures = 0.1 * pretext.noise(2000) + torch.linspace(-1, 1, 32)[None, None, :, None]
    jigsaw = method(margin=0.0)
    plain = jigsaw._cut(pictures, torch.full((2000, 2, 9), 0.5))
    tiles, chosen = jigsaw.task(pictures, draw=1)
    order = jigsaw.orders[chosen]
    means = plain.mean((2, 3, 4)).gather(1, order)
    assert pretext.probed(means, chosen) > 0.5
    assert pretext.probed(tiles.mean((2, 3, 4)), chosen) < 0.1 + 4 * 0.0095


def test_equal_draws_ask_the_same_and_others_do_not():
    jigsaw, pictures = method(), pretext.noise(4)
    first, again, other = (jigsaw.task(pictures, draw=d)[0] for d in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_encoder_learns_the_task_on_a_fixed_batch():
    assert pretext.loss_falls(method(), [pretext.noise(4)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": 4}, "grid: 4 is neither 2 nor 3"),
        ({"grid": 2, "orders": 25}, "orders: 25 is not from 2 to 24"),
        ({"orders": 1}, "orders: 1 is not from 2 to 362880"),
        ({"tile": 1.0}, r"tile: 1\.0 is not within \(0, 1\)"),
        ({"margin": -0.1}, r"margin: -0\.1"),
        ({"hidden": 0}, "hidden: 0 is not above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JigsawSettings(**settings)


def test_tiles_that_leave_no_gap_are_refused():
    with pytest.raises(ValueError, match="tile: 8 pixels of a cell of 8 leave no gap"):
        method(tile=0.99)
