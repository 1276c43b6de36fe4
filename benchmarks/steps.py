"""A training step against the passes through the encoder that its method cannot do without.

    python benchmarks/steps.py [--batch 8] [--rounds 5] [--networks resnet50 vit_small_patch16_224]

MoCo v2 needs one pass with gradients and one without, of a batch each; GMML needs one with
gradients. What a step adds is heads, loss, masks, momentum and optimiser. lightly's MoCo runs in
the same rounds, on the same network and queue. By CPU time, on one thread; a ratio is the median
over rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import lightly.loss
import timm
import torch
import torch.nn.functional as F
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import nn

from cxr_foundation.pretrain.method import Method, methods
from cxr_foundation.pretrain.optimise import build_optimiser
from cxr_foundation.pretrain.recipe import TrainRecipe

SIDE, QUEUE = 224, 65536
RECIPE = TrainRecipe(epochs=1, batch=2, lr=1e-4, optimiser="sgd")

Step = Callable[[], None]


def network(name: str) -> nn.Module:
    """A network of one channel, without a head."""
    made: nn.Module = timm.create_model(name, in_chans=1, num_classes=0)
    return made.train()


def passes(encoder: nn.Module, images: torch.Tensor, *, without: int) -> Step:
    """One pass with gradients, and so many without."""

    def step() -> None:
        encoder(images).square().mean().backward()
        encoder.zero_grad()
        with torch.no_grad():
            for _ in range(without):
                encoder(images)

    return step


def ours(name: str, encoder: nn.Module, views: list[torch.Tensor], **settings: object) -> Step:
    """A whole step of one of our methods."""
    kind = methods()[name]
    method: Method = kind.build(
        encoder,
        settings=kind.Settings(**settings),
        view=(1, SIDE, SIDE),
        generator=torch.Generator().manual_seed(0),
    ).train()
    optimiser = build_optimiser(method, RECIPE, processes=1)

    def step() -> None:
        method(views[: kind.full_views], draw=1)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(progress=0.5)

    return step


def lightlys(encoder: nn.Module, views: list[torch.Tensor]) -> Step:
    """MoCo v2 as lightly's documentation puts it together."""
    width = encoder.num_features
    head = MoCoProjectionHead(width, width, 128)
    encoder_m, head_m = copy.deepcopy(encoder), copy.deepcopy(head)
    deactivate_requires_grad(encoder_m)
    deactivate_requires_grad(head_m)
    criterion = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, 128))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        update_momentum(encoder, encoder_m, m=0.999)
        update_momentum(head, head_m, m=0.999)
        query = head(encoder(views[0]))
        with torch.no_grad():
            key = head_m(encoder_m(views[1]))
        criterion(F.normalize(query, dim=1), F.normalize(key, dim=1)).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def compared(name: str, *, batch: int, rounds: int) -> dict[str, object]:
    """Ratios for one network."""
    views = [torch.randn(batch, 1, SIDE, SIDE) for _ in range(2)]
    plain = {"queue": QUEUE, "split_batch_norm": None}
    ways = {
        "passes of MoCo v2": passes(network(name), views[0], without=1),
        "MoCo v2": ours("moco_v2", network(name), views, **plain),
        "lightly's MoCo v2": lightlys(network(name), views),
        "passes of GMML": passes(network(name), views[0], without=0),
        "GMML": ours("gmml", network(name), views),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(rounds + 1):
        for way, step in ways.items():
            start = time.process_time()
            step()
            if round_:
                seconds[way].append(time.process_time() - start)
    found: dict[str, object] = {}
    for way, needed in (
        ("MoCo v2", "passes of MoCo v2"),
        ("lightly's MoCo v2", "passes of MoCo v2"),
        ("GMML", "passes of GMML"),
    ):
        ratios = [a / b for a, b in zip(seconds[way], seconds[needed], strict=True)]
        found[way] = {
            "ms": round(1e3 * statistics.median(seconds[way])),
            "ratio to the needed passes": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return found


def main() -> None:
    """Print milliseconds and ratios for every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vit_small_patch16_224"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = {
        name: compared(name, batch=options.batch, rounds=options.rounds)
        for name in options.networks
    }
    print(json.dumps({"batch": options.batch, **figures}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
