"""Radiographs as the training loop reads them: brought to one size once, then drawn in views."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from cxr_foundation.contract import InputContract
from cxr_foundation.data import Sample, Study
from cxr_foundation.data.sample import source_of
from cxr_foundation.errors import (
    BadLabels,
    BadShard,
    ContractError,
    CxrError,
    ImageError,
    RecipeError,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.images.colour import prepare_colour
from cxr_foundation.images.processor import Processor
from cxr_foundation.pretrain.views import Views

__all__ = ["Batches", "Pictures", "class_numbers", "data_digest"]

_log = logging.getLogger(__name__)

# Pictures in a row that are tried in the place of one that cannot be read.
_TRIED = 20


class Pictures(Dataset[tuple[int, int]]):
    """The pictures of a run; an item is only its (epoch, number), since views are made by batch.

    Args:
        studies: The radiographs, in the order that numbers them.
        contract: Decides intensity and aspect.
        size: (height, width) that each picture is brought to.
        bits: 8 or 16 per pixel.
        in_memory: Read all now, or each whenever it is asked for.
        colour: Read red, green and blue of natural pictures; radiographs are grey.
        classes: Labels that a method tells apart; none for methods without labels.
        bad: What `stand_ins` does about a picture that cannot be read; read now, it is an "error"
            at once.

    Raises:
        ContractError: Colour pictures are asked for, but from shards or with an intensity rule
            that is for radiographs.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        contract: InputContract,
        size: tuple[int, int],
        bits: int,
        in_memory: bool,
        colour: bool = False,
        bad: Literal["error", "skip"] = "error",
        classes: Sequence[str] = (),
    ) -> None:
        self.studies = studies
        self.epoch = 0
        self._colour = colour
        self._bad = bad
        self._unreadable: set[int] = set()
        self._dtype = {8: torch.uint8, 16: torch.uint16}[bits]
        self._size = size
        self.classes = class_numbers(studies, classes) if classes else None
        groups = {group: i for i, group in enumerate(dict.fromkeys(s.group for s in studies))}
        self.patients = torch.tensor([groups[s.group] for s in studies])
        # In [0, 1] and one channel: mean and std come after the views.
        self._contract = dataclasses.replace(
            contract, channels=1, size=size, resize=None, mean=(0.0,), std=(1.0,)
        )
        if colour and any(isinstance(study, Sample) for study in studies):
            raise ContractError(
                "data.colour", "shards hold grey pictures", "Name the folder of the pictures."
            )
        self._all = self._read(range(len(studies)), progress=True) if in_memory else None

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.epoch, index

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate when an epoch starts."""
        self.epoch = epoch

    def take(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 or uint16 over the full range: (N, H, W), or (N, 3, H, W) in colour.

        Raises:
            ImageError: A picture that cannot be read, by name.
        """
        if self._all is None:
            return self._read(indices, progress=False)
        return self._all[torch.as_tensor(indices)]

    def stand_ins(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """As `take`; with `bad` "skip" the next one stands in for a picture that cannot be read.

        Returns:
            The pictures, and their numbers.
        """
        if self._bad == "error":
            return self.take(indices), list(indices)
        found = [self._readable(index) for index in indices]
        return torch.stack([picture for picture, _ in found]), [number for _, number in found]

    def _readable(self, index: int) -> tuple[torch.Tensor, int]:
        last: CxrError | None = None
        for ahead in range(_TRIED):
            number = (index + ahead) % len(self)
            if number in self._unreadable:
                continue
            try:
                return self.take([number])[0], number
            except (ImageError, BadShard) as error:
                self._unreadable.add(number)
                _log.warning("left out: %s", error)
                last = error
        raise last or RecipeError(
            "data.bad", f"none of {_TRIED} pictures in a row can be read", "Look at the data first."
        )

    def _read(self, indices: Sequence[int], *, progress: bool) -> torch.Tensor:
        channels = (3,) if self._colour else ()
        pictures = torch.empty(len(indices), *channels, *self._size, dtype=self._dtype)
        full = torch.iinfo(self._dtype).max
        for row, index in enumerate(
            tqdm(indices, desc="Reading radiographs", unit="image", disable=not progress)
        ):
            try:
                values = self._prepared(self.studies[index])
            except (ImageError, BadShard) as error:
                if not progress or self._bad == "error":
                    raise
                self._unreadable.add(index)
                _log.warning("left out: %s", error)
                continue
            pictures[row] = values.mul(full).round_().to(self._dtype)
        return pictures

    def _prepared(self, study: Study) -> torch.Tensor:
        """float32 (H, W) or (3, H, W) in [0, 1]."""
        if self._colour:
            return prepare_colour(study.path, self._contract)
        source, contract = source_of(study, self._contract)
        return Processor(contract).prepare(source)[0]


class Batches:
    """Turns (epoch, number) items into what a step takes.

    A picture that cannot be read is handed on as {"refused": error}: an exception that crosses a
    worker's border would lose its kind.

    Args:
        pictures: The radiographs.
        views: One for each view that the method takes, in order.
    """

    def __init__(self, pictures: Pictures, views: Sequence[Views]) -> None:
        self._pictures = pictures
        self._views = views

    def __call__(self, items: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Make a step's input.

        Returns:
            "views", list of float32 (N, C, h, w); "draw", a seed that is equal for equal (seed,
            epoch, first picture); "patients", int64 (N,); "classes" likewise, for methods that
            learn from labels; "skipped", the numbers of the pictures
            that others stand in for.
        """
        return self.viewed(self.read(items))

    def read(self, items: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """The pictures of a step, which `viewed` makes its input of: there, or on a GPU."""
        epoch, indices = items[0][0], [index for _, index in items]
        try:
            pictures, taken = self._pictures.stand_ins(indices)
        except CxrError as error:
            return {"refused": error}
        classes = self._pictures.classes
        source = np.random.Philox(key=[self._views[0].seed, 1], counter=[0, 0, indices[0], epoch])
        return {
            "pictures": pictures,
            "epoch": epoch,
            "indices": indices,
            "draw": int(np.random.Generator(source).integers(2**62)),
            "patients": self._pictures.patients[taken],
            **({} if classes is None else {"classes": classes[taken]}),
            "skipped": [i for i, other in zip(indices, taken, strict=True) if i != other],
        }

    def viewed(self, read: dict[str, Any]) -> dict[str, Any]:
        """See `__call__`; the views are made where the pictures lie."""
        if "refused" in read:
            return read
        pictures, epoch, indices = read["pictures"], read["epoch"], read["indices"]
        views = [
            make(pictures, epoch=epoch, indices=indices, view=i)
            for i, make in enumerate(self._views)
        ]
        kept = ("draw", "patients", "classes", "skipped")
        return {"views": views, **{name: read[name] for name in kept if name in read}}


def class_numbers(studies: Sequence[Study], classes: Sequence[str]) -> torch.Tensor:
    """int64 (N,): which one of the classes a radiograph is labelled with, -1 for none or several.

    Raises:
        BadLabels: A class that no radiograph has alone.
    """
    numbers = []
    for study in studies:
        own = [i for i, name in enumerate(classes) if name in study.labels]
        numbers.append(own[0] if len(own) == 1 else -1)
    for i, name in enumerate(classes):
        if i not in numbers:
            raise BadLabels("method.classes", f"no radiograph is labelled {name!r} alone")
    return torch.tensor(numbers)


def data_digest(studies: Sequence[Study]) -> str:
    """SHA-256 over the files' own SHA-256, in order; no name and no identifier enters it.

    Of a sample in a shard it is its picture's, which its reader holds it to.
    """
    digest = hashlib.sha256()
    for study in tqdm(studies, desc="Hashing radiographs", unit="image", leave=False):
        known = study.sha256 if isinstance(study, Sample) else ""
        digest.update(bytes.fromhex(known or sha256_of(study.path)))
    return digest.hexdigest()
