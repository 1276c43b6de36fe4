"""What can be told without seeing a lung: features that no encoder may lose against.

Labels leak into a radiograph's frame, size and header: wards have their own machines, views and
patients. A result counts only where it exceeds these rows, on the same images and labels.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cxr_foundation.evaluate.metrics import auroc
from cxr_foundation.evaluate.probe import probe_scores

__all__ = [
    "BORDER",
    "FEWEST",
    "FOLDS",
    "SIDE",
    "ShortcutScore",
    "border",
    "metadata",
    "raw_pixels",
    "shortcut_scores",
    "thumbnails",
]

SIDE = 32
"""Pixels a side of a thumbnail."""

BORDER = 4
"""Width of the frame in pixels of the thumbnail: an eighth of the picture on each side."""

FOLDS = 5
"""Parts that patients are put into for `shortcut_scores`; each is scored by a fit on the others."""

FEWEST = 20
"""Patients of each class below which `shortcut_scores` gives no figure."""

# An age is brought near [-2, 2] before it stands beside indicators; the probe rescales it anyway.
_AGE_CENTRE, _AGE_SCALE = 50.0, 25.0


def thumbnails(images: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Each radiograph at 32 × 32, antialiased, squashed.

    Args:
        images: (H, W) in [0, 1], of any sizes; read one after another.

    Returns:
        float32 (N, 32, 32).
    """
    import torch
    from torch.nn.functional import interpolate

    small = [
        interpolate(
            torch.from_numpy(np.array(image, dtype=np.float32))[None, None],
            size=(SIDE, SIDE),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )[0, 0].numpy()
        for image in images
    ]
    return np.stack(small) if small else np.zeros((0, SIDE, SIDE), dtype=np.float32)


def raw_pixels(small: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Thumbnails (N, 32, 32) as features (N, 1024)."""
    return small.reshape(len(small), SIDE * SIDE)


def border(small: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The outer frame of thumbnails (N, 32, 32) as features (N, 448): no lung is in it."""
    frame = np.ones((SIDE, SIDE), dtype=bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return small[:, frame]


def metadata(
    *,
    sizes: Sequence[tuple[int, int]],
    views: Sequence[str],
    sexes: Sequence[str],
    ages: Sequence[float | None],
) -> npt.NDArray[np.float64]:
    """What is known beside the pixels, as numbers.

    Args:
        sizes: N (width, height) in pixels, of the original picture where known.
        views: N words such as "PA", "AP"; an empty one is a value like any other.
        sexes: N words.
        ages: N ages in years, None where unknown.

    Returns:
        float64 (N, 4 + V + S): logarithm of the area, of the aspect, age (0 where unknown), whether
        the age is known, one indicator per view, one per sex; indicators in alphabetical order.
    """
    wide, high = np.asarray(sizes, dtype=np.float64).reshape(-1, 2).T
    known = np.array([age is not None for age in ages], dtype=np.float64)
    years = np.array([_AGE_CENTRE if age is None else age for age in ages], dtype=np.float64)
    columns = [np.log(wide * high), np.log(wide / high), (years - _AGE_CENTRE) / _AGE_SCALE, known]
    for words in (views, sexes):
        columns += [np.array([w == value for w in words]) for value in sorted(set(words))]
    return np.stack(columns, axis=1).astype(np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortcutScore:
    """How well a label is told without seeing a lung.

    Attributes:
        source: Data set that the pictures are from, or "".
        label: The finding; every other labelled picture of the source is without it.
        positive: Patients with it.
        negative: Patients without it.
        metadata: AUROC from size, aspect, view, sex and age alone; mean over folds.
        border: AUROC from the outer eighth of the picture alone; mean over folds.
    """

    source: str
    label: str
    positive: int
    negative: int
    metadata: float
    border: float


def shortcut_scores(
    labels: npt.NDArray[np.bool_],
    patients: Sequence[str],
    features: Mapping[str, npt.NDArray[np.floating]],
) -> dict[str, float] | None:
    """Cross-validated AUROC of a logistic probe on each kind of feature.

    Patients are put into five folds by a digest of their identifier, so the folds are the same for
    every label, feature and machine.

    Args:
        labels: (N,), True for the finding.
        patients: N patients.
        features: Name → (N, D).

    Returns:
        Name → AUROC, the mean over the folds that hold both classes; None if a class has fewer
        than 20 patients.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    for value in (True, False):
        if len({p for p, label in zip(patients, labels, strict=True) if label == value}) < FEWEST:
            return None
    folds = np.array([hashlib.sha256(p.encode()).digest()[0] % FOLDS for p in patients])
    found: dict[str, list[float]] = {name: [] for name in features}
    for fold in range(FOLDS):
        here = folds == fold
        if any(len(set(labels[side].tolist())) < 2 for side in (here, ~here)):
            continue
        for name, values in features.items():
            scores = probe_scores(values[here], values[~here], labels[~here])
            found[name].append(float(auroc(labels[here], scores)))
    return {name: float(np.mean(values)) for name, values in found.items()}
