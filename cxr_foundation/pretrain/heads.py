"""Heads of self-supervised methods, with weights that depend on a generator alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn

__all__ = ["drawn_from", "mlp"]


@contextlib.contextmanager
def drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Modules that are built inside take their weights from `generator`.

    torch's initialisations draw from its global generator; that one is put back as it was.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(
    widths: Sequence[int],
    *,
    norm: bool = False,
    last_norm: Literal["none", "plain", "affine"] = "none",
    activation: Callable[[], nn.Module] = nn.ReLU,
    bias: bool = True,
) -> nn.Sequential:
    """Linear layers with an activation between them, as torch initialises them.

    Args:
        widths: Of the input, the hidden layers and the output.
        norm: Batch norm before each activation.
        last_norm: Batch norm after the last layer: "plain" has no weights of its own.
        activation: Makes the activation.
        bias: Of the linear layers.
    """
    layers: list[nn.Module] = []
    for i, (width, following) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(width, following, bias=bias))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(following)] if norm else []
            layers.append(activation())
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_norm == "affine"))
    return nn.Sequential(*layers)
