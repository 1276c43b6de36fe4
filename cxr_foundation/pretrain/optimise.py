"""Optimiser, parameter groups, schedules and clipping, as a recipe asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from timm.optim.lars import Lars
from torch import nn

from cxr_foundation.pretrain.momentum import cosine
from cxr_foundation.pretrain.recipe import TrainRecipe

__all__ = [
    "build_optimiser",
    "clip_gradients",
    "highest_rate",
    "learning_rate",
    "set_weight_decay",
]


def highest_rate(recipe: TrainRecipe, *, processes: int) -> float:
    """Learning rate at its highest, for the radiographs of one optimiser step."""
    if recipe.lr_for_batch is None:
        return recipe.lr
    return recipe.lr * recipe.batch * recipe.accumulate * processes / recipe.lr_for_batch


def learning_rate(
    step: int, *, total: int, warmup: int, recipe: TrainRecipe, floor: float = 0.0
) -> float:
    """Factor on the highest learning rate at `step` of `total`; a cosine ends at `floor`."""
    if step < warmup:
        return step / warmup
    if recipe.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def build_optimiser(
    model: nn.Module, recipe: TrainRecipe, *, processes: int
) -> torch.optim.Optimizer:
    """The optimiser of everything in `model` that has a gradient.

    What is not decayed is not adapted by LARS either (You et al. 2017, and Grill et al. 2020,
    arXiv 2006.07733, appendix C.1).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    every = recipe.decayed == "all"
    decayed = [p for p in parameters if every or p.ndim > 1]
    spared = [p for p in parameters if not every and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay, "decayed": True},
        {"params": spared, "weight_decay": 0.0, "decayed": False},
    ]
    groups = [group for group in groups if group["params"]]
    lr = highest_rate(recipe, processes=processes)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=recipe.betas)
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.sgd_momentum)
    for group in groups:
        # timm adapts only what is decayed unless told otherwise.
        group["always_adapt"] = group["decayed"]
    lars: torch.optim.Optimizer = Lars(groups, lr=lr, momentum=recipe.sgd_momentum)
    return lars


def set_weight_decay(
    optimiser: torch.optim.Optimizer, recipe: TrainRecipe, *, progress: float
) -> None:
    """Move the weight decay along its half cosine; `progress` in [0, 1]."""
    if recipe.weight_decay_end is None:
        return
    now = cosine(recipe.weight_decay, recipe.weight_decay_end, progress)
    for group in optimiser.param_groups:
        if group["decayed"]:
            group["weight_decay"] = now


def clip_gradients(parameters: Iterable[nn.Parameter], recipe: TrainRecipe) -> torch.Tensor:
    """Bound the gradients as the recipe says.

    Returns:
        The norm of all of them before, a scalar on their device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))
    if recipe.clip is not None:
        # 1e-6 as in torch.nn.utils.clip_grad_norm_.
        bounded = [total] * len(norms) if recipe.clip_by == "norm" else list(norms)
        scales = [(recipe.clip / (norm + 1e-6)).clamp(max=1.0) for norm in bounded]
        torch._foreach_mul_(gradients, scales)
    return total
