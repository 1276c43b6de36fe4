"""Opens the folders of the hostile corpus, each through its own door, under caps.

    python tests/evil_doors.py CORPUS

Started by tests as a process of its own, with an empty working folder and a sentinel. A row that
takes longer than its manifest allows, or more memory than 16 GB, ends as "hang" or "crash" here and
nowhere else. Prints one JSON object: outcome, message, seconds and megabytes by row.
"""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAKER = ROOT.parent / "shared" / "evil" / "make_evil.py"
# What rows need and this machine has not: root may read everything.
LACKING = {
    name
    for name, there in (
        ("posix", os.name == "posix"),
        ("non-root", hasattr(os, "geteuid") and os.geteuid() != 0),
    )
    if not there
}


class Hang(BaseException):
    """Not an Exception: no door could swallow it."""


def rows_of(corpus, kinds):
    """Rows of the manifest by file; state dicts have kind "checkpoint" and an architecture."""
    found = json.loads((corpus / "manifest.json").read_text())
    return {r["file"]: r for r in found if r["kind"] in kinds or ("arch" in kinds and "arch" in r)}


def _load(path, row):
    from cxr_foundation.models.loading import load

    if row["kind"] == "config":
        model = load(path)
    else:
        channels = row.get("in_chans", 3)
        model = load(path, architecture=row["arch"], in_chans=channels, num_classes=2)
    assert not model.training
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}


def _card(path, row):
    from cxr_foundation import catalog

    before = sorted(os.listdir(path))
    card = catalog.read_card(path)
    assert repr(card).isprintable()
    assert "\x1b" not in catalog.body_of(path) and "\u202e" not in catalog.body_of(path)
    assert sorted(os.listdir(path)) == before


def keeps_its_oracle(pixels, oracle):
    """Whether a picture is the one that was drawn: its size, and points from dark to bright."""
    import numpy as np

    if pixels.shape != (oracle["rows"], oracle["cols"]) or not np.isfinite(pixels).all():
        return False
    if oracle.get("constant"):
        return np.ptp(pixels) == 0
    points = [float(pixels[r, c]) for r, c in oracle.get("dark_to_bright", [])]
    step = 0.05 * float(np.ptp(pixels))
    return all(b - a > step for a, b in itertools.pairwise(points))


def _image(path, row):
    from cxr_foundation import data
    from cxr_foundation.images import read_image

    if path.is_dir() and path.suffix == "":
        # A folder is no picture: the rows are about a scan of it.
        assert len(data.read_index(path)) == row.get("count")
        return
    assert keeps_its_oracle(read_image(path), row["oracle"]), "other pixels than its oracle's"


def _index(path, row):
    from cxr_foundation import data

    studies = data.read_index(path)
    assert len(studies) == row.get("count", len(studies))
    assert all(study.path.is_file() for study in studies)


DOORS = {
    "config": _load,
    "checkpoint": _load,
    "card": _card,
    "dicom": _image,
    "image": _image,
    "index": _index,
}


def _stop(*_):
    raise Hang


def go_through(corpus, kinds):
    """Open every row; what came of it."""
    from cxr_foundation.errors import CxrError

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    rows = {f: r for f, r in rows_of(corpus, kinds).items() if r.get("needs") not in LACKING}
    if kinds & {"dicom", "image", "index"}:
        # What is imported late is no growth of a row.
        for file, row in rows.items():
            if row.get("control"):
                DOORS[row["kind"]](corpus / file, row)
    elif "card" not in kinds:
        import timm
        import torch

        torch.set_num_threads(1)
        timm.create_model("test_vit")
    # As if the caller worked in the folder that the hostile packages lie in.
    sys.path[:0] = sorted({str((corpus / file).parent) for file in rows})
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    signal.signal(signal.SIGALRM, _stop)
    found = {}
    for file, row in rows.items():
        before, start, message, outcome = peak(), time.monotonic(), "", "ok"
        signal.alarm(row["max_seconds"])
        try:
            DOORS[row["kind"]](corpus / file, row)
        except CxrError as error:
            outcome, message = "clear error", str(error)
        except Hang:
            outcome = "hang"
        except BaseException as error:
            outcome, message = "crash", f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
        found[file] = (outcome, message, time.monotonic() - start, peak() - before)
    print(json.dumps(found))


CHECKPOINTS = "m.checkpoints(c); m.configs(c, m.statedicts(c))"
IMAGES = "m.dicoms(c); m.images(c)"
INDICES = "m.indices(c)"


def make(root, parts=CHECKPOINTS):
    """A part of the corpus."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import make_evil as m;"
        f"c = m.Corpus(sys.argv[2]); {parts}; c.save()"
    )
    command = [sys.executable, "-c", program, MAKER.parent, root]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def swept(corpus, cwd, *kinds):
    """Go through the corpus in another process.

    Nothing may be left in its working folder or the corpus, and no identifier be said.
    """
    before = sorted(corpus.rglob("*"))
    done = subprocess.run(
        [sys.executable, __file__, corpus, *kinds],
        cwd=cwd,
        env={**os.environ, "CXR_EVIL_SENTINEL": str(cwd / "SENTINEL"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(cwd.iterdir()) == []
    assert sorted(corpus.rglob("*")) == before
    said = done.stdout + done.stderr
    secrets = {s for row in rows_of(corpus, kinds).values() for s in row.get("phi", [])}
    assert [secret for secret in sorted(secrets) if secret in said] == []
    return json.loads(done.stdout.splitlines()[-1])


def wrong(corpus, found, *kinds):
    """Rows that fared otherwise than their manifest demands: outcome, caps, message."""
    rows, bad = rows_of(corpus, kinds), {}
    assert [f for f, r in rows.items() if r.get("needs") not in LACKING] == list(found)
    for file, (outcome, message, seconds, megabytes) in found.items():
        row, name = rows[file], Path(file).name
        if outcome != row["expect"] and not (row.get("also_ok") and outcome == "ok"):
            bad[file] = f"{outcome}, not {row['expect']}: {message}"
        elif seconds > row["max_seconds"] or megabytes > row["max_rss_mb"]:
            bad[file] = f"{seconds:.1f} s, {megabytes:.0f} MB"
        elif message and not (message.isprintable() and name in message and len(message) < 1000):
            bad[file] = f"its message: {message[:1000]}"
    return bad


if __name__ == "__main__":
    go_through(Path(sys.argv[1]), set(sys.argv[2:]))
