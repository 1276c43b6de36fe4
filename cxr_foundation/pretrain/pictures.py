"""Radiographs as the training loop reads them: brought to one size once, then drawn in views."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from cxr_foundation.contract import InputContract
from cxr_foundation.data import Sample, Study
from cxr_foundation.data.sample import source_of
from cxr_foundation.errors import CxrError
from cxr_foundation.files import sha256_of
from cxr_foundation.images.processor import Processor
from cxr_foundation.pretrain.views import Views

__all__ = ["Batches", "Pictures", "data_digest"]


class Pictures(Dataset[tuple[int, int]]):
    """The pictures of a run; an item is only its (epoch, number), since views are made by batch.

    Args:
        studies: The radiographs, in the order that numbers them.
        contract: Decides intensity and aspect.
        size: (height, width) that each picture is brought to.
        bits: 8 or 16 per pixel.
        in_memory: Read all now, or each whenever it is asked for.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        contract: InputContract,
        size: tuple[int, int],
        bits: int,
        in_memory: bool,
    ) -> None:
        self.studies = studies
        self.epoch = 0
        self._dtype = {8: torch.uint8, 16: torch.uint16}[bits]
        self._size = size
        groups = {group: i for i, group in enumerate(dict.fromkeys(s.group for s in studies))}
        self.patients = torch.tensor([groups[s.group] for s in studies])
        # In [0, 1] and one channel: mean and std come after the views.
        self._contract = dataclasses.replace(
            contract, channels=1, size=size, resize=None, mean=(0.0,), std=(1.0,)
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
        """uint8 or uint16 (N, H, W) over the full range.

        Raises:
            ImageError: A picture that cannot be read, by name.
        """
        if self._all is None:
            return self._read(indices, progress=False)
        return self._all[torch.as_tensor(indices)]

    def _read(self, indices: Sequence[int], *, progress: bool) -> torch.Tensor:
        pictures = torch.empty(len(indices), *self._size, dtype=self._dtype)
        full = torch.iinfo(self._dtype).max
        for row, index in enumerate(
            tqdm(indices, desc="Reading radiographs", unit="image", disable=not progress)
        ):
            source, contract = source_of(self.studies[index], self._contract)
            values = Processor(contract).prepare(source)[0]
            pictures[row] = values.mul(full).round_().to(self._dtype)
        return pictures


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
            epoch, first picture); "patients", int64 (N,).
        """
        epoch, indices = items[0][0], [index for _, index in items]
        try:
            pictures = self._pictures.take(indices)
        except CxrError as error:
            return {"refused": error}
        views = [
            make(pictures, epoch=epoch, indices=indices, view=i)
            for i, make in enumerate(self._views)
        ]
        source = np.random.Philox(key=[self._views[0].seed, 1], counter=[0, 0, indices[0], epoch])
        return {
            "views": views,
            "draw": int(np.random.Generator(source).integers(2**62)),
            "patients": self._pictures.patients[indices],
        }


def data_digest(studies: Sequence[Study]) -> str:
    """SHA-256 over the files' own SHA-256, in order; no name and no identifier enters it.

    Of a sample in a shard it is its picture's, which its reader holds it to.
    """
    digest = hashlib.sha256()
    for study in tqdm(studies, desc="Hashing radiographs", unit="image", leave=False):
        known = study.sha256 if isinstance(study, Sample) else ""
        digest.update(bytes.fromhex(known or sha256_of(study.path)))
    return digest.hexdigest()
