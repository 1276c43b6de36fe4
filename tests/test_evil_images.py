"""Hostile and broken DICOM files and pictures fare as their manifest demands.

They are read in a process of its own, with an empty working folder, a sentinel that payloads
write to, and each row's caps on time and memory. All that the process says is searched for the
identifiers that were planted.
"""

import contextlib
import json

import evil_doors
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not evil_doors.MAKER.exists(), reason="the generator of hostile inputs is not here"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    evil_doors.make(root, evil_doors.IMAGES)
    yield root
    # pytest cannot remove what its owner may not enter.
    with contextlib.suppress(FileNotFoundError):
        (root / "image" / "unreadable").chmod(0o700)


def test_every_dicom_and_picture_fares_as_its_manifest_demands(corpus, tmp_path):
    found = evil_doors.swept(corpus, tmp_path, "dicom", "image")
    assert evil_doors.wrong(corpus, found, "dicom", "image") == {}
    rows = json.loads((corpus / "manifest.json").read_text())
    lacking = [row["file"] for row in rows if row.get("needs") in evil_doors.LACKING]
    assert len(rows) - len(lacking) == len(found)
    assert len(rows) == 74 + 36
    assert len(list(corpus.glob("dicom/*"))) == 74


def test_a_wrong_picture_would_be_seen():
    ramp = np.add.outer(np.arange(64), np.arange(48)) / 110
    oracle = {"rows": 64, "cols": 48, "dark_to_bright": [[2, 2], [10, 14], [60, 45]]}
    assert evil_doors.keeps_its_oracle(ramp, oracle)
    assert not evil_doors.keeps_its_oracle(1 - ramp, oracle)
    assert not evil_doors.keeps_its_oracle(ramp.T, oracle)
    assert not evil_doors.keeps_its_oracle(np.zeros((64, 48)), oracle)
    assert not evil_doors.keeps_its_oracle(np.where(ramp > 0.9, np.nan, ramp), oracle)
