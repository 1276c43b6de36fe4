"""The records of the catalogue, one frozen dataclass for each part of a card. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cxr_foundation.contract import InputContract

__all__ = [
    "Checkpoint",
    "Conversion",
    "Evidence",
    "Golden",
    "HubCard",
    "Licences",
    "Result",
    "Source",
    "SourceKind",
    "Training",
    "Verified",
]

SourceKind = Literal["bundled", "hub", "url", "google_drive", "ask"]
Verified = Literal["bytes", "page", "secondhand"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Where a fact comes from.

    Attributes:
        verified: "bytes": read from bytes that were held; "page": from the authors' page or code;
            "secondhand": from anybody else.
        source: URL, file or paper.
        date: ISO date on which it was looked at.
    """

    verified: Verified
    source: str
    date: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where the authors' file is. Fields that a kind does not use are None.

    Attributes:
        kind: "bundled": `path` inside the package; "hub": `repo`, `revision`, `filename`; "url":
            `url`, `filename`; "google_drive": `file_id`, `filename`; "ask": only `how`. All but
            "ask" also use `sha256` and `size_bytes`.
        path: Folder inside `cxr_foundation/weights`.
        repo: Hugging Face repository id.
        revision: 40-digit commit.
        filename: File inside the repository (None: the repository is a published folder), or the
            name that the file is downloaded under.
        url: https address of the file.
        file_id: Google Drive id.
        sha256: 64 hex digits of the file, lower case; for a published folder of its
            `model.safetensors`.
        size_bytes: Size of the same file in bytes.
        how: What a user does to get the file ("ask"), or what to know about the download.
    """

    kind: SourceKind
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    filename: str | None = None
    url: str | None = None
    file_id: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    how: str | None = None

    @property
    def published(self) -> bool:
        """Whether the source is a published folder, which needs no conversion."""
        return self.kind == "bundled" or (self.kind == "hub" and self.filename is None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """How the file becomes an encoder.

    Attributes:
        layout: Name in `convert.layouts`; None for a published folder (`Source.published`), else
            None if no converter knows the file yet, which `Checkpoint.unknown` says.
        takes: Which of several encoders, by the layout's stated rule: "encoder_q", "teacher".
        ran_on_authors_file: Whether the conversion was ever run on the authors' own bytes.
    """

    layout: str | None
    takes: str | None
    ran_on_authors_file: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Licences:
    """Licences, in the Hub's spelling ("apache-2.0") or by their own name; None is unknown.

    Attributes:
        code: Of the authors' code.
        weights: Of the checkpoint; equals the card's top-level `license` (or, where that is
            "other", its `license_name`). While it is None the checkpoint must not be published.
        data: Of the radiographs that it was trained on.
    """

    code: str | None
    weights: str | None
    data: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the encoder was trained.

    Attributes:
        method: "MoCo v2", "DINOv2", "MAE", "supervised", …
        recipe: Name of a recipe of ours, or None.
        images: Number of radiographs; None if the sources do not say.
        data: Names of data sets; empty if unknown.
        overlaps: Public test sets whose images the encoder may have seen; empty if there are none,
            or if unknown, which `Checkpoint.unknown` says.
        labels_used_for_selection: Whether labels chose the checkpoint or the recipe.
    """

    method: str
    recipe: str | None
    images: int | None
    data: tuple[str, ...]
    overlaps: tuple[str, ...]
    labels_used_for_selection: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """The embedding of the drawn phantom in fp32.

    Attributes:
        phantom: Name of the phantom (`images.phantom.NAME`).
        embedding: Pooled features of the phantom, D float32 values (base64 in the card).
    """

    phantom: str
    embedding: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One measured figure.

    Attributes:
        task: "Shenzhen TB", "standing mean", …
        dataset: Data set and split: "cxr_small, test".
        setting: "20 labels per class, probe".
        metric: "AUROC", …
        value: The figure.
        interval: 95 % interval, or None if there is none.
        command: Command that anyone can run to get it.
    """

    task: str
    dataset: str
    setting: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    command: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All facts of one card.

    Attributes:
        name: "<architecture>.<weights>".
        architecture: A `cxr_*` name; in the card of a published folder, any network of timm's.
        title: One line for people.
        default: Whether the bare architecture name means this card.
        num_features: Length of the pooled embedding.
        source: Where the file is.
        conversion: How it becomes an encoder.
        contract: What it was fed.
        licences: Of code, weights and data.
        gating: None if anyone may fetch it, else what the owner asks for.
        training: How it was trained.
        citation: BibTeX or a one-line reference; None if there is none.
        results: Measured figures.
        golden: Embedding of the phantom; None without verified bytes.
        evidence: Fact key or prefix → where it comes from.
        unknown: Fact key → why it is null.
        path: The card's file; not part of what makes two records equal.
    """

    name: str
    architecture: str
    title: str
    default: bool
    num_features: int
    source: Source
    conversion: Conversion
    contract: InputContract
    licences: Licences
    gating: str | None
    training: Training
    citation: str | None
    results: tuple[Result, ...]
    golden: Golden | None
    evidence: Mapping[str, Evidence] = dataclasses.field(hash=False)
    unknown: Mapping[str, str] = dataclasses.field(hash=False)
    path: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def loadable(self) -> bool:
        """Whether `create_model(..., pretrained=True)` can fetch and load it without asking."""
        known = self.source.published or self.conversion.layout is not None
        return known and self.source.kind != "ask"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubCard:
    """A Hugging Face card that is not one of the catalogue: it has no `cxr_foundation` key.

    Attributes:
        license: The Hub's licence id, such as "mit" or "other".
        license_name: The licence's own name where `license` is "other".
        license_link: Where its text is.
        tags: The Hub's tags.
        path: The card's file.
    """

    license: str
    license_name: str | None
    license_link: str | None
    tags: tuple[str, ...]
    path: Path
