"""Is this the encoder that its card describes? Digest, card, and a known image's embedding."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cxr_foundation import catalog
from cxr_foundation.catalog import Checkpoint, HubCard
from cxr_foundation.contract import InputContract
from cxr_foundation.errors import (
    CardError,
    CheckpointError,
    ContractError,
    HashMismatch,
    UnknownName,
)
from cxr_foundation.files import sha256_of
from cxr_foundation.images import phantom
from cxr_foundation.images.processor import Processor
from cxr_foundation.models import loading
from cxr_foundation.models.config import read_config, weights_of

__all__ = ["Check", "Verdict", "golden_embedding", "verify"]

Status = Literal["pass", "fail", "unverified"]

# Between machines the order of sums differs, so bits do: these are what fp32 keeps to.
MIN_COSINE, MAX_NORM_ERROR = 0.9999, 1e-3


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: "card", "weights", "sha256" or "golden".
        status: "pass", "fail", or "unverified" if there is nothing to compare with.
        detail: What was found, for people.
    """

    name: str
    status: Status
    detail: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        subject: The name or folder.
        checks: In the order in which they were made.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """A fail if any check fails; a pass only if the golden embedding was compared."""
        statuses = {c.name: c.status for c in self.checks}
        if "fail" in statuses.values():
            return "fail"
        return "pass" if statuses.get("golden") == "pass" else "unverified"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON types."""
        return {
            "subject": self.subject,
            "status": self.status,
            "checks": [dataclasses.asdict(c) for c in self.checks],
        }

    def lines(self) -> list[str]:
        """The verdict for people, one check a line."""
        ends = {
            "pass": "pass",
            "fail": "FAIL: this is not what the card describes",
            "unverified": "weights unverified: the card has no golden embedding to compare with",
        }
        found = [f"{c.name:8} {c.status:10} {c.detail}" for c in self.checks]
        return [*found, f"{self.subject}: {ends[self.status]}"]


def golden_embedding(model: nn.Module, contract: InputContract) -> npt.NDArray[np.float32]:
    """The embedding of the drawn phantom: float32 (D,).

    Args:
        model: An encoder, put in eval mode; float32 is what golden embeddings are made with.
        contract: What it was fed.

    Raises:
        ContractError: The contract is incomplete.
    """
    pixels = Processor(contract).prepare(phantom.draw())[None]
    with torch.inference_mode():
        embedding: npt.NDArray[np.float32] = model.eval()(pixels)[0].float().numpy()
    return embedding


def verify(name_or_dir: str | os.PathLike[str]) -> Verdict:
    """Check weights against their card.

    Args:
        name_or_dir: A card of the catalogue, whose weights are fetched if need be, or a published
            folder.

    Raises:
        UnknownName: No such card.
        SourceError: The weights cannot be had, so there is nothing to check.
    """
    subject = os.fspath(name_or_dir)
    folder = Path(name_or_dir)
    if folder.is_dir():
        return Verdict(subject, tuple(_folder_checks(folder)))
    return Verdict(subject, tuple(_name_checks(catalog.checkpoint(subject))))


def _name_checks(record: Checkpoint) -> list[Check]:
    checks = [Check("card", "pass", str(record.path))]
    try:
        weights = loading.weights_path(record)
        model = loading.create_model(record.name, pretrained_cfg_overlay={"file": str(weights)})
    except HashMismatch as error:
        return [*checks, Check("sha256", "fail", str(error))]
    except CheckpointError as error:
        return [*checks, Check("weights", "fail", str(error))]
    checks.append(Check("weights", "pass", "every tensor of the encoder is set"))
    promised = record.source.sha256
    if promised is None:
        checks.append(Check("sha256", "unverified", "the card has none"))
    else:
        checks.append(Check("sha256", "pass", promised))
    return [*checks, _golden(model, record.contract, record)]


def _folder_checks(folder: Path) -> list[Check]:
    checks, record = [], None
    try:
        card = catalog.read_card(folder)
        known = not isinstance(card, HubCard)
        record = card if isinstance(card, Checkpoint) else None
        detail = "valid" if known else "states no facts for loading"
        checks.append(Check("card", "pass" if known else "unverified", detail))
    except (CardError, OSError) as error:
        checks.append(Check("card", "fail", str(error)))
    try:
        config, model = read_config(folder), loading.load(folder)
    except (CheckpointError, ContractError, UnknownName) as error:
        return [*checks, Check("weights", "fail", str(error))]
    checks.append(Check("weights", "pass", "every tensor of the encoder is set"))
    # A card that points to its authors' file has that file's digest, not this one's.
    published = record is not None and record.source.published
    promised = record.source.sha256 if record is not None and published else None
    if promised is None:
        checks.append(Check("sha256", "unverified", "the card has none of this file"))
    else:
        found = sha256_of(weights_of(folder))
        same = found == promised
        detail = found if same else f"{found} where the card gives {promised}"
        checks.append(Check("sha256", "pass" if same else "fail", detail))
    contract = config.contract
    if record is not None and contract != record.contract:
        checks.append(Check("contract", "fail", "config.json and the card differ"))
    if record is None or contract is None:
        return [*checks, Check("golden", "unverified", "the folder has no card with facts")]
    return [*checks, _golden(model, contract, record)]


def _golden(model: nn.Module, contract: InputContract, record: Checkpoint) -> Check:
    golden = record.golden
    if golden is None:
        return Check("golden", "unverified", "the card has no golden embedding")
    if golden.phantom != phantom.NAME:
        detail = f"made with {golden.phantom}, which this version does not draw"
        return Check("golden", "unverified", detail)
    found = golden_embedding(model, contract).astype(np.float64)
    known = np.asarray(golden.embedding, dtype=np.float64)
    if found.shape != known.shape:
        return Check("golden", "fail", f"{found.size} features where the card has {known.size}")
    norms = np.linalg.norm(found), np.linalg.norm(known)
    cosine = float(found @ known / max(float(norms[0] * norms[1]), 1e-30))
    error = float(abs(norms[0] / max(float(norms[1]), 1e-30) - 1))
    good = cosine >= MIN_COSINE and error <= MAX_NORM_ERROR
    detail = f"cosine {cosine:.6f} (at least {MIN_COSINE}), norm off by {error:.1e}"
    return Check("golden", "pass" if good else "fail", detail)
