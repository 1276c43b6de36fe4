"""`survey`: what a site's own export of radiographs holds, before anything is computed from it.

Every file is opened by the same reader as everywhere, its header by the allow-list alone, and its
pixels are looked at by `images.guard`. Nothing else is loaded: no torch, no weights to fetch.

A report is a folder:

* `report.html` and `report.json`: counts, without a name of a file, so that they may be shown.
* `files.jsonl`: a line for each file, with its name; what a file is called in a report is the
  number of its line. Names may be identifiers, so this file is for the site itself.
* `fixed/`: with `fix`, upright and bone-bright copies of the pictures that a guard found turned
  or inverted, as 16-bit PNG under their numbers; never of one in which there are letters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_foundation.data.folder import confined
from cxr_foundation.data.site_page import html
from cxr_foundation.data.walking import PICTURES
from cxr_foundation.errors import ImageError, NoImages
from cxr_foundation.files import atomic_folder
from cxr_foundation.images import Trust, guard, read_pixels
from cxr_foundation.images.facts import OTHER, Facts, read_facts
from cxr_foundation.images.header import is_dicom
from cxr_foundation.images.likeness import Fingerprint, fingerprint, near_duplicates
from cxr_foundation.images.source import read_bytes

__all__ = ["Checked", "Survey", "check_file", "survey"]

SHARED_BY = 10
"""A vendor's own text, its model's name, is shown if so many files have it; else it is "other"."""

_EXAMPLES = 20
_COUNTED = (
    "syntax", "sop_class", "modality", "intent", "body_part", "view", "photometric", "lut_shape",
    "bits", "burned_in", "spacing_of", "manufacturer",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """One file, looked at.

    Attributes:
        format: "DICOM", or "picture" for everything else.
        refused: Why its pixels are not read; "" if they are.
        facts: Its header's allow-listed part; None for pictures and unreadable headers.
        notices: What the guards say.
        notes: What the reader says, such as a contradiction that it could resolve.
        lossy: Whether its pixels were compressed with loss; None if the file says nothing.
        size: (width, height) in pixels as read.
        digest: Of the pixels: equal pictures have equal ones, whatever their headers.
        values: float32 (H, W) in [0, 1]; None if refused.
    """

    format: str
    refused: str = ""
    facts: Facts | None = None
    notices: tuple[guard.Notice, ...] = ()
    notes: tuple[str, ...] = ()
    lossy: bool | None = None
    size: tuple[int, int] | None = None
    digest: bytes = b""
    values: npt.NDArray[np.float32] | None = dataclasses.field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels and their digest, for JSON."""
        return {
            "format": self.format,
            "refused": self.refused or None,
            "facts": self.facts.to_dict() if self.facts is not None else None,
            "notices": [n.to_dict() for n in self.notices],
            "notes": list(self.notes),
            "lossy": self.lossy,
            "size": list(self.size) if self.size else None,
        }

    def lines(self) -> list[str]:
        """What there is to say, one thing a line; no name."""
        if self.refused:
            return [f"refused: {self.refused}"]
        said = [f"note: {note}" for note in self.notes]
        for n in self.notices:
            by = f" ({n.measure:.3g})" if n.measure is not None else ""
            said.append(f"{n.kind}: {n.text}, by the {n.by}{by}")
        return said or ["nothing to say"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What came of a survey.

    Attributes:
        summary: What report.json holds: counts, ranges and the numbers of files.
        folder: The report.
    """

    summary: dict[str, Any]
    folder: Path

    @property
    def refused(self) -> int:
        """How many files could not be read."""
        return int(self.summary["files"]["refused"])

    def lines(self) -> list[str]:
        """A summary of some lines."""
        files = self.summary["files"]
        said = [
            f"{files['seen']:,} files: {files['read']:,} read, {files['refused']:,} refused; "
            f"{files['passed_over']:,} others passed over"
        ]
        said += [f"{count:6,} {kind}" for kind, count in self.summary["notices"].items()]
        if self.summary["duplicates"]["files"]:
            said.append(f"{self.summary['duplicates']['files']:6,} duplicates")
        if self.summary["near_duplicates"]["pairs"]:
            said.append(f"{self.summary['near_duplicates']['pairs']:6,} pairs of near-duplicates")
        return [*said, f"wrote {self.folder / 'report.html'}"]


def check_file(path: str | os.PathLike[str], *, trust: Trust | None = None) -> Checked:
    """Look at one file; whatever is wrong with it is said, never raised.

    Args:
        path: The file.
        trust: See `images.read_image`.
    """
    kind, facts = "picture", None
    try:
        data = read_bytes(path)
        if is_dicom(data):
            kind = "DICOM"
            facts = read_facts(path, data)
        # The reader opens the file itself: one door for pixels, whoever asks.
        del data
        pixels = read_pixels(path, trust=trust)
    except ImageError as error:
        return Checked(format=kind, facts=facts, refused=error.reason)
    high, wide = pixels.values.shape
    digest = hashlib.blake2b(f"{high}x{wide}:".encode(), digest_size=16)
    digest.update(pixels.values.tobytes())
    return Checked(
        format=kind,
        facts=facts,
        notices=guard.examine(pixels.values, facts),
        notes=pixels.notes,
        lossy=pixels.lossy,
        size=(wide, high),
        digest=digest.digest(),
        values=pixels.values,
    )


def survey(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fix: bool = False,
    trust: Trust | None = None,
    progress: bool = False,
) -> Survey:
    """Look at every radiograph of a folder, or at one file, and write a report.

    Args:
        root: A folder, searched through, or a file.
        out: Folder for the report; must not exist.
        fix: Write upright, bone-bright copies of pictures that are turned or inverted.
        trust: See `images.read_image`.
        progress: Show a bar.

    Raises:
        NoImages: There is no radiograph.
        OutputExists: `out` is there.
        OutputFailed: The disk is full or not writable. Nothing partial is left.
    """
    root = Path(root)
    names, passed_over = ([root.name], 0) if root.is_file() else _candidates(root)
    if not names:
        raise NoImages(root, "holds no DICOM, PNG, JPEG or TIFF file")
    folder = root.parent if root.is_file() else root
    with atomic_folder(out) as temporary:
        tally = _Tally()
        with open(temporary / "files.jsonl", "w", encoding="utf-8") as lines:
            for number, name in enumerate(_shown(names, progress), 1):
                checked = _check(folder, name, trust)
                entry = {"number": number, "file": name, **checked.to_dict()}
                entry["duplicate_of"] = tally.add(number, checked)
                if fix and checked.values is not None:
                    entry["fixed"] = _fix(temporary, number, checked)
                _write(lines, entry)
        summary = tally.summary(passed_over)
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (temporary / "report.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "report.html").write_text(html(summary), encoding="utf-8")
    return Survey(summary=summary, folder=Path(out))


def _write(lines: IO[str], entry: dict[str, Any]) -> None:
    # A name of undecodable bytes is no text; it is shown with escapes instead.
    text = json.dumps(entry, ensure_ascii=False)
    lines.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def _shown(names: list[str], progress: bool) -> Iterator[str]:
    if not progress:
        return iter(names)
    from tqdm import tqdm

    return iter(tqdm(names, unit="file"))


def _candidates(root: Path) -> tuple[list[str], int]:
    """Files that look like radiographs, sorted, and how many others there are.

    By their suffix, or by DICOM's prefix: exports name files by UIDs, numbers or not at all.
    """
    names, others = [], 0
    for parent, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for file in files:
            path = Path(parent, file)
            if file.startswith("."):
                continue
            if path.suffix.lower() in PICTURES or _has_prefix(path):
                names.append(path.relative_to(root).as_posix())
            else:
                others += 1
    return sorted(names), others


def _has_prefix(path: Path) -> bool:
    # Only regular files are opened: a pipe would block for ever.
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as file:
                return file.read(132)[128:] == b"DICM"
    return False


def _check(folder: Path, name: str, trust: Trust | None) -> Checked:
    try:
        return check_file(folder / confined(folder.resolve(), name), trust=trust)
    except ValueError as reason:
        return Checked(format="picture", refused=str(reason))


def _fix(report: Path, number: int, checked: Checked) -> str | None:
    """Write the corrected copy: its name, or None if nothing is to be corrected or shown."""
    assert checked.values is not None
    if not guard.may_be_shown(checked.notices):
        return None
    upright = guard.corrected(checked.values, checked.notices)
    if upright is checked.values:
        return None
    # A 16-bit picture with nothing above 4095 is read as a 12-bit one, so it is written as one.
    top = 65535 if float(upright.max()) * 65535 > 4095.5 else 4095
    name = f"fixed/{number:06d}.png"
    (report / "fixed").mkdir(exist_ok=True)
    Image.fromarray(np.rint(upright * top).astype(np.uint16)).save(report / name)
    return name


class _Tally:
    """Counts over all files; it grows with them only by a digest and a fingerprint each."""

    def __init__(self) -> None:
        self.seen = self.read = self.lossy = 0
        self.formats: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.kinds: dict[str, list[int]] = {}
        self.kind_counts: Counter[str] = Counter()
        self.facts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self.models: Counter[str] = Counter()
        self.kvp: Counter[float] = Counter()
        self.spacing: Counter[float] = Counter()
        self.sizes: Counter[str] = Counter()
        self.digests: dict[bytes, int] = {}
        self.duplicates: list[list[int]] = []
        self.copies = 0
        # Of each different picture; the position is that of `numbers`.
        self.prints: list[Fingerprint] = []
        self.numbers: list[int] = []

    def add(self, number: int, checked: Checked) -> int | None:
        """Count one file; the number of an earlier file with the same pixels, if there is one."""
        self.seen += 1
        self.formats[checked.format] += 1
        if checked.facts is not None:
            self._count(checked.facts)
        if checked.refused:
            self.refusals[checked.refused] += 1
            return None
        self.read += 1
        self.lossy += checked.lossy is True
        self.sizes["x".join(map(str, checked.size or ()))] += 1
        for notice in checked.notices:
            kind = f"{notice.kind}, by the {notice.by}"
            self.kind_counts[kind] += 1
            examples = self.kinds.setdefault(kind, [])
            if len(examples) < _EXAMPLES:
                examples.append(number)
        first = self.digests.setdefault(checked.digest, number)
        if first == number:
            if checked.values is not None:
                self.prints.append(fingerprint(checked.values))
                self.numbers.append(number)
            return None
        self.copies += 1
        if len(self.duplicates) < _EXAMPLES:
            self.duplicates.append([first, number])
        return first

    def _count(self, facts: Facts) -> None:
        for name, counter in self.facts.items():
            counter[str(getattr(facts, name)) or "not stated"] += 1
        if facts.model:
            self.models[facts.model] += 1
        if facts.kvp is not None:
            self.kvp[round(facts.kvp)] += 1
        if facts.spacing is not None:
            self.spacing[round(facts.spacing[0], 3)] += 1

    def summary(self, passed_over: int) -> dict[str, Any]:
        """Counts, most frequent first, for JSON."""
        models = Counter({m: n for m, n in self.models.items() if n >= SHARED_BY})
        rare = sum(self.models.values()) - sum(models.values())
        if rare:
            models[OTHER] += rare
        alike = [
            [self.numbers[pair.first], self.numbers[pair.second]]
            for pair in near_duplicates(self.prints)
        ]
        return {
            "files": {
                "seen": self.seen,
                "read": self.read,
                "refused": self.seen - self.read,
                "passed_over": passed_over,
                "lossy": self.lossy,
            },
            "refused": dict(self.refusals.most_common()),
            "notices": dict(self.kind_counts.most_common()),
            "examples": self.kinds,
            "duplicates": {"files": self.copies, "examples": self.duplicates},
            "near_duplicates": {"pairs": len(alike), "examples": alike[:_EXAMPLES]},
            "format": dict(self.formats.most_common()),
            "facts": {name: dict(c.most_common()) for name, c in self.facts.items() if c}
            | {"model": dict(models.most_common())},
            "kvp": _spread(self.kvp),
            "spacing_mm": _spread(self.spacing),
            "size": dict(self.sizes.most_common(_EXAMPLES)),
        }


def _spread(counter: Counter[float]) -> dict[str, float] | None:
    """Number, range and quartiles, from which a drift can be told."""
    if not counter:
        return None
    values = np.repeat(list(counter), list(counter.values()))
    found = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    names = ("least", "lower_quartile", "median", "upper_quartile", "greatest")
    return {"files": len(values)} | {
        n: round(float(v), 3) for n, v in zip(names, found, strict=True)
    }
