"""The demo's two pictures: where a linear probe looks, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cxr_foundation.errors import NoImages
from cxr_foundation.images.guard import examine, may_be_shown

__all__ = ["class_activation", "neighbours_figure", "saliency_figure", "showable"]


def showable(pictures: Sequence[NDArray[np.float32]]) -> list[int]:
    """Places of the pictures (H, W) in [0, 1] that may be in a figure: those without letters."""
    return [i for i, picture in enumerate(pictures) if may_be_shown(examine(picture))]


def class_activation(
    encoder: nn.Module, pixel_values: torch.Tensor, direction: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """What each place of the last feature map adds to a linear probe's log-odds.

    Exact for an encoder whose embedding is the average of its last feature map: the mean of a map
    is the embedding's share of the log-odds. See Zhou et al. 2016, arXiv:1512.04150.

    Args:
        encoder: CNN with timm's `forward_features` and global average pooling.
        pixel_values: (B, C, H, W).
        direction: (D,), weights of the probe.

    Returns:
        float32 (B, h, w).
    """
    with torch.inference_mode():
        maps = encoder.forward_features(pixel_values)  # type: ignore[operator]
        weights = torch.as_tensor(direction, dtype=maps.dtype)
        return np.asarray(torch.einsum("bdhw,d->bhw", maps, weights), dtype=np.float32)


def saliency_figure(
    pictures: list[NDArray[np.float32]],
    activations: NDArray[np.float32],
    titles: list[str],
    path: Path,
) -> None:
    """Draw radiographs (H, W) above the same ones with their activation maps (h, w) laid over.

    One with letters in its pixels is left out.

    Raises:
        NoImages: None is left.
    """
    from matplotlib.figure import Figure

    places = _some(showable(pictures))
    pictures, titles = [pictures[i] for i in places], [titles[i] for i in places]
    activations = activations[places]
    figure = Figure(figsize=(1.9 * len(pictures), 4.4), layout="constrained")
    axes = figure.subplots(2, len(pictures), squeeze=False)
    # One scale for all, centred on zero: colours can be compared between pictures.
    limit = float(np.abs(activations).max()) or 1.0
    for column, (picture, activation) in enumerate(zip(pictures, activations, strict=True)):
        height, width = picture.shape
        small = torch.as_tensor(activation)[None, None]
        smooth = nn.functional.interpolate(small, size=(height, width), mode="bilinear")[0, 0]
        for row in range(2):
            axes[row, column].imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes[row, column].set_axis_off()
        shown = axes[1, column].imshow(
            smooth.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.45
        )
        axes[0, column].set_title(titles[column], fontsize=9)
    bar = figure.colorbar(shown, ax=axes[1, :].tolist(), fraction=0.03, pad=0.01)
    bar.set_label("share of the log-odds", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def neighbours_figure(
    pictures: list[NDArray[np.float32]],
    embeddings: NDArray[np.float32],
    labels: list[str],
    queries: list[int],
    path: Path,
    *,
    neighbours: int = 5,
) -> None:
    """Draw query radiographs and, beside each, its nearest ones by cosine similarity.

    One with letters in its pixels is neither a query nor a neighbour.

    Args:
        pictures: N radiographs (H, W) in [0, 1].
        embeddings: (N, D).
        labels: N labels, drawn above each picture.
        queries: Rows of the figure.
        path: PNG to write.
        neighbours: Pictures beside each query.

    Raises:
        NoImages: No query is left.
    """
    from matplotlib.figure import Figure

    may = set(showable(pictures))
    queries = _some([query for query in queries if query in may])
    centred = embeddings - embeddings.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    figure = Figure(figsize=(1.6 * (neighbours + 1), 1.9 * len(queries)), layout="constrained")
    axes = figure.subplots(len(queries), neighbours + 1, squeeze=False)
    for row, query in enumerate(queries):
        similarity = unit @ unit[query]
        order = [i for i in np.argsort(-similarity) if i != query and i in may][:neighbours]
        for axis in axes[row]:
            axis.set_axis_off()
        for column, index in enumerate([query, *order]):
            axis = axes[row, column]
            axis.imshow(pictures[index], cmap="gray", vmin=0, vmax=1)
            text = "query: " if column == 0 else f"{similarity[index]:.2f} "
            axis.set_title(text + labels[index], fontsize=8)
    figure.savefig(path, dpi=110)


def _some(places: list[int]) -> list[int]:
    if not places:
        reason = "every radiograph for it has letters in its pixels, which may name a patient"
        raise NoImages("figure", reason, "Choose other radiographs; `cxr check` tells which.")
    return places
