"""Signs that features have collapsed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

__all__ = ["collapse"]


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
