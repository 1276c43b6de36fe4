"""Checkpoints that are known to be whole."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from cxr_foundation.files import atomic_write, sha256_of

__all__ = ["newest", "seal"]

_SEAL = "complete.json"
_log = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Write down what a finished checkpoint holds; one without it was cut off while written."""
    files = {f.name: sha256_of(f) for f in checkpoint.iterdir() if f.name != _SEAL}
    with atomic_write(checkpoint / _SEAL) as path:
        path.write_text(json.dumps(files, indent=1, sort_keys=True))


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; None if there is none.

    Damaged ones are passed over with a warning.
    """
    numbered = [(int(p.name.rpartition("-")[2]), p) for p in folder.glob("checkpoint-*[0-9]")]
    for _, checkpoint in sorted(numbered, reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint
        _log.warning("%s is passed over: %s", checkpoint, fault)
    if numbered:
        _log.warning("%s holds no whole checkpoint: training starts again", folder)
    return None


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
