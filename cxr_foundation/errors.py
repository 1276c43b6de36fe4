"""Every error that the package raises for a user's input.

    CxrError
    ├── UnknownName              a model, tag, recipe or layout that does not exist
    ├── CardError                a model card that breaks the schema
    ├── CheckpointError
    │   ├── UnreadableCheckpoint not a checkpoint, or a damaged one
    │   ├── UnsafeCheckpoint     it names code; nothing of it was run
    │   ├── UnknownLayout        tensors were read, but no known layout fits
    │   └── KeyMismatch          the file does not set every tensor of the encoder
    ├── SourceError
    │   ├── SourceUnavailable    no network and no cached copy, or the server refused
    │   ├── GatedSource          the owner grants access first
    │   ├── AskTheAuthors        the file is only had by asking
    │   └── HashMismatch         other bytes than the card promises
    ├── ImageError
    │   ├── UnreadableImage      not a picture or DICOM, or a damaged one
    │   └── UnsupportedPixels    pixels that would have to be guessed at
    ├── DataError
    │   ├── NoImages             an empty folder or index
    │   ├── BadIndex             an index whose rows or columns are wrong
    │   ├── BadShard             a tar shard that is damaged, or holds what no shard may hold
    │   ├── BadLabels            one class only, or too few for the draw
    │   ├── PatientLeak          one patient on two sides of a split
    │   └── PictureLeak          one radiograph, or an altered copy, on two sides of a split
    ├── ContractError            an input contract that is incomplete or contradicts itself
    ├── RecipeError              a recipe with a wrong key or value
    ├── OutputError
    │   ├── OutputExists         nothing is ever overwritten unasked
    │   └── OutputFailed         disk full or not writable; nothing partial is left
    ├── PushRefused              a folder that must not be published as it is
    └── MissingExtra             an optional dependency is not installed

Each message is «subject: reason. remedy»: what was looked at, what is wrong with it, what to do.
"""

from __future__ import annotations

import os
import unicodedata

__all__ = [
    "AskTheAuthors",
    "BadIndex",
    "BadLabels",
    "BadShard",
    "CardError",
    "CheckpointError",
    "ContractError",
    "CxrError",
    "DataError",
    "GatedSource",
    "HashMismatch",
    "ImageError",
    "KeyMismatch",
    "MissingExtra",
    "NoImages",
    "OutputError",
    "OutputExists",
    "OutputFailed",
    "PatientLeak",
    "PictureLeak",
    "PushRefused",
    "RecipeError",
    "SourceError",
    "SourceUnavailable",
    "UnknownLayout",
    "UnknownName",
    "UnreadableCheckpoint",
    "UnreadableImage",
    "UnsafeCheckpoint",
    "UnsupportedPixels",
]


def _printable(text: str) -> str:
    """Drop control characters: a file's name or header must not drive the reader's terminal."""
    return "".join(c if c == " " or unicodedata.category(c)[0] not in "CZ" else "?" for c in text)


class CxrError(Exception):
    """Base of all errors of the package.

    Attributes:
        subject: What was looked at: a path, a name, a key.
        reason: What is wrong with it, without a final full stop.
        remedy: What the reader can do about it, one or two sentences.
    """

    remedy: str = ""

    def __init__(
        self, subject: str | os.PathLike[str], reason: str, remedy: str | None = None
    ) -> None:
        self.subject = _printable(os.fspath(subject))
        self.reason = _printable(reason.rstrip("."))
        if remedy is not None:
            self.remedy = _printable(remedy)
        super().__init__(f"{self.subject}: {self.reason}. {self.remedy}".rstrip())

    def __reduce__(self) -> tuple[type[CxrError], tuple[str, str, str]]:
        return type(self), (self.subject, self.reason, self.remedy)


class UnknownName(CxrError, LookupError):
    """A model, tag, recipe or layout that does not exist; the message names the closest ones."""

    remedy = "See cxr_foundation.list_models() or `cxr list`."


class CardError(CxrError):
    """A model card that breaks the schema; the subject is «file: key»."""

    remedy = "CONTRIBUTING.md lists the keys of a card."


class CheckpointError(CxrError):
    """A checkpoint that cannot be used."""


class UnreadableCheckpoint(CheckpointError):
    """A file that is not a checkpoint, or a damaged one."""

    remedy = "Fetch the file again; `cxr inspect FILE` says what it holds."


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint that names code; nothing of it was run."""

    remedy = "Do not open it with torch.load. Ask its authors for safetensors."


class UnknownLayout(CheckpointError):
    """Tensors were read, but no known layout fits them."""

    remedy = "`cxr inspect FILE` lists the keys; pass architecture= if you know the network."


class KeyMismatch(CheckpointError):
    """The file does not set every tensor of the encoder, or sets tensors that it does not have."""

    remedy = "Check that the architecture is the one that the file was trained with."


class SourceError(CxrError):
    """Weights that could not be fetched."""


class SourceUnavailable(SourceError):
    """No network and no cached copy, or the server refused."""

    remedy = "Try again with a network; a file that you already have: `cxr convert FILE OUT_DIR`."


class GatedSource(SourceError):
    """The owner grants access first."""

    remedy = "Accept the terms on the model's page, then log in with `hf auth login`."


class AskTheAuthors(SourceError):
    """The file is only had by asking its authors."""

    remedy = "`cxr show NAME` says how to ask; then `cxr convert FILE OUT_DIR`."


class HashMismatch(SourceError):
    """Other bytes than the card promises. They were not loaded."""

    remedy = "Delete the file and fetch it again; if it stays so, the source has changed."


class ImageError(CxrError):
    """A picture that cannot be used."""


class UnreadableImage(ImageError):
    """A file that is not a picture or DICOM, or a damaged one."""

    remedy = "Open the file in a viewer; export it again if it does not open there either."


class UnsupportedPixels(ImageError):
    """Pixels whose meaning would have to be guessed."""

    remedy = "Export the study as a FOR PRESENTATION image in an uncompressed transfer syntax."


class DataError(CxrError):
    """A data set that cannot be used."""


class NoImages(DataError):
    """An empty folder or index."""

    remedy = "Name a folder of DICOM, PNG, JPEG or TIFF files, or one with an index.csv."


class BadIndex(DataError):
    """An index whose rows or columns are wrong."""

    remedy = "README describes index.csv and splits.csv."


class BadShard(DataError):
    """A tar shard that is damaged or cut off, or holds what no shard may hold."""

    remedy = "Fetch it again, or make it again with `cxr shard`."


class BadLabels(DataError):
    """One class only, or too few labelled patients for the draw."""

    remedy = "Choose other labels, or ask for fewer labels per class."


class PatientLeak(DataError):
    """One patient on two sides of a split."""

    remedy = "Give all rows of one patient the same split_group."


class PictureLeak(DataError):
    """One radiograph, or an altered copy of it, on two sides of a split."""

    remedy = "`cxr audit DATA` lists all; drop one of each, or go on with --allow-leaks."


class ContractError(CxrError):
    """An input contract that is incomplete or contradicts itself."""

    remedy = "The model card's `contract` says what is known about the input."


class RecipeError(CxrError):
    """A recipe with a wrong key or value."""

    remedy = "Compare it with the recipes that ship in cxr_foundation/recipes."


class OutputError(CxrError):
    """Something that could not be written."""


class OutputExists(OutputError):
    """The output is already there; nothing is ever overwritten unasked."""

    remedy = "Choose another output, or remove this one."


class OutputFailed(OutputError):
    """The disk is full or not writable; nothing partial was left."""

    remedy = "Free some space or choose another place, then run it again."


class PushRefused(CxrError):
    """A folder that must not be published as it is."""

    remedy = "Mend the folder; `cxr verify DIR` checks it."


class MissingExtra(CxrError, ImportError):
    """An optional dependency is not installed."""
