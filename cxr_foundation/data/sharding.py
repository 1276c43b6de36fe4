"""`shard`: a data set's pictures, brought to one size once, as tar shards."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import io
import json
import multiprocessing
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cxr_foundation._version import __version__
from cxr_foundation.data import tar
from cxr_foundation.data.looking import Flagged, Reasons, prepare
from cxr_foundation.data.opening import fingerprint
from cxr_foundation.data.sample import Settings, check_fits, facts_of
from cxr_foundation.data.shards import FORMAT, MANIFEST, PLAN
from cxr_foundation.data.splits import same_patient
from cxr_foundation.data.study import Study
from cxr_foundation.errors import DataError, ImageError, NoImages, OutputExists, OutputFailed
from cxr_foundation.files import atomic_write, sha256_of

__all__ = ["Sharded", "shard"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sharded:
    """What came of it.

    Attributes:
        folder: Of the shards.
        samples: Pictures that are in them.
        refused: (path, kind of error, reason) of each picture that could not be used.
        flagged: Those that are in them and that a guard noticed something about.
    """

    folder: Path
    samples: int
    refused: tuple[tuple[str, str, str], ...]
    flagged: tuple[Flagged, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "folder": str(self.folder),
            "samples": self.samples,
            "refused": _as_dicts(self.refused),
            "flagged": [f.to_dict() for f in self.flagged],
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One shard: where, and of which studies with which hashes."""

    folder: Path
    number: int
    first: int
    studies: tuple[Study, ...]
    hashes: tuple[tuple[str, str, str], ...]
    settings: Settings
    guarded: bool

    @property
    def tar(self) -> Path:
        return self.folder / f"shard-{self.number:06d}.tar"

    @property
    def note(self) -> Path:
        """Written last: the shard is complete."""
        return self.folder / f"shard-{self.number:06d}.done"


def shard(
    data: Iterable[Study],
    out: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    guarded: bool = True,
    per_shard: int = 1000,
    workers: int = 1,
    progress: bool = False,
) -> Sharded:
    """Write a data set as tar shards that webdataset opens and `Shards` reads at random.

    What is written depends on the data, the settings and `per_shard` alone, except for the hashes
    of patients, whose key is drawn for each folder and forgotten when it is finished. A run that
    was cut off goes on when it is started again; whole shards are kept.

    Of a file only its pixels are written: no header, no metadata of a picture, no file name. Text
    that is burned into the pixels stays there: `images.guard` looks for it, and for radiographs
    that are inverted, turned, cropped or not frontal. It changes no pixel and refuses none; what it
    noticed is in `Sharded.flagged` and, with file names, in `<out>.flagged.jsonl`.

    Args:
        data: The radiographs.
        out: Folder to write. Pictures that cannot be used are listed in `<out>.refused.jsonl`.
        settings: Of the pixels; 512 x 512 pixels of 8 bits if left out.
        guarded: Whether the guard looks; the shards are the same either way.
        per_shard: Radiographs in a shard.
        workers: Processes; 1 works in this one.
        progress: Show a bar.

    Raises:
        NoImages: There is no radiograph, or none can be used.
        ContractError: `data` are shards that were made by another intensity rule or aspect.
        OutputExists: `out` is finished, or holds something else or another data set's shards.
        OutputFailed: The disk is full or not writable, or a worker died.
    """
    settings = settings or Settings()
    studies, out = tuple(data), Path(out)
    if not studies:
        raise NoImages("data", "holds no radiograph")
    if per_shard < 1 or workers < 1:
        raise ValueError("per_shard and workers are at least 1")
    check_fits(studies, settings.contract)
    plan = _claim(out, studies, settings, per_shard, guarded=guarded)
    hashes = _hashes(studies, bytes.fromhex(plan["key"]))
    jobs = [
        _Job(
            folder=out,
            number=number,
            first=first,
            studies=studies[first : first + per_shard],
            hashes=hashes[first : first + per_shard],
            settings=settings,
            guarded=guarded,
        )
        for number, first in enumerate(range(0, len(studies), per_shard))
    ]
    if not (out / MANIFEST).exists():
        _make_all(jobs, workers=workers, progress=progress)
        _finish(out, jobs, settings)
    return _tidy(out, jobs)


def _claim(
    out: Path, studies: Sequence[Study], settings: Settings, per_shard: int, *, guarded: bool = True
) -> dict[str, Any]:
    """Take the folder, or take it up again; its plan, which holds the key of the hashes."""
    ours = {
        "format": FORMAT,
        "per_shard": per_shard,
        "guarded": guarded,
        "data": fingerprint(studies),
        **json.loads(json.dumps(dataclasses.asdict(settings))),
    }
    file = out / PLAN
    if not file.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputExists(out, "is there already")
        plan = {**ours, "key": secrets.token_hex(32)}
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(plan))
        return plan
    try:
        before = json.loads(file.read_bytes())
        bytes.fromhex(before["key"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputExists(out, f"its {PLAN} is damaged") from None
    changed = sorted(k for k, v in ours.items() if before.get(k) != v)
    if changed:
        raise OutputExists(out, f"was begun with other {', '.join(changed)}")
    found: dict[str, Any] = before
    return found


def _hashes(studies: Sequence[Study], key: bytes) -> tuple[tuple[str, str, str], ...]:
    """Keyed hashes of patient, group and examination.

    What is hashed is an identifier's rank of first appearance: a DICOM's own pseudonym means
    nothing in the next process, which has to find the same hash.
    """
    ranks: dict[tuple[str, str], str] = {}

    def hashed(kind: str, name: str) -> str:
        if not name:
            return ""
        known = ranks.get((kind, name := same_patient(name)))
        if known is None:
            text = f"{kind} {len(ranks)}".encode()
            known = ranks[kind, name] = hmac.new(key, text, "sha256").hexdigest()[:32]
        return known

    return tuple(
        (hashed("patient", s.patient), hashed("group", s.group), hashed("study", s.study))
        for s in studies
    )


def _make_all(jobs: Sequence[_Job], *, workers: int, progress: bool) -> None:
    left = [job for job in jobs if not job.note.exists()]
    total = sum(len(job.studies) for job in jobs)
    done = total - sum(len(job.studies) for job in left)
    with tqdm(
        total=total, initial=done, desc="Sharding", unit="image", disable=not progress
    ) as bar:
        if workers == 1 or len(left) < 2:
            for job in left:
                _make(job, bar.update)
            return
        # Not a fork: the parent may have started torch's threads, whose locks a child inherits.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(workers, len(left)), mp_context=context, initializer=_one_thread
        ) as pool:
            waiting = {pool.submit(_make, job): job for job in left}
            try:
                for future in as_completed(waiting):
                    future.result()
                    bar.update(len(waiting[future].studies))
            except BrokenProcessPool:
                reason = "a worker died while it read a picture or ran out of memory"
                remedy = "Run it again with --workers 1 to see at which shard."
                raise OutputFailed(jobs[0].folder, reason, remedy) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _make(job: _Job, tell: Callable[[int], object] = lambda n: None) -> None:
    """Write one shard, its index, and the note that both are complete."""
    lines: list[str] = []
    refused: list[tuple[int, str, str]] = []
    flagged: list[tuple[int, Reasons]] = []
    with atomic_write(job.tar) as temporary, open(temporary, "wb") as file:
        for place, study in enumerate(job.studies):
            key = f"{job.first + place:09d}"
            try:
                picture, reasons = _picture(study, job.settings, guarded=job.guarded)
            except (DataError, ImageError) as error:
                refused.append((job.first + place, type(error).__name__, error.reason))
            else:
                patient, group, examination = job.hashes[place]
                facts = facts_of(study, patient=patient, group=group, examination=examination)
                offset = _append(file, f"{key}.png", picture)
                _append(file, f"{key}.json", json.dumps(facts).encode())
                row = {"key": key, "offset": offset, "bytes": len(picture)}
                row["sha256"] = hashlib.sha256(picture).hexdigest()
                lines.append(json.dumps({**row, "facts": facts}))
                if reasons:
                    flagged.append((job.first + place, reasons))
            tell(1)
        file.write(tar.END)
    index = job.tar.with_suffix(".jsonl")
    with atomic_write(index) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines))
    entry = {
        "file": job.tar.name,
        "samples": len(lines),
        "bytes": job.tar.stat().st_size,
        "sha256": sha256_of(job.tar),
        "index_sha256": sha256_of(index),
    }
    with atomic_write(job.note) as temporary:
        said = {"entry": entry, "refused": refused, "flagged": flagged}
        temporary.write_text(json.dumps(said))


def _picture(study: Study, settings: Settings, *, guarded: bool) -> tuple[bytes, Reasons]:
    """A study as a grey PNG of the settings' size and bits, and what was noticed about it."""
    import numpy as np
    from PIL import Image

    pixels, reasons = prepare(study, settings.contract, trust=settings.trust, guarded=guarded)
    top = 2**settings.bits - 1
    values = np.rint(pixels[0].numpy() * np.float32(top))
    stored = io.BytesIO()
    Image.fromarray(values.astype({8: np.uint8, 16: np.uint16}[settings.bits])).save(stored, "PNG")
    return stored.getvalue(), reasons


def _append(file: io.BufferedWriter, name: str, content: bytes) -> int:
    """Add one file to an archive; the offset of its first byte."""
    file.write(tar.header_of(name, len(content)))
    offset = file.tell()
    file.write(content + bytes(tar.padding_of(len(content))))
    return offset


def _notes(jobs: Iterable[_Job]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        yield json.loads(job.note.read_bytes())


def _finish(out: Path, jobs: Sequence[_Job], settings: Settings) -> None:
    entries = [note["entry"] for note in _notes(jobs)]
    if not any(e["samples"] for e in entries):
        raise NoImages(out, "none of the radiographs can be used", _why_none(jobs))
    digest = hashlib.sha256()
    for job in jobs:
        for line in job.tar.with_suffix(".jsonl").read_bytes().splitlines():
            digest.update(bytes.fromhex(json.loads(line)["sha256"]))
    manifest = {
        "format": FORMAT,
        **dataclasses.asdict(settings),
        "samples": sum(e["samples"] for e in entries),
        "refused": sum(len(note["refused"]) for note in _notes(jobs)),
        "sha256": digest.hexdigest(),
        "cxr_foundation": __version__,
        "shards": entries,
    }
    _list(_beside(out, "refused"), _as_dicts(_refused(jobs)))
    _list(_beside(out, "flagged"), [f.to_dict() for f in _flagged(jobs)])
    with atomic_write(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def _why_none(jobs: Sequence[_Job]) -> str:
    path, kind, reason = _refused(jobs)[0]
    return f"The first: {path}: {kind}: {reason}."


def _refused(jobs: Sequence[_Job]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (str(job.studies[number - job.first].path), kind, reason)
        for job, note in zip(jobs, _notes(jobs), strict=True)
        for number, kind, reason in note["refused"]
    )


def _flagged(jobs: Sequence[_Job]) -> Iterator[Flagged]:
    for job, note in zip(jobs, _notes(jobs), strict=True):
        for number, reasons in note["flagged"]:
            path = str(job.studies[number - job.first].path)
            yield Flagged(path, tuple((kind, text) for kind, text in reasons))


def _list(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with atomic_write(file) as temporary:
            temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        # Of an earlier folder under this name.
        file.unlink(missing_ok=True)


def _beside(out: Path, what: str) -> Path:
    # Beside the folder, not in it: file names may identify, and the folder may be handed on.
    return out.with_name(f"{out.name}.{what}.jsonl")


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _as_dicts(refused: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [{"path": p, "kind": k, "reason": r} for p, k, r in refused]


def _tidy(out: Path, jobs: Sequence[_Job]) -> Sharded:
    """Forget the key and the notes; what they said is in the manifest and in the list beside it."""
    manifest = json.loads((out / MANIFEST).read_bytes())
    refused = [(row["path"], row["kind"], row["reason"]) for row in _rows(_beside(out, "refused"))]
    flagged = [Flagged.of(row) for row in _rows(_beside(out, "flagged"))]
    for job in jobs:
        job.note.unlink(missing_ok=True)
    for cut in (*out.glob(".shard-*"), *out.glob(f".{PLAN}.*"), *out.glob(f".{MANIFEST}.*")):
        cut.unlink(missing_ok=True)
    # Last: as long as it is there, a run that was cut off in here goes on.
    (out / PLAN).unlink(missing_ok=True)
    return Sharded(
        folder=out, samples=manifest["samples"], refused=tuple(refused), flagged=tuple(flagged)
    )
