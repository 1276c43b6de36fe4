"""`prepare`: a study as a network's input, and what the guards say of it on the way.

A guard only ever speaks. Whether it is asked or not, the pixels and what is refused are the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxr_foundation.contract import InputContract
from cxr_foundation.data.sample import source_of
from cxr_foundation.data.study import Study
from cxr_foundation.errors import ImageError
from cxr_foundation.images import Trust, guard, read_pixels
from cxr_foundation.images.facts import Facts, read_facts
from cxr_foundation.images.header import is_dicom
from cxr_foundation.images.processor import Processor
from cxr_foundation.images.source import Pixels, read_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["Flagged", "Reasons", "counted", "prepare", "reasons_of"]

Reasons = tuple[tuple[str, str], ...]
"""(kind, in words) of each notice."""

# As much as `is_dicom` looks at.
_HEAD = 1024


class Flagged(NamedTuple):
    """A radiograph that was used, and that its reader should look at.

    Attributes:
        path: Its name, as in a list of refused ones.
        reasons: (kind, in words) of each notice, see `images.guard.Notice`; never empty.
    """

    path: str
    reasons: Reasons

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        reasons = [{"kind": kind, "reason": text} for kind, text in self.reasons]
        return {"path": self.path, "notices": reasons}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Flagged:
        """What `to_dict` was called on."""
        return cls(row["path"], tuple((n["kind"], n["reason"]) for n in row["notices"]))


def prepare(
    study: Study, contract: InputContract, *, trust: Trust | None = None, guarded: bool = True
) -> tuple[torch.Tensor, Reasons]:
    """A study as a contract asks for it, and what is noticed about it.

    Args:
        study: A file, or a sample of a shard.
        contract: What the network takes.
        trust: Of a DICOM file that contradicts itself about polarity, see `images.read_image`.
        guarded: Ask `images.guard` and the reader what they noticed: polarity, rotation, whether
            it is a frontal view, letters in the pixels. Pixels stay as they are.

    Returns:
        float32 (C, H, W), and (kind, in words) of each notice.

    Raises:
        BadShard, ImageError: It cannot be used.
        ContractError: A sample whose pixels were prepared otherwise than `contract` asks.
    """
    source, rest = source_of(study, contract)
    if not guarded:
        return Processor(rest, trust=trust).prepare(source), ()
    if isinstance(source, Path):
        pixels = read_pixels(source, voi=rest.intensity == "voi", trust=trust)
        facts = _facts(source)
    else:
        pixels, facts = Pixels(source), None
    prepared = Processor(rest).prepare(pixels)
    return prepared, reasons_of(pixels, facts)


def reasons_of(pixels: Pixels, facts: Facts | None = None) -> Reasons:
    """What a radiograph's reader should know: the file reader's notes and the guard's notices."""
    notes = (("contradiction", note) for note in pixels.notes)
    return (*notes, *((n.kind, n.text) for n in guard.examine(pixels.values, facts)))


def counted(flagged: Iterable[Flagged]) -> dict[str, int]:
    """How many radiographs each kind of notice was made of, most frequent first."""
    kinds = Counter(kind for one in flagged for kind in {k for k, _ in one.reasons})
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def _facts(path: Path) -> Facts | None:
    """A DICOM file's facts; None for a picture."""
    # What the reader of pixels took is not refused for its facts.
    with contextlib.suppress(ImageError, OSError):
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if is_dicom(head):
            return read_facts(path, read_bytes(path))
    return None
