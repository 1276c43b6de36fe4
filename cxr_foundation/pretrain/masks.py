"""Group masking: rectangles of a picture are hidden until a wanted part of it is.

Written from descriptions of GMML (Atito et al., arXiv 2205.14986) and SiT (arXiv 2104.03602).
Everything is drawn on the pictures' device from one generator, for a whole batch at once: no step
depends on what was drawn, so a GPU is never waited for.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import torch

from cxr_foundation.pretrain.distributed import from_first, own_rows, world_size

__all__ = ["AS_USUAL", "Blocks", "Corruption", "corrupt", "cover", "draw_blocks", "to_pixels"]

Law = Literal["even", "published"]

# Blocks that one 64-bit integer holds, a bit each; the sign is left alone.
_PER_WORD = 62
# Cells of which a handful of 64-bit temporaries fit into the second-level cache of one core.
_IN_CACHE = 1 << 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruption:
    """What is hidden of a picture, and what is shown in its place.

    Each picture is corrupted in one of two ways, by chance: its hidden part is filled by one of
    `fills`, or shows the same place of another picture of the batch.

    Attributes:
        fraction: Least and most of the picture that is hidden, drawn uniformly. Whole blocks are
            hidden until it is reached, so a little more is. The released code of GMML and SiT takes
            one number p and draws from (min(p, 0.5), p).
        fills: What a hidden part is filled with, drawn evenly per picture: standard normal "noise",
            "zeros" (the mean grey, as pictures are normalised), or a "copy" of another place of
            the picture.
        alien_p: Probability that a picture shows another one instead. It may be drawn to show
            itself, as in the released code.
        alien_fraction: As `fraction`, for these pictures.
        align: Side in pixels of the cells that blocks are made of; None takes the encoder's
            patch, or the pixels per place of its map. 1 hides any rectangle, as the released code
            does unless it is told otherwise.
        largest: Longest side of a block, as a part of the picture's.
        law: "even" hides every place equally often. "published" is the released code's: no block
            starts within the last `align` pixels, so the right and lower borders are hidden less.
    """

    fraction: tuple[float, float] = (0.5, 0.5)
    fills: tuple[Literal["noise", "zeros", "copy"], ...] = ("noise",)
    alien_p: float = 0.5
    alien_fraction: tuple[float, float] = (0.3, 0.3)
    align: int | None = None
    largest: float = 0.3
    law: Law = "even"

    def __post_init__(self) -> None:
        for name in ("fraction", "alien_fraction"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 0.95:
                raise ValueError(f"{name}: {[low, high]!r} is not a range within [0, 0.95]")
        if not self.fills:
            raise ValueError("fills: there is none")
        if not 0 <= self.alien_p <= 1:
            raise ValueError(f"alien_p: {self.alien_p!r} is not a probability")
        if self.align is not None and self.align < 1:
            raise ValueError(f"align: {self.align!r} is not above 0")
        if not 0 < self.largest <= 1:
            raise ValueError(f"largest: {self.largest!r} is not within (0, 1]")


AS_USUAL = Corruption()
"""The default of methods that corrupt; one for all, since a recipe may name a part of it."""


class Blocks(NamedTuple):
    """Rectangles in the order in which they hide a picture, int64 (N, K) each, in cells.

    They may reach over the picture's borders.
    """

    top: torch.Tensor
    left: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor


@torch.no_grad()
def corrupt(
    images: torch.Tensor,
    corruption: Corruption,
    *,
    align: int,
    draw: int,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide a part of every picture.

    What is hidden does not depend on the number of processes that share a batch; noise and donors
    do.

    Args:
        images: float (N, C, h, w), normalised.
        corruption: How.
        align: Side of a cell in pixels where `corruption` names none.
        draw: Seed of all that is random.
        out: As `images`, what to write into: on a CPU fresh memory for a batch costs several times
            what is done with it.

    Returns:
        The corrupted pictures, as `images`; and bool (N, 1, h, w), True where one is hidden.
    """
    align, size, device = corruption.align or align, images.shape[-2:], images.device
    generator = torch.Generator(device).manual_seed(from_first(draw, like=images))
    count = len(images) * world_size()
    chance = torch.rand(3, count, generator=generator, device=device)
    alien = own_rows(chance[0] < corruption.alien_p)
    fill = own_rows((chance[1] * len(corruption.fills)).long())
    low, high = (
        torch.where(chance[0] < corruption.alien_p, theirs, own)
        for theirs, own in zip(corruption.alien_fraction, corruption.fraction, strict=True)
    )
    target = own_rows(low + (high - low) * chance[2])
    blocks = draw_blocks(
        count,
        size=(size[0], size[1]),
        align=align,
        largest=corruption.largest,
        law=corruption.law,
        most=max(corruption.fraction[1], corruption.alien_fraction[1]),
        generator=generator,
    )
    blocks = Blocks(*map(own_rows, blocks))
    cells, first = cover(blocks, target, size=(size[0], size[1]), align=align)
    mask = to_pixels(cells, size=(size[0], size[1]), align=align)[:, None]
    source = None
    if "copy" in corruption.fills:
        source = _elsewhere(blocks, first, size=(size[0], size[1]), align=align, draws=generator)
    # Of this process alone: pictures are not sent around for their scraps.
    donor = torch.randint(len(images), (len(images),), generator=generator, device=device)
    # -1: another picture; else the number of the fill.
    shown = torch.where(alien, -1, fill)
    write = _write_by_row if device.type == "cpu" else _write_at_once
    out = torch.empty_like(images) if out is None else out
    write(images, mask, shown, donor, source, corruption.fills, generator, out)
    return out, mask


def draw_blocks(
    count: int,
    *,
    size: tuple[int, int],
    align: int,
    largest: float,
    law: Law,
    most: float,
    generator: torch.Generator,
) -> Blocks:
    """Blocks for `count` pictures, of which the first few are used.

    Args:
        count: Number N of pictures.
        size: (height, width) of a picture in pixels.
        align: Side of a cell in pixels.
        largest: Longest side of a block, as a part of the picture's.
        law: See `Corruption`.
        most: Largest part of a picture that will be hidden: decides how many blocks are drawn.
        generator: On the device that the blocks shall be on.
    """
    shape = (count, _enough(size, align=align, largest=largest, most=most))
    sides = [_even, _published][law == "published"]
    (top, height), (left, width) = (
        sides(shape, length, align=align, largest=largest, generator=generator) for length in size
    )
    return Blocks(top, left, height, width)


def _even(
    shape: tuple[int, int], length: int, *, align: int, largest: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """First cell and number of cells along a side; each cell is equally often in a block."""
    cells, longest = _cells(length, align), _longest(length, align, largest)
    extent = _integers(1, longest + 1, shape, generator)
    # From hanging in by the last cell to hanging in by the first.
    chance = torch.rand(shape, generator=generator, device=generator.device)
    return (chance * (cells + extent - 1)).long() - (extent - 1), extent


def _published(
    shape: tuple[int, int], length: int, *, align: int, largest: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_even`, by the released code's law; where that would draw from nothing, its least value.

    A corner is drawn from [0, length - align) and an extent from [align, largest × length), in
    pixels and half-open; the extent ends at the border and is rounded to cells, halves to even.
    """
    corner = _integers(0, max(1, length - align), shape, generator) // align
    longest = max(align + 1, int(length * largest))
    extent = _integers(align, longest, shape, generator).minimum(length - corner * align)
    return corner, (extent / align).round().long().clamp(min=1)


def cover(
    blocks: Blocks, target: torch.Tensor, *, size: tuple[int, int], align: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay blocks over pictures, in their order, until the target is reached.

    A picture whose blocks do not suffice keeps what all of them cover.

    Args:
        blocks: Of N pictures.
        target: (N,), part of each picture's pixels; 0 takes no block.
        size: (height, width) of a picture in pixels.
        align: Side of a cell in pixels.

    Returns:
        bool (N, rows, columns) of cells, True where hidden; and int16 of the same shape, the number
        of the first block over a cell, K where there is none.
    """
    cells = math.prod(_cells(length, align) for length in size)
    # Temporaries of a few pictures stay in a CPU's cache; a GPU takes the batch at once.
    part = len(target) if target.is_cuda else max(1, _IN_CACHE // cells)
    split = (torch.split(tensor, part) for tensor in (*blocks, target))
    parts = [_cover(Blocks(*of), t, size=size, align=align) for *of, t in zip(*split, strict=True)]
    hidden, first = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return hidden, first


def _cover(
    blocks: Blocks, target: torch.Tensor, *, size: tuple[int, int], align: int
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = (_cells(length, align) for length in size)
    number = blocks.top.shape[1]
    down = _bits(blocks.top, blocks.height, rows)
    across = _bits(blocks.left, blocks.width, columns)
    first = torch.full((len(target), rows, columns), number, device=target.device)
    for word in reversed(range(down.shape[1])):
        # The blocks over a cell are those over its row and its column.
        over = down[:, word, :, None] & across[:, word, None, :]
        lowest = (over & -over).clamp_(min=1)
        # A power of two is exact in float32, its logarithm nearly so.
        index = lowest.float().log2_().round_().long().add_(word * _PER_WORD)
        first = torch.where(over != 0, index, first)
    area = (_lengths(size[0], align)[:, None] * _lengths(size[1], align)).flatten()
    counts = torch.zeros(len(target), number + 1, dtype=torch.long, device=target.device)
    counts.scatter_add_(1, first.flatten(1), area.to(target.device).expand(len(first), -1))
    before = counts.cumsum(1) - counts
    needed = (before[:, :number] < target[:, None] * (size[0] * size[1])).sum(1)
    return first < needed[:, None, None], first.short()


def to_pixels(cells: torch.Tensor, *, size: tuple[int, int], align: int) -> torch.Tensor:
    """(N, rows, columns) of cells → (N, h, w)."""
    if align == 1:
        return cells
    n, rows, columns = cells.shape
    large = cells[:, :, None, :, None].expand(n, rows, align, columns, align)
    return large.reshape(n, rows * align, columns * align)[:, : size[0], : size[1]]


def _bits(start: torch.Tensor, extent: torch.Tensor, cells: int) -> torch.Tensor:
    """int64 (N, words, cells): bit k of word j is set where block (62 j + k) lies over the cell."""
    place = torch.arange(cells, device=start.device)
    inside = (place >= start[..., None]) & (place < (start + extent)[..., None])
    values = 2 ** torch.arange(_PER_WORD, device=start.device)
    words = inside.view(len(start), -1, _PER_WORD, cells)
    return (words * values[:, None]).sum(2)


def _enough(size: tuple[int, int], *, align: int, largest: float, most: float) -> int:
    """A number of blocks that hides `most` of practically every picture, in whole words."""
    covered = 1.0
    for length in size:
        cells, longest = _cells(length, align), _longest(length, align, largest)
        covered *= sum(s / (cells + s - 1) for s in range(1, longest + 1)) / longest
    # n blocks leave (1 - covered)^n of a picture; four standard deviations more to be safe.
    expected = math.log(1 - most) / math.log(1 - covered) if covered < 1 else 1.0
    return _PER_WORD * max(1, math.ceil((expected + 4 * math.sqrt(expected)) / _PER_WORD))


def _elsewhere(
    blocks: Blocks,
    first: torch.Tensor,
    *,
    size: tuple[int, int],
    align: int,
    draws: torch.Generator,
) -> torch.Tensor:
    """int64 (N, h * w): the pixel that each pixel is copied from, by its block's own shift."""
    number = blocks.top.shape[1]
    at = first.clamp(max=number - 1).long().flatten(1)
    sources = []
    for start, extent, length in (
        (blocks.top, blocks.height, size[0]),
        (blocks.left, blocks.width, size[1]),
    ):
        cells = _cells(length, align)
        seen, end = start.clamp(min=0), (start + extent).clamp(max=cells)
        chance = torch.rand(start.shape, generator=draws, device=start.device)
        shift = (chance * (cells - (end - seen) + 1)).long() - seen
        shifts = shift.gather(1, at).view_as(first) * align
        sources.append(to_pixels(shifts, size=size, align=align))
    device = first.device
    y = torch.arange(size[0], device=device)[:, None] + sources[0]
    x = torch.arange(size[1], device=device) + sources[1]
    return (y.clamp(0, size[0] - 1) * size[1] + x.clamp(0, size[1] - 1)).flatten(1)


def _write_by_row(
    images: torch.Tensor,
    mask: torch.Tensor,
    shown: torch.Tensor,
    donor: torch.Tensor,
    source: torch.Tensor | None,
    fills: tuple[str, ...],
    generator: torch.Generator,
    out: torch.Tensor,
) -> None:
    """Write the corrupted pictures one after the other, so that what fills them stays in cache."""
    zero = torch.zeros((), dtype=images.dtype)
    for row, (kind, other) in enumerate(zip(shown.tolist(), donor.tolist(), strict=True)):
        if kind < 0:
            content = images[other]
        elif fills[kind] == "noise":
            content = torch.randn(images[row].shape, generator=generator, dtype=images.dtype)
        elif fills[kind] == "copy":
            assert source is not None
            content = images[row].flatten(1)[:, source[row]].view_as(images[row])
        else:
            content = zero
        torch.where(mask[row], content, images[row], out=out[row])


def _write_at_once(
    images: torch.Tensor,
    mask: torch.Tensor,
    shown: torch.Tensor,
    donor: torch.Tensor,
    source: torch.Tensor | None,
    fills: tuple[str, ...],
    generator: torch.Generator,
    out: torch.Tensor,
) -> None:
    """The same without asking the device what was drawn."""
    content = images[donor]
    for number, fill in enumerate(fills):
        if fill == "noise":
            filled = torch.randn(
                images.shape, generator=generator, device=images.device, dtype=images.dtype
            )
        elif fill == "copy":
            assert source is not None
            index = source[:, None].expand(-1, images.shape[1], -1)
            filled = images.flatten(2).gather(2, index).view_as(images)
        else:
            filled = torch.zeros((), dtype=images.dtype, device=images.device)
        content = torch.where((shown == number)[:, None, None, None], filled, content)
    torch.where(mask, content, images, out=out)


def _integers(
    low: int, high: int, shape: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=generator, device=generator.device)


def _cells(length: int, align: int) -> int:
    return -(-length // align)


def _longest(length: int, align: int, largest: float) -> int:
    return max(1, round(largest * length / align))


def _lengths(length: int, align: int) -> torch.Tensor:
    """int64: pixels of each cell along a side; the last cell may be cut off."""
    return (length - torch.arange(0, length, align)).clamp(max=align)
