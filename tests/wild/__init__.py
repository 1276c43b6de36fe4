"""Checkpoints as other projects write them, one module for each family, with their own features.

Each `Standin` writes a file in a layout and gives back what the original network computes from
pictures. Where the project's own classes are on PyPI they make the network and the file; else the
names and sizes come from a list in `keys/`, whose head says where they were read, and the values
from a network of the same definition, in the order of the list and not by name. Nothing here
knows a KeyMap.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Features = Callable[[Tensor], Tensor]
"""Pictures (B, C, H, W) → pooled features (B, D) of the original network."""

KEYS = Path(__file__).resolve().parent / "keys"


@dataclasses.dataclass(frozen=True)
class Case:
    """One network that a stand-in can be written for.

    Attributes:
        network: Stock timm name that the conversion has to find.
        args: Arguments that it has to find, `in_chans` among them.
        size: Height and width of the pictures that features are compared on, in pixels.
    """

    network: str
    args: Mapping[str, Any]
    size: int


@dataclasses.dataclass(frozen=True)
class Standin:
    """A checkpoint as one project writes it.

    Attributes:
        name: Unique: "moco", "moco_lightning".
        layout: Name in `convert.layouts`.
        truth: What writes it: "torchvision 0.29: ResNet", or the file in `keys/`.
        cases: Networks, the smallest first.
        write: (path, case) → features of the network that was written.
        takes: Which encoder has to be asked for; None: the layout's own rule.
    """

    name: str
    layout: str
    truth: str
    cases: tuple[Case, ...]
    write: Callable[[Path, Case], Features]
    takes: str | None = None


STANDINS: dict[str, Standin] = {}


def standin(
    *, layout: str, truth: str, cases: tuple[Case, ...], takes: str | None = None
) -> Callable[[Callable[[Path, Case], Features]], Callable[[Path, Case], Features]]:
    """Register the function as the writer of a stand-in that has the function's name."""

    def register(write: Callable[[Path, Case], Features]) -> Callable[[Path, Case], Features]:
        name = write.__name__
        assert name not in STANDINS, name
        STANDINS[name] = Standin(name, layout, truth, cases, write, takes)
        return write

    return register


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, tokens and statistics that no two layers share, kept in a sound range."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                if name.endswith("num_batches_tracked"):
                    tensor.fill_(1000 + seed)
                continue
            noise = torch.randn(tensor.shape, generator=g)
            if name.endswith("running_var"):
                tensor.copy_(noise.abs() * 0.5 + 0.5)
            elif tensor.ndim <= 1:
                one = 1.0 if name.endswith(("weight", "gamma", "lambda1")) else 0.0
                tensor.copy_(one + 0.1 * noise)
            elif tensor.ndim == 3:
                tensor.copy_(0.1 * noise)  # tokens and positions
            else:
                tensor.copy_(noise / math.sqrt(tensor[0].numel()))
    return network.eval()


def read_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Sizes by name, in the order of `keys/NAME.txt`.

    A line is "name size size …" ("name" alone is a scalar). "@repeat N 0 11" … "@end" repeats the
    lines between, with N replaced by each number in turn; repeats do not nest. "#" begins a
    comment, and the head has to say where the list was read.
    """
    text = (KEYS / f"{name}.txt").read_text()
    assert "https://" in text.partition("\n\n")[0], f"{name}: the head names no source"
    keys: dict[str, tuple[int, ...]] = {}
    block: list[str] | None = None
    letter, first, last = "", 0, 0
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "@repeat":
            letter, first, last, block = words[1], int(words[2]), int(words[3]), []
        elif words[0] == "@end":
            for n in range(first, last + 1):
                for held in block or []:
                    _add(keys, re.sub(rf"\b{letter}\b", str(n), held))
            block = None
        elif block is not None:
            block.append(" ".join(words))
        else:
            _add(keys, " ".join(words))
    return keys


def _add(keys: dict[str, tuple[int, ...]], line: str) -> None:
    name, *sizes = line.split()
    assert name not in keys, name
    keys[name] = tuple(int(s) for s in sizes)


def filled(
    keys: Mapping[str, tuple[int, ...]], networks: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors for a list of names: below each prefix the values of a state, in its order.

    Args:
        keys: As `read_keys` gives them.
        networks: Regular expression for the names that a state's tensors take → the state. Their
            number and sizes have to agree, one by one. All other names get random values.
    """
    g = torch.Generator().manual_seed(len(keys))
    state = {name: 0.1 * torch.randn(size, generator=g) for name, size in keys.items()}
    for pattern, held in networks.items():
        names = [name for name in keys if re.fullmatch(pattern, name)]
        assert len(names) == len(held), f"{pattern}: {len(names)} names, {len(held)} tensors"
        for name, (own, tensor) in zip(names, held.items(), strict=True):
            assert keys[name] == tuple(tensor.shape), f"{name} {keys[name]}: {own} {tensor.shape}"
            state[name] = tensor.clone()
    return state


def pooled(network: nn.Module) -> Features:
    """Features of a timm network without a head, or of a torchvision one without its last layer."""

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = network(pictures)
        return found

    return features


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
