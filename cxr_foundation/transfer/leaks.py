"""No picture is both trained and scored on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_foundation.data import Study
from cxr_foundation.errors import PictureLeak
from cxr_foundation.evaluate.audit import copies
from cxr_foundation.evaluate.score import Plan
from cxr_foundation.images.likeness import Fingerprint

__all__ = ["check_pictures"]


def check_pictures(
    plans: Sequence[Plan],
    studies: Sequence[Study],
    prints: Sequence[Fingerprint],
    place: npt.NDArray[np.int64],
    *,
    allowed: bool,
) -> dict[str, Any]:
    """Whether patients or copies of a picture are on both sides of a task.

    Args:
        plans: The tasks.
        studies: N pictures that the tasks use.
        prints: Their N fingerprints.
        place: int64, position in the data set → position in `studies`.
        allowed: Go on with leaks, and record them.

    Returns:
        `allowed`, and per task that leaks: `patients`, how many are on both sides, and `pictures`,
        lists of files that show one radiograph on both sides.

    Raises:
        PictureLeak: A picture is, and leaks are not allowed.
    """
    groups = copies(prints)
    tasks: dict[str, Any] = {}
    for plan in plans:
        sides = [
            {int(place[row]) for row in side.rows.tolist()} for side in (plan.train, plan.test)
        ]
        shared = [
            [studies[i].path.name for i in group if i in sides[0] | sides[1]]
            for group in groups
            if all(side & set(group) for side in sides)
        ]
        if shared and not allowed:
            more = f", and {len(shared) - 1} more such pictures" if len(shared) > 1 else ""
            reason = f"{' and '.join(shared[0][:2])} show one radiograph, on both sides{more}"
            raise PictureLeak(f"task {plan.task.name!r}", reason)
        patients = set(plan.train.patients) & set(plan.test.patients)
        if shared or patients:
            tasks[plan.task.name] = {"patients": len(patients), "pictures": shared}
    return {"allowed": allowed, "tasks": tasks}
