"""Files of two encoders of one make: a student, and the teacher that follows it.

    {student: {module.backbone.*, module.head.*}, teacher: {…}, optimizer, epoch, args}

Self-distillation saves both, under the same names; which of them has which prefixes of
DistributedDataParallel differs from run to run.
"""

from __future__ import annotations

from collections.abc import Collection

from cxr_foundation.convert.keymap import ONLY, TRAINING_STATE, Drop, KeyMap, strip

__all__ = ["RULE", "bare", "encoders", "keymap"]

RULE = "the teacher, the running mean of the student; the only set of weights if there is no pair"
_PAIR = ("teacher", "student")


def bare(names: Collection[str], wrappers: tuple[str, ...]) -> set[str]:
    """Names without what is put around a network, as they would be whichever is taken."""
    return {strip(n, (*wrappers, "teacher.", "student.")) for n in names}


def encoders(names: Collection[str], wrappers: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the pair a file holds; of a file without a pair, its only set of weights."""
    first = {strip(n, wrappers).partition(".")[0] for n in names}
    return tuple(e for e in _PAIR if e in first) or (ONLY,)


def keymap(
    takes: str,
    *,
    wrappers: tuple[str, ...],
    drop: tuple[Drop, ...],
    select: str = "",
    rename: tuple[tuple[str, str], ...] = (),
) -> KeyMap:
    """The KeyMap that takes one of the pair and leaves out the other by name.

    Args:
        takes: "teacher", "student", or what `encoders` calls an only set of weights.
        wrappers: As in `KeyMap`, without the pair's names.
        drop: As in `KeyMap`, beside the other encoder and the training state.
        select: As in `KeyMap`.
        rename: As in `KeyMap`.
    """
    others = tuple(Drop(f"{e} encoder", rf"{e}\..+") for e in _PAIR if e != takes)
    return KeyMap(
        wrappers=(*wrappers, f"{takes}."),
        drop=(TRAINING_STATE, *others, *drop),
        select=select,
        rename=rename,
    )
