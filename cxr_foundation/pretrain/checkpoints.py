"""Checkpoints that are known to be whole."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from cxr_foundation.files import atomic_write, sha256_of

__all__ = ["keep", "newest", "seal"]

_SEAL = "complete.json"
_log = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Write down what a finished checkpoint holds; one without it was cut off while written."""
    files = {f.name: sha256_of(f) for f in checkpoint.iterdir() if f.name != _SEAL}
    with atomic_write(checkpoint / _SEAL) as path:
        path.write_text(json.dumps(files, indent=1, sort_keys=True))


def keep(folder: Path, count: int) -> None:
    """Remove all but the `count` checkpoints of the highest steps, whatever their files' times."""
    for _, checkpoint in _numbered(folder)[count:]:
        # Its seal goes first: half a checkpoint must not look whole.
        (checkpoint / _SEAL).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; None if there is none.

    Damaged ones are passed over with a warning.
    """
    numbered = _numbered(folder)
    for _, checkpoint in numbered:
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint
        _log.warning("%s is passed over: %s", checkpoint, fault)
    if numbered:
        _log.warning("%s holds no whole checkpoint: training starts again", folder)
    return None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints, whole or not, and their steps; the highest first."""
    found = [(p.name.rpartition("-")[2], p) for p in folder.glob("checkpoint-*") if p.is_dir()]
    return sorted(((int(step), p) for step, p in found if step.isdecimal()), reverse=True)


def _fault(checkpoint: Path) -> str | None:
    try:
        files = json.loads((checkpoint / _SEAL).read_text())
        return next(
            (f"{name} is damaged" for name in files if sha256_of(checkpoint / name) != files[name]),
            None,
        )
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, TypeError):
        return f"{_SEAL} is damaged"
