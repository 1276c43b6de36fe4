"""Runs that are asked to stop."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_foundation.pretrain import distributed

__all__ = ["StopSignals"]


class StopSignals(TrainerCallback):
    """Ends a run that is asked to stop (Ctrl-C, SIGTERM) after its step, with a checkpoint."""

    def __init__(self) -> None:
        self._caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        # Only the main thread may set handlers; elsewhere the signals stay the caller's.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self._caught is not None:
            raise KeyboardInterrupt
        self._caught = number

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop with a checkpoint, if any process was asked to."""
        # All stop after the same step, whichever of them was told.
        caught = distributed.highest(self._caught or 0)
        if caught:
            self._caught = caught
            control.should_save = True
            control.should_training_stop = True

    def leave(self) -> None:
        """Leave the process the way the signal would have."""
        if self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self._caught is not None:
            sys.exit(128 + self._caught)
