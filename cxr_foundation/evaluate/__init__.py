"""Scores for frozen features: protocol, metrics, intervals, neighbours, linear probe, shortcuts.

Everything here works on arrays; where they came from is the caller's business.
"""

from cxr_foundation.evaluate.intervals import Interval, PatientBootstrap, paired_bootstrap
from cxr_foundation.evaluate.knn import knn_scores
from cxr_foundation.evaluate.metrics import accuracy, auroc, balanced_accuracy
from cxr_foundation.evaluate.probe import probe_scores
from cxr_foundation.evaluate.views import (
    FindingScore,
    mean_auroc,
    over_views,
    score_examinations,
)

__all__ = [
    "FindingScore",
    "Interval",
    "PatientBootstrap",
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "knn_scores",
    "mean_auroc",
    "over_views",
    "paired_bootstrap",
    "probe_scores",
    "score_examinations",
]
