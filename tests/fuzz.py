"""A seeded fuzzer of the doors through which untrusted bytes come in.

    python tests/fuzz.py --kind KIND --count 10000 --seed 0

Kinds: safetensors, torch, config, card, dicom, png, picture (JPEG and TIFF), csv, shard; without
--kind all of them. Sound small files are mutated: bytes, lengths, JSON values, pickle opcodes,
archive members, DICOM elements, PNG chunks, cells. For each mutant the door has to return, or to
raise an error of the package, within five seconds and 512 MB, without an import, a write, a
process or a socket. Prints figures as JSON; exits 1 and keeps the mutant where that is not so.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import faulthandler
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_mutants as mutants
import fuzz_pictures as pictures
import fuzz_shards
import numpy as np
import torch

from cxr_foundation import catalog, data
from cxr_foundation.catalog import frontmatter
from cxr_foundation.convert import read_checkpoint
from cxr_foundation.errors import CxrError
from cxr_foundation.images import read_image
from cxr_foundation.models.loading import load

SECONDS, MEGABYTES = 5.0, 512
MAKERS = {**mutants.MAKERS, **pictures.MAKERS, **fuzz_shards.MAKERS}
KINDS = tuple(MAKERS)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# Events of CPython's audit table: https://docs.python.org/3.11/library/audit_events.html
_NEVER = (
    "compile",
    "ctypes.",
    "exec",
    "marshal.",
    "os.chmod",
    "os.exec",
    "os.fork",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.spawn",
    "os.symlink",
    "os.system",
    "pickle.find_class",
    "shutil.",
    "socket.",
    "subprocess.",
    "tempfile.",
)


class Hang(BaseException):
    """The door took too long; not an Exception, so that no door can swallow it."""


@dataclasses.dataclass
class Figures:
    """What a run found."""

    kind: str
    mutants: int = 0
    accepted: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reasons: set[str] = dataclasses.field(default_factory=set)
    slowest: float = 0.0
    grew_mb: float = 0.0
    violations: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As it is printed; of the reasons only how many there were."""
        reasons = {"reasons": len(self.reasons), "refused": dict(self.refused.most_common())}
        return {**dataclasses.asdict(self), **reasons}


class Watch:
    """Records what the interpreter is asked to do while a door is open.

    An audit hook can never be removed, so there is one for all, and it sleeps between mutants.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.folder = ""
        self.imports: tuple[str, ...] = ()
        self.awake = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.awake:
            return
        if event == "import":
            bad = not str(args[0]).startswith(self.imports)
        elif event == "open":
            path, mode, flags = args
            writes = bool(flags & _WRITES) or bool(set(mode or "") & set("wax+"))
            bad = writes or not os.fspath(path).startswith(self.folder)
        else:
            # Cython compiles this constant to give an error of C a place in the traceback.
            bad = event.startswith(_NEVER) and args[:1] != (b"_getframe()",)
        if bad:
            self.seen.append(f"{event} {str(args[:1])[:80]}")


WATCH = Watch()


def door_of_checkpoints(path: Path) -> None:
    """Read every tensor, and check that it is one."""
    found = read_checkpoint(path)
    for name, tensor in found.items():
        assert isinstance(name, str) and type(tensor) is torch.Tensor, name
        assert tensor.is_contiguous() and not tensor.is_meta and not tensor.requires_grad, name


def door_of_folders(path: Path) -> None:
    """Load the model, and check that all of it is there."""
    model = load(path.parent)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def door_of_cards(path: Path) -> None:
    """Read the card, and check that it can be shown."""
    assert repr(catalog.read_card(path)).isprintable()
    assert frontmatter.is_printable(catalog.body_of(path))


def door_of_images(path: Path) -> None:
    """Read the picture with and without its VOI LUT, and check that it is one."""
    for voi in (True, False):
        pixels = read_image(path, voi=voi)
        assert pixels.dtype == np.float32 and pixels.ndim == 2 and pixels.flags.c_contiguous
        assert np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1


def door_of_indices(path: Path) -> None:
    """Read the table, and check that every file is where it may be."""
    studies = data.read_index(path)
    assert studies and all(study.patient for study in studies)
    for study in studies:
        assert study.path.resolve().is_relative_to(path.parent.resolve()) and study.path.is_file()


def door_of_shards(path: Path) -> None:
    """Read every sample, and check that each has pixels and nothing but allowed facts."""
    for sample in data.read_shard(path):
        pixels = sample.pixels()
        assert pixels.dtype == np.float32 and pixels.ndim == 2 and np.isfinite(pixels).all()
        assert sample.shard == path and sample.path.is_relative_to(path)


DOORS = {
    "safetensors": door_of_checkpoints,
    "torch": door_of_checkpoints,
    "config": door_of_folders,
    "card": door_of_cards,
    "dicom": door_of_images,
    "png": door_of_images,
    "picture": door_of_images,
    "csv": door_of_indices,
    "shard": door_of_shards,
}


def _on_alarm(*_: object) -> None:
    raise Hang


def opened(door: Callable[[Path], None], path: Path, figures: Figures) -> str | None:
    """Open the door once; what was wrong with it, or None."""
    WATCH.seen.clear()
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    problem = None
    # Where even an alarm is not heard, in a loop of C, the traceback says where that was.
    faulthandler.dump_traceback_later(SECONDS + 20, exit=True)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    WATCH.awake = True
    try:
        door(path)
        figures.accepted += 1
    except CxrError as error:
        figures.refused[type(error).__name__] += 1
        figures.reasons.add(error.reason)
        if not str(error).isprintable() or len(str(error)) > 2000:
            problem = "the message would drive a terminal, or fills it"
    except Hang:
        problem = f"took more than {SECONDS} s"
    except BaseException as error:
        problem = f"raised {type(error).__name__}: {str(error)[:200]}"
    finally:
        WATCH.awake = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    figures.slowest = max(figures.slowest, time.monotonic() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    figures.grew_mb += grown
    if problem is None and grown > MEGABYTES:
        problem = f"grew by {grown:.0f} MB"
    if problem is None and WATCH.seen:
        problem = f"asked the interpreter for {WATCH.seen[:3]}"
    return problem


def run(
    kind: str,
    count: int,
    seed: int = 0,
    *,
    folder: Path,
    door: Callable[[Path], None] | None = None,
) -> Figures:
    """Open `count` mutants of one kind.

    Args:
        kind: One of `KINDS`.
        count: Mutants.
        seed: The same seed draws the same mutations.
        folder: Where the mutant is written, and where those stay that broke a rule.
        door: Instead of the kind's own; it gets the mutant's path.
    """
    make = MAKERS[kind](folder)
    path = folder / make.file_name
    sentinel = folder / mutants.SENTINEL
    door = door or DOORS[kind]
    figures = Figures(kind)
    WATCH.folder = os.fspath(folder)
    # Networks are built for a folder's config.json: parts of torch and timm come in late.
    WATCH.imports = ("torch", "timm") if kind == "config" else ()
    before = signal.signal(signal.SIGALRM, _on_alarm)
    here = os.getcwd()
    os.chdir(folder)
    try:
        for sound in make.sound():
            path.write_bytes(sound)
            door(path)
        for number in range(count):
            mutant = make.mutant(random.Random(f"{kind} {seed} {number}"))
            path.write_bytes(mutant)
            figures.mutants += 1
            problem = opened(door, path, figures)
            if sentinel.exists():
                sentinel.unlink()
                problem = "ran code of the file"
            if problem is not None:
                kept = folder / f"violation-{kind}-{seed}-{number}"
                kept.write_bytes(mutant)
                figures.violations.append(f"{kept}: {problem}")
            if len(figures.violations) >= 20:
                break
    finally:
        os.chdir(here)
        signal.signal(signal.SIGALRM, before)
    return figures


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    faulthandler.enable()
    # A mutant that asks for everything fails here instead of taking the machine down.
    resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"mutants that break a rule stay in {folder}", file=sys.stderr)
    broken = 0
    for kind in options.kind or KINDS:
        own = folder / kind
        own.mkdir()
        figures = run(kind, options.count, options.seed, folder=own)
        print(json.dumps(figures.to_json(), indent=1), flush=True)
        broken += len(figures.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
