"""Shards: `read_shard` for a tar of unknown origin, `Shards` for a folder that `shard` made.

A folder of shards has, for each `shard-000000.tar`, an index `shard-000000.jsonl` with one line
per sample (where its picture lies, its digest, its facts), and a `manifest.json` with the digests
of both. The tar files are what webdataset reads: `000000000.png` beside `000000000.json`.
"""

from __future__ import annotations

import bisect
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from cxr_foundation.data import tar
from cxr_foundation.data.sample import Sample, Settings, read_facts
from cxr_foundation.errors import BadShard, ContractError
from cxr_foundation.files import sha256_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT", "MANIFEST", "PLAN", "Shards", "is_sharded", "read_shard", "reading_order"]

MANIFEST, PLAN = "manifest.json", "plan.json"
FORMAT = "cxr shards 1"
_PICTURES = {"png", "jpg", "jpeg"}
_MAX_JSON = 2**26
_SHARD = re.compile(r"shard-[0-9]{6}\.tar")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_shard(path: str | os.PathLike[str]) -> list[Sample]:
    """Read a tar shard of unknown origin; all of it is checked before a sample is handed out.

    A sample is a PNG or JPEG and, if it has facts, a JSON object of the same name. Every picture
    is decoded once, so that a damaged one does not end an epoch in its middle.

    Args:
        path: An uncompressed tar file.

    Returns:
        The samples in their order. A sample without a patient is its own.

    Raises:
        BadShard: Damaged or cut off, links or devices, names outside the folder, files that are
            neither picture nor facts (pickles, arrays, DICOM), a key twice, facts without a
            picture, or facts that may identify a patient.
        UnreadableImage: A picture that is damaged; the subject names shard and file.
        UnsupportedPixels: A picture whose pixels would have to be guessed at.
    """
    path = Path(path)
    samples: dict[str, dict[str, tar.Member]] = {}
    last = None
    for member in tar.members(path):
        folder, _, file = member.name.rpartition("/")
        stem, _, suffix = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        kind = "png" if suffix.lower() in _PICTURES else suffix.lower()
        if kind not in ("png", "json"):
            raise BadShard(
                path / member.name,
                "is neither a PNG or JPEG nor a JSON file",
                "Leave only pictures and their facts in a shard; never DICOM, pickles or arrays.",
            )
        if kind in samples.get(key, ()) or (key in samples and key != last):
            raise BadShard(path / member.name, "this sample is there twice")
        samples.setdefault(key, {})[kind] = member
        last = key
    if not samples:
        raise BadShard(path, "holds no sample")
    found = [_foreign(path, key, parts) for key, parts in samples.items()]
    for sample in found:
        sample.pixels()
    return found


def _foreign(path: Path, key: str, parts: dict[str, tar.Member]) -> Sample:
    if "png" not in parts:
        raise BadShard(path / parts["json"].name, "its picture is missing")
    picture, facts = parts["png"], {}
    if "json" in parts:
        with open(path, "rb") as file:
            file.seek(parts["json"].offset)
            facts = read_facts(path / parts["json"].name, file.read(min(parts["json"].size, 2**17)))
    return Sample(
        **_of_its_own(key, facts),
        path=path / picture.name,
        key=key,
        shard=path,
        offset=picture.offset,
        size=picture.size,
    )


def _of_its_own(key: str, facts: dict[str, Any]) -> dict[str, Any]:
    patient = facts.get("patient", key)
    return {**facts, "patient": patient, "group": facts.get("group", patient)}


def is_sharded(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was made by `shard`, finished or not."""
    return any(_format_of(Path(path) / name) == FORMAT for name in (MANIFEST, PLAN))


def _format_of(file: Path) -> object:
    try:
        if not file.is_file() or file.stat().st_size > _MAX_JSON:
            return None
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found.get("format") if isinstance(found, dict) else None


class Shards(Sequence[Sample]):
    """A finished folder of shards as a sequence of samples, in the order of the data set.

    Opening reads the manifest and compares sizes; an index is read when a sample of its shard is
    first asked for, a picture when its `pixels` are. A picture is held to its digest the first time
    that a process reads it, and again once its file has changed: `cxr_foundation.data.checked` says
    what that detects and what it does not.

    Args:
        folder: What `shard` wrote.
        verify: Compare the digest of every file first, which reads all of them.

    Raises:
        BadShard: Not such a folder, one that is not finished, or one whose files are not those
            of its manifest.
    """

    def __init__(self, folder: str | os.PathLike[str], *, verify: bool = False) -> None:
        self.folder = Path(folder)
        raw = _manifest(self.folder)
        try:
            percentile = raw["percentile"] and tuple(raw["percentile"])
            keys = ("size", "bits", "aspect", "intensity", "interpolation")
            self.settings = Settings(
                **{k: raw[k] for k in keys}, percentile=percentile, trust=raw.get("trust")
            )
            self.sha256 = str(raw["sha256"])
            self._files = [(f["file"], f["samples"], f["bytes"]) for f in raw["shards"]]
            digests = [(f["sha256"], f["index_sha256"]) for f in raw["shards"]]
        except (KeyError, TypeError, ContractError):
            raise BadShard(self.folder / MANIFEST, "has missing or wrong entries") from None
        self._ends: list[int] = []
        for name, samples, size in self._files:
            self._check(name, samples, size)
            self._ends.append((self._ends[-1] if self._ends else 0) + samples)
        for (name, _, _), pair in zip(self._files, digests, strict=True):
            self._check_digests(name, pair, verify=verify)
        self._digests = [pair[1] for pair in digests]
        self._index: Callable[[int], list[Sample]] = functools.lru_cache(256)(self._read_index)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, place)
        samples: list[Sample] = self._index(shard)
        # Counted from the shard's end.
        return samples[place - self._ends[shard]]

    def __iter__(self) -> Iterator[Sample]:
        for shard in range(len(self._files)):
            yield from self._read_index(shard)

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return type(self), (self.folder,)

    @property
    def counts(self) -> list[int]:
        """Samples in each shard."""
        return [samples for _, samples, _ in self._files]

    def stream(
        self,
        *,
        seed: int | None = None,
        epoch: int = 0,
        start: int = 0,
        reader: int = 0,
        readers: int = 1,
    ) -> Iterator[Sample]:
        """Samples of one epoch for one of several readers, shard by shard.

        Whatever the number of readers, each sample goes to exactly one of them. Readers that
        go on at `start`, be they as many as before or not, hand out exactly the rest.

        Args:
            seed: Of the order; None keeps that of the data set.
            epoch: Each has an order of its own.
            start: Samples of this epoch that all readers together have already handed out, in
                the epoch's order.
            reader: Number of this reader: rank times workers plus worker.
            readers: How many there are: ranks times workers.
        """
        order = reading_order(self.counts, seed=seed, epoch=epoch)
        for place in order[start:][reader::readers].tolist():
            yield self[place]

    def _check(self, name: object, samples: object, size: object) -> None:
        if not (isinstance(name, str) and _SHARD.fullmatch(name)):
            raise BadShard(self.folder / MANIFEST, "names a file that is no shard")
        if type(samples) is not int or samples < 0 or type(size) is not int:
            raise BadShard(self.folder / MANIFEST, f"has no sound figures for {name}")
        file = self.folder / name
        if not file.is_file() or not file.with_suffix(".jsonl").is_file():
            raise BadShard(file, "is missing, or its index is")
        if file.stat().st_size != size:
            raise BadShard(file, f"has {file.stat().st_size:,} bytes, its manifest says {size:,}")

    def _check_digests(self, name: str, digests: tuple[Any, Any], *, verify: bool) -> None:
        if not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in digests):
            raise BadShard(self.folder / MANIFEST, f"has no digests for {name}")
        if verify and sha256_of(self.folder / name) != digests[0]:
            raise BadShard(self.folder / name, "has other bytes than its manifest promises")

    def _read_index(self, shard: int) -> list[Sample]:
        name, count, total = self._files[shard]
        file = (self.folder / name).with_suffix(".jsonl")
        if sha256_of(file) != self._digests[shard]:
            raise BadShard(file, "has other bytes than its manifest promises")
        lines = file.read_bytes().splitlines()
        if len(lines) != count:
            raise BadShard(file, f"has {len(lines)} lines, its manifest says {count}")
        # One path for all: each keeps its text, which is asked for at every reading.
        tar_file = self.folder / name
        return [self._sample(file, tar_file, total, line) for line in lines]

    def _sample(self, file: Path, tar_file: Path, total: int, line: bytes) -> Sample:
        try:
            row = json.loads(line)
            key, offset, size, sha256 = (row[k] for k in ("key", "offset", "bytes", "sha256"))
            facts = json.dumps(row["facts"]).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadShard(file, "has a line that is no sample") from None
        sound = isinstance(key, str) and key.isalnum() and type(offset) is type(size) is int
        if not sound or not 0 <= offset <= offset + size <= total:
            raise BadShard(file, "has a line that is no sample")
        if not (isinstance(sha256, str) and _DIGEST.fullmatch(sha256)):
            raise BadShard(file, "has a line without a digest")
        return Sample(
            **_of_its_own(key, read_facts(file, facts)),
            path=tar_file / f"{key}.png",
            key=key,
            shard=tar_file,
            offset=offset,
            size=size,
            sha256=sha256,
            settings=self.settings,
        )


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        if _format_of(folder / PLAN) == FORMAT:
            raise BadShard(folder, "is not finished", "Run the same `cxr shard` again.")
        raise BadShard(folder, f"holds no {MANIFEST}", "Name a folder that `cxr shard` wrote.")
    if _format_of(file) != FORMAT:
        raise BadShard(file, f"is no manifest of {FORMAT!r}")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def reading_order(
    counts: Sequence[int], *, seed: int | None = None, epoch: int = 0
) -> NDArray[np.int64]:
    """The order of an epoch: shards shuffled, and samples within each, so that reads stay near.

    Args:
        counts: Samples in each shard.
        seed: None keeps the stored order.
        epoch: Each has an order of its own.

    Returns:
        int64 (sum of counts,), a permutation.
    """
    import numpy as np

    total = sum(counts)
    if seed is None:
        return np.arange(total)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    parts = [starts[s] + random.permutation(counts[s]) for s in random.permutation(len(counts))]
    return np.concatenate(parts) if parts else np.arange(0)
