"""Parts of a table of features, made by the actors of a Ray cluster (Ray Data)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from cxr_foundation.data.looking import Flagged
from cxr_foundation.data.study import Study
from cxr_foundation.models.parts import Part, PartMaker

__all__ = ["parts_by_ray"]


class _Actor:
    """Ray builds one per actor; the model is loaded once in each."""

    def __init__(self, studies: Sequence[Study], arguments: dict[str, Any]) -> None:
        # Ray shares the cores out among actors; each taking all of them would be slower.
        torch.set_num_threads(1)
        self._maker = PartMaker(studies, **arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """One job in, one part out, in types that Arrow knows."""
        (number,), (start,), (stop,) = (batch[k].tolist() for k in ("number", "start", "stop"))
        ((_, part),) = self._maker.parts([(number, range(start, stop))])
        return {
            "number": [number],
            "names": [json.dumps([part.paths, part.refused, part.flagged])],
            "features": [part.features.numpy().tobytes()],
        }


def parts_by_ray(
    maker: PartMaker, jobs: Sequence[tuple[int, range]], *, workers: int
) -> Iterator[tuple[int, Part]]:
    """(number, part) of each job, in the order in which they are finished.

    Args:
        maker: Whose arguments each actor gets; it computes nothing itself.
        jobs: (number, numbers of the studies).
        workers: Actors.
    """
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    items = [{"number": n, "start": span.start, "stop": span.stop} for n, span in jobs]
    made = ray.data.from_items(items).map_batches(
        _Actor,
        fn_constructor_args=(maker.studies, maker.arguments),
        batch_size=1,
        concurrency=min(workers, len(items)),
        num_gpus=1 if torch.cuda.is_available() and maker.arguments["device"] != "cpu" else 0,
    )
    for row in made.iter_rows():
        paths, refused, flagged = json.loads(row["names"])
        features = np.frombuffer(row["features"], np.float32).reshape(-1, maker.width)
        yield (
            int(row["number"]),
            Part(
                paths=tuple(paths),
                features=torch.from_numpy(features.copy()),
                refused=tuple((p, k, r) for p, k, r in refused),
                flagged=tuple(Flagged(p, tuple((k, r) for k, r in said)) for p, said in flagged),
            ),
        )
