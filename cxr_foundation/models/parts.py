"""Parts of a table of features: `PartMaker` reads, prepares and embeds studies by their numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cxr_foundation._version import __version__
from cxr_foundation.contract import InputContract
from cxr_foundation.data.looking import Flagged, prepare
from cxr_foundation.data.sample import check_fits
from cxr_foundation.data.study import Study
from cxr_foundation.errors import DataError, ImageError
from cxr_foundation.images import Trust
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import loading
from cxr_foundation.models.encoding import Encoding, Precision, folded

__all__ = ["Part", "PartMaker", "Refused"]

Refused = tuple[str, str, str]
"""(path, kind of error, reason)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The rows of some consecutive studies.

    Attributes:
        paths: N names.
        features: float32 (N, D).
        refused: Those that are not among them.
        flagged: Those of them that a guard noticed something about.
    """

    paths: tuple[str, ...]
    features: torch.Tensor
    refused: tuple[Refused, ...]
    flagged: tuple[Flagged, ...] = ()


class PartMaker:
    """Reads, prepares and embeds studies by their numbers; one for each process that does so.

    Args:
        studies: All of them.
        model: Name in the catalogue, or a published folder.
        root: See `embed_table`.
        precision: See `Encoding`.
        batch_size: Radiographs per pass.
        device: See `Encoding`.
        trust: See `embed_table`.
        guarded: See `embed_table`.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        model: str,
        root: str | os.PathLike[str] | None,
        precision: Precision,
        batch_size: int,
        device: str | None,
        trust: Trust | None = None,
        guarded: bool = True,
    ) -> None:
        self.arguments = {
            "model": model,
            "root": root,
            "precision": precision,
            "batch_size": batch_size,
            "device": device,
            "trust": trust,
            "guarded": guarded,
        }
        self.studies = studies
        self._prepared = _Prepared(
            studies, loading.contract_of(model), root, trust=trust, guarded=guarded
        )
        is_folder = Path(model).is_dir()
        encoder = loading.load(model) if is_folder else loading.create_model(model, num_classes=0)
        self._sha256 = _digest(encoder.eval())
        self._encoding = Encoding(
            folded(encoder, _example(self._prepared.contract)), device=device, precision=precision
        )
        self._encoding.model.to(memory_format=self._encoding.layout)
        self.width = self._encoding(_example(self._prepared.contract)).shape[1]

    def plan(self) -> dict[str, Any]:
        """What the features depend on, apart from the data."""
        return {
            "model": self.arguments["model"],
            "weights_sha256": self._sha256,
            "contract": self._prepared.contract.to_dict(),
            "precision": self.arguments["precision"],
            "batch_size": self.arguments["batch_size"],
            "trust": self.arguments["trust"],
            "cxr_foundation": __version__,
            "torch": str(torch.__version__),
            "timm": version("timm"),
        }

    def parts(
        self, jobs: Sequence[tuple[int, range]], *, workers: int = 0
    ) -> Iterator[tuple[int, Part]]:
        """(number, part) of each job, in order; `workers` processes read ahead across parts."""
        size = int(str(self.arguments["batch_size"]))
        batches = [span[i : i + size] for _, span in jobs for i in range(0, len(span), size)]
        loader = iter(
            DataLoader(
                self._prepared,
                batch_size=None,
                sampler=batches,
                num_workers=workers,
                pin_memory=workers > 0 and self._encoding.device.type == "cuda",
            )
        )
        for number, span in jobs:
            paths: list[str] = []
            refused: list[Refused] = []
            flagged: list[Flagged] = []
            features = [torch.empty(0, self.width)]
            for _ in range(0, len(span), size):
                named, pixels, unusable, noticed = next(loader)
                paths += named
                refused += unusable
                flagged += noticed
                if named:
                    features.append(self._encoding(pixels)[: len(named)])
            part = Part(
                paths=tuple(paths),
                features=torch.cat(features),
                refused=tuple(refused),
                flagged=tuple(flagged),
            )
            yield number, part


class _Prepared(Dataset[Any]):
    """An item is a whole batch: N names, float32 (B, C, H, W), refused and flagged ones.

    The first N of B are the named ones, and the others zeros: a batch has its full size even if
    some of it was refused. Each other size would leave its own freed blocks, of a network's
    activations, with the allocator: a step of 5 % in memory, measured at batches of 32.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        contract: InputContract,
        root: str | os.PathLike[str] | None,
        *,
        trust: Trust | None,
        guarded: bool,
    ) -> None:
        # A contract with gaps is refused here, before a picture is looked at.
        Processor(contract)
        check_fits(studies, contract)
        self.studies, self.contract = studies, contract
        self._root = None if root is None else Path(root)
        self._trust, self._guarded = trust, guarded

    def __getitem__(
        self, numbers: range
    ) -> tuple[list[str], torch.Tensor, list[Refused], list[Flagged]]:
        names: list[str] = []
        refused: list[Refused] = []
        flagged: list[Flagged] = []
        pixels = torch.zeros(len(numbers), self.contract.channels, *self.contract.size)
        for number in numbers:
            name = f"number {number}"
            try:
                study = self.studies[number]
                name = self._name(study.path)
                one, reasons = prepare(
                    study, self.contract, trust=self._trust, guarded=self._guarded
                )
            except (DataError, ImageError) as error:
                refused.append((name, type(error).__name__, error.reason))
            else:
                pixels[len(names)] = one
                names.append(name)
                if reasons:
                    flagged.append(Flagged(name, reasons))
        return names, pixels, refused, flagged

    def _name(self, path: Path) -> str:
        inside = self._root is not None and path.is_relative_to(self._root)
        return path.relative_to(self._root).as_posix() if inside and self._root else str(path)


def _example(contract: InputContract) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, contract.channels, *contract.size, generator=generator)


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
