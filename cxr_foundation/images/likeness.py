"""`fingerprint` and `near_duplicates`: the same radiograph in two files, whatever was done to it.

A picture is brought to 48 × 48 by area means, its grey values are replaced by their ranks, and
each place is divided by the contrast around it: what is left is the fine texture of ribs, vessels
and edges, without brightness, window or gamma. Two numbers are taken from it:

* a perceptual hash: the signs of 121 of its cosine coefficients, of middle frequency. Hashes of
  two pictures that differ in at most 33 signs (or in all but 33: one is inverted) are candidates;
* the texture itself: a candidate is a near-duplicate if the textures correlate at 0.75 or more.

A mirrored picture has the same coefficients with every second sign changed, so both orientations
are looked at together. A second fingerprint without the uniform margins finds padded copies.

On real frontal radiographs of different patients the correlation stays below 0.65 in 1.4 million
pairs; copies that were recompressed, resized, inverted, mirrored, padded, labelled with text or
given another window or gamma mostly lie above 0.9. `benchmarks/audit.py` prints both. Not found:
copies that were turned by more than about a degree, or cropped by more than about 1 % per side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALIKE",
    "HASH_BITS",
    "HASH_DISTANCE",
    "SIDE",
    "Fingerprint",
    "Pair",
    "clusters",
    "fingerprint",
    "near_duplicates",
]

SIDE = 48
"""Pixels a side of the texture: finer ones lose copies of low quality, coarser ones tell less
between people."""

ALIKE = 0.75
"""Least correlation of a near-duplicate. Chosen on the parts of the data that are not for testing:
above the highest of different patients (0.64), below the lowest of copies cropped by 1 % (0.79)."""

_FIRST, _LAST = 3, 13

HASH_BITS = (_LAST - _FIRST + 1) ** 2
"""Signs of a perceptual hash."""

HASH_DISTANCE = 33
"""Most signs in which hashes of near-duplicates differ."""

# Of ranks, which lie in [0, 1]: less contrast than this around a place is noise.
_FLOOR = 0.02
_RADIUS = 2
# A margin is uniform if its grey values differ by less than this share of the whole range.
_MARGIN = 0.02
# Texture lies within about ± 3; quantised so that 100,000 pictures need a quarter of a GB.
_STEPS = 32.0


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Fingerprint:
    """What is kept of a picture to recognise it: once as it is, once without its margins.

    Attributes:
        signs: int8 (K, 121) of −1 and 1: K is 1, or 2 if the picture has uniform margins, or 0 if
            all of it is uniform and nothing can be recognised.
        texture: int8 (K, 48, 48).
    """

    signs: npt.NDArray[np.int8]
    texture: npt.NDArray[np.int8]


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Pair:
    """Two positions that hold near-duplicates of each other.

    Attributes:
        first: The smaller position.
        second: The larger one.
        correlation: Of the textures, in [0.75, 1].
        mirrored: One is the mirror image of the other.
        inverted: One has the other's polarity turned round.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool
    inverted: bool


def fingerprint(image: npt.NDArray[np.float32]) -> Fingerprint:
    """The fingerprint of one picture.

    Args:
        image: (H, W), of any range and size.
    """
    versions = [image]
    trimmed = _without_margins(image)
    if trimmed.shape != image.shape:
        versions.append(trimmed)
    found = [_texture(version) for version in versions]
    kept = [texture for texture in found if texture is not None]
    texture = np.zeros((len(kept), SIDE, SIDE), dtype=np.int8)
    signs = np.zeros((len(kept), HASH_BITS), dtype=np.int8)
    cosines = _cosines()
    for row, values in enumerate(kept):
        texture[row] = np.clip(np.rint(values * _STEPS), -127, 127)
        signs[row] = np.where((cosines @ values @ cosines.T).ravel() > 0, 1, -1)
    return Fingerprint(signs, texture)


def near_duplicates(prints: Sequence[Fingerprint], *, block: int = 1024) -> list[Pair]:
    """All pairs of pictures that show the same radiograph, sorted.

    All pairs of hashes are compared, as a product of matrices. Pictures whose textures are equal
    are linked one to the next and not each with each: `clusters` makes the same groups of them.

    Args:
        prints: N fingerprints.
        block: Side of the tiles that the matrix of hashes is computed in.
    """
    entries, links = _distinct(prints)
    found = {(link.first, link.second): link for link in links}
    if not entries:
        return sorted(found.values())
    owner = np.array([position for position, _ in entries])
    signs = np.stack([prints[p].signs[v] for p, v in entries]).astype(np.float32)
    texture = np.stack([prints[p].texture[v] for p, v in entries]).reshape(len(entries), -1)
    # Mirrored, the coefficients of odd horizontal frequency change their sign. With even and odd
    # ones apart, the better of both orientations and polarities is |even| + |odd|.
    odd = (np.arange(HASH_BITS) % (_LAST - _FIRST + 1) + _FIRST) % 2 == 1
    even_signs, odd_signs = signs[:, ~odd], signs[:, odd]
    least = HASH_BITS - 2 * HASH_DISTANCE
    tiles = (
        (top, left)
        for top in range(0, len(entries), block)
        for left in range(top, len(entries), block)
    )
    for top, left in tiles:
        agreement = even_signs[top : top + block] @ even_signs[left : left + block].T
        odd_agreement = odd_signs[top : top + block] @ odd_signs[left : left + block].T
        np.abs(agreement, out=agreement)
        agreement += np.abs(odd_agreement, out=odd_agreement)
        rows, columns = np.nonzero(agreement >= least)
        rows, columns = rows + top, columns + left
        chosen = (columns > rows) & (owner[rows] != owner[columns])
        for pair in _confirm(texture, owner, rows[chosen], columns[chosen]):
            key = (pair.first, pair.second)
            if key not in found or found[key].correlation < pair.correlation:
                found[key] = pair
    return sorted(found.values())


def clusters(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Positions that are joined by pairs, each group sorted, groups by their first position.

    Args:
        count: Number of pictures.
        pairs: Between positions below `count`.
    """
    parent = list(range(count))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    for pair in pairs:
        one, other = sorted(map(root, pair))
        parent[other] = one
    groups: dict[int, list[int]] = {}
    for position in range(count):
        groups.setdefault(root(position), []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _distinct(prints: Sequence[Fingerprint]) -> tuple[list[tuple[int, int]], list[Pair]]:
    """One (position, version) for every different texture, and links between equal pictures."""
    last: dict[bytes, int] = {}
    entries: list[tuple[int, int]] = []
    links: list[Pair] = []
    for position, picture in enumerate(prints):
        for version in range(len(picture.texture)):
            key = picture.texture[version].tobytes()
            if key not in last:
                entries.append((position, version))
            elif last[key] != position:
                links.append(Pair(last[key], position, 1.0, False, False))
            last[key] = position
    return entries, links


def _confirm(
    texture: npt.NDArray[np.int8],
    owner: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    *,
    chunk: int = 128,
) -> Iterable[Pair]:
    """The candidates whose textures correlate, in either orientation."""
    for start in range(0, len(rows), chunk):
        one = _unit(texture[rows[start : start + chunk]])
        other = _unit(texture[columns[start : start + chunk]])
        flipped = other.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(other.shape)
        both = np.stack([np.einsum("ij,ij->i", one, side) for side in (other, flipped)])
        mirrored = np.abs(both[1]) > np.abs(both[0])
        correlation = np.where(mirrored, both[1], both[0])
        for i in np.flatnonzero(np.abs(correlation) >= ALIKE):
            first, second = sorted((int(owner[rows[start + i]]), int(owner[columns[start + i]])))
            value = float(correlation[i])
            yield Pair(first, second, min(abs(value), 1.0), bool(mirrored[i]), value < 0)


def _unit(texture: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    values = texture.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
    values /= np.maximum(length, 1)
    return values


def _texture(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Ranks of the grey values over their local contrast, (48, 48); None if there is none."""
    small = _means(image.shape[0]) @ image.astype(np.float32) @ _means(image.shape[1]).T
    low, high = float(small.min()), float(small.max())
    if not high - low > 1e-6 * max(abs(low), abs(high)):
        return None
    # 256 levels: finer differences in a black margin are the compression's, not the patient's.
    levels = np.rint((small - low) * (255 / (high - low))).astype(np.int64)
    counts = np.bincount(levels.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - counts / 2) / levels.size)[levels]
    detail = ranks - _blurred(ranks)
    contrast = np.sqrt(np.maximum(_blurred(detail * detail), 0))
    return np.asarray(detail / (contrast + _FLOOR), dtype=np.float32)


def _blurred(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over 5 × 5 places, the edge repeated."""
    width = 2 * _RADIUS + 1
    for axis in (0, 1):
        padding = [(_RADIUS, _RADIUS) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, padding, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=axis)
        values = windows.mean(axis=-1)
    return values


def _without_margins(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The picture without the uniform rows and columns around it."""
    rows, columns = np.ptp(image, axis=1), np.ptp(image, axis=0)
    least = _MARGIN * float(image.max() - image.min())
    high, wide = np.flatnonzero(rows > least), np.flatnonzero(columns > least)
    if not len(high) or not len(wide):
        return image
    return image[high[0] : high[-1] + 1, wide[0] : wide[-1] + 1]


@functools.lru_cache(maxsize=256)
def _means(length: int) -> npt.NDArray[np.float32]:
    """Area means of `length` pixels as a matrix (48, length); a pixel on a border counts partly."""
    edges = np.linspace(0, length, SIDE + 1)
    places = np.arange(length)
    covered = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return np.asarray(np.maximum(covered, 0) * (SIDE / length), dtype=np.float32)


@functools.cache
def _cosines() -> npt.NDArray[np.float32]:
    """The cosine transform's rows of middle frequency, (11, 48)."""
    places, frequencies = np.arange(SIDE), np.arange(_FIRST, _LAST + 1)
    turned = np.cos(np.pi * (places + 0.5) * frequencies[:, None] / SIDE)
    return np.asarray(turned, dtype=np.float32)
