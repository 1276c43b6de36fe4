"""The corpus of hostile and broken files: each DICOM and picture reaches what its manifest says.

Time, growth of memory, and everything that is said are held against it too.
"""

import contextlib
import itertools
import json
import logging
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from cxr_foundation.errors import CxrError
from cxr_foundation.images import read_image

MAKER = Path(__file__).resolve().parents[2] / "shared" / "evil" / "make_evil.py"
pytestmark = pytest.mark.skipif(not MAKER.exists(), reason="the corpus's generator is not here")

# Folders, of which a scan has to make sense; a file reader says that they are none.
FOLDERS = {"image/linktree", "image/unreadable"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import make_evil;"
        "corpus = make_evil.Corpus(sys.argv[2]);"
        "make_evil.dicoms(corpus); make_evil.images(corpus); corpus.save()"
    )
    subprocess.run([sys.executable, "-c", program, MAKER.parent, folder], check=True, timeout=60)
    yield folder
    # pytest cannot remove what its owner may not enter.
    with contextlib.suppress(FileNotFoundError):
        (folder / "image" / "unreadable").chmod(0o700)


def read(path, records):
    """(outcome, pixels or None, all that was said)."""
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True, action="always") as warned:
            pixels, said = None, ""
            try:
                pixels = read_image(path)
            except CxrError as error:
                said = f"{error} {error.__cause__ or ''}"
        records += [str(w.message) for w in warned]
    finally:
        logging.getLogger().removeHandler(handler)
    return ("clear error" if pixels is None else "ok"), pixels, said


def keeps_its_oracle(pixels, oracle):
    if pixels.shape != (oracle["rows"], oracle["cols"]) or not np.isfinite(pixels).all():
        return False
    if oracle.get("constant"):
        return np.ptp(pixels) == 0
    points = [float(pixels[r, c]) for r, c in oracle.get("dark_to_bright", [])]
    step = 0.05 * float(np.ptp(pixels))
    return all(b - a > step for a, b in itertools.pairwise(points))


def test_every_dicom_and_picture_reaches_what_the_manifest_says(corpus, capfd):
    rows = json.loads((corpus / "manifest.json").read_text())
    assert {row["kind"] for row in rows} == {"dicom", "image"}
    swept, wrong = 0, []
    for row in rows:
        if row["file"] in FOLDERS or (row.get("needs") == "posix" and os.name != "posix"):
            continue
        swept += 1
        path, records = corpus / row["file"], []
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        outcome, pixels, said = read(path, records)
        seconds = time.monotonic() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
        said += " ".join(records) + "".join(capfd.readouterr())
        if outcome != row["expect"] and not (row.get("also_ok") and outcome == "ok"):
            wrong.append(f"{row['file']}: {outcome}, not {row['expect']}: {said}")
        if pixels is not None and not keeps_its_oracle(pixels, row["oracle"]):
            wrong.append(f"{row['file']}: other pixels than its oracle's")
        if seconds > row["max_seconds"] or grown > row["max_rss_mb"]:
            wrong.append(f"{row['file']}: {seconds:.0f} s, {grown:.0f} MB")
        if any(secret in said for secret in row.get("phi", [])):
            wrong.append(f"{row['file']}: an identifier got out")
        if outcome == "clear error" and not (said.isprintable() and path.name in said):
            wrong.append(f"{row['file']}: the message does not name it: {said}")
        if records:
            wrong.append(f"{row['file']}: warned or logged {records}")
    assert wrong == []
    assert swept == 74 + 36 - len(FOLDERS)
    assert len(list(corpus.glob("dicom/*"))) == 74


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_folder_is_no_picture(corpus, name):
    outcome, _, said = read(corpus / name, [])
    assert (outcome, "is a folder" in said) == ("clear error", True)


def test_a_wrong_picture_would_be_seen():
    ramp = np.add.outer(np.arange(64), np.arange(48)) / 110
    oracle = {"rows": 64, "cols": 48, "dark_to_bright": [[2, 2], [10, 14], [60, 45]]}
    assert keeps_its_oracle(ramp, oracle)
    assert not keeps_its_oracle(1 - ramp, oracle)
    assert not keeps_its_oracle(ramp.T, oracle)
    assert not keeps_its_oracle(np.zeros((64, 48)), oracle)
    assert not keeps_its_oracle(np.where(ramp > 0.9, np.nan, ramp), oracle)
