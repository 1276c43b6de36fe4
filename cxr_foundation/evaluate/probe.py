"""Linear probe: logistic regression on frozen features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_foundation.errors import MissingExtra
from cxr_foundation.evaluate.features import standardise
from cxr_foundation.evaluate.metrics import binary_labels

__all__ = ["STRENGTH", "probe_scores", "require_sklearn"]

STRENGTH = 1.0
"""Fixed for all rows, so that none is tuned: prior variance of the log-odds, see `probe_scores`.

Of 0.01, 0.1, 1, 10 and 100 it was the best or within .04 of the best for raw pixels, border and an
untrained ResNet-18 at 5 to 50 labels per class on development splits of three public sets (Kermany
viral or bacterial, Shenzhen tuberculosis, NIH pneumonia).
"""


def require_sklearn() -> None:
    """Say early that scikit-learn is missing.

    Raises:
        MissingExtra: It is.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "scikit-learn",
            "is not installed, and the linear probe needs it",
            "pip install 'cxr-foundation-hub[transfer]'",
        ) from error


def probe_scores(
    features: npt.ArrayLike,
    train_features: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    *,
    strength: float = STRENGTH,
) -> npt.NDArray[np.float64]:
    """Log-odds of the positive class from an L2-penalised logistic regression.

    Features are standardised by the mean and standard deviation of the training rows. The penalty
    on the D weights is D / (2 * strength) times their squared length, that is scikit-learn's
    C = strength / D: the log-odds that a standardised image can get a priori have the variance
    `strength`, whatever the width of the features, so that one value serves encoders of all sizes
    and the shortcuts beside them.

    Args:
        features: (N, D), images to score.
        train_features: (M, D).
        train_labels: (M,) of 0 and 1.
        strength: Above 0; larger trusts the labels more.

    Returns:
        float64 (N,), log-odds.

    Raises:
        BadLabels: One class only among the training labels.
        MissingExtra: scikit-learn is not installed.
    """
    require_sklearn()
    from sklearn.linear_model import LogisticRegression

    positive = binary_labels(train_labels)
    train, other = standardise(train_features, features)
    width = train.shape[1]
    if len(train) < width:
        # An L2 penalty does not see rotations, and the solution lies in the span of the training
        # rows: the fit in their M coordinates is the same one and much faster.
        _, _, basis = np.linalg.svd(train, full_matrices=False)
        train, other = train @ basis.T, other @ basis.T
    fit = LogisticRegression(C=strength / width, solver="lbfgs", tol=1e-6, max_iter=10_000)
    fit.fit(train, positive)
    return np.asarray(fit.decision_function(other), dtype=np.float64)
