"""Signs that features have collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

__all__ = ["collapse", "collapsed"]


def collapse(features: torch.Tensor) -> Mapping[str, float]:
    """How far features are from collapse.

    Args:
        features: (N, D), a batch.

    Returns:
        "feature_std": mean over dimensions of the standard deviation of unit-length features,
        times the root of D: about 1 if they fill the sphere, 0 if all are alike.
        "effective_rank": exponential of the entropy of the normalised singular values of the
        centred features (Roy & Vetterli 2007): 1 if they lie on a line.
    """
    unit = F.normalize(features.float(), dim=1)
    std = unit.std(0).mean() * unit.shape[1] ** 0.5
    values = torch.linalg.svdvals((features - features.mean(0)).float())
    share = values / values.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return {"feature_std": float(std), "effective_rank": float(entropy.exp())}


def collapsed(
    lines: Sequence[Mapping[str, float]],
    *,
    min_feature_std: float,
    min_rank: float,
    patience: int,
) -> str | None:
    """Why a run counts as collapsed; None while it does not.

    Args:
        lines: Log lines in their order, each with what `collapse` gives and its "step".
        min_feature_std: Least spread.
        min_rank: Least effective rank.
        patience: Lines in a row, the last one among them, that have to be below one of these.
    """
    last = lines[-patience:]
    if len(last) < patience:
        return None
    for key, limit, meaning in (
        ("feature_std", min_feature_std, "all radiographs get nearly the same features"),
        ("effective_rank", min_rank, "the features of all radiographs lie on a line"),
    ):
        if all(line[key] < limit for line in last):
            return (
                f"the features have collapsed: {key} is {last[-1][key]:.3g} at step "
                f"{last[-1]['step']:.0f} and was below {limit:g} in the last {patience} log lines, "
                f"so {meaning}"
            )
    return None
