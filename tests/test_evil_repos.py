"""Hostile folders and state dicts: `load` does exactly what the corpus's manifest demands."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_foundation.errors import CxrError
from cxr_foundation.models.loading import load

EVIL = Path(__file__).resolve().parent.parent.parent / "shared" / "evil"

pytestmark = pytest.mark.skipif(
    not (EVIL / "make_evil.py").exists(), reason="the corpus of hostile files is not here"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    subprocess.run(
        [sys.executable, str(EVIL / "make_evil.py"), str(root)], check=True, capture_output=True
    )
    return root


@pytest.fixture(scope="module")
def rows(corpus):
    found = json.loads((corpus / "manifest.json").read_text())
    found = found if isinstance(found, list) else found["cases"]
    kept = [r for r in found if r["kind"] == "config" or r.get("arch")]
    # A sweep says how much it swept.
    assert sum(r["kind"] == "config" for r in kept) == 27
    assert len(kept) == 69
    return kept


def outcome(corpus, row):
    """What `load` makes of a case, in the manifest's words, with seconds and megabytes."""
    path = corpus / row["file"]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        if row["kind"] == "config":
            model = load(path)
        else:
            channels = row.get("in_chans", 3)
            model = load(path, architecture=row["arch"], in_chans=channels, num_classes=2)
    except CxrError as error:
        assert os.fspath(path) in str(error) or path.name in str(error) or error.reason
        found = "clear error"
    else:
        assert not model.training
        assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
        assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
        found = "ok"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found, time.monotonic() - start, grown


def test_every_folder_and_state_dict_is_loaded_or_refused_as_it_must_be(
    corpus, rows, tmp_path, monkeypatch
):
    sentinel = tmp_path / "sentinel"
    monkeypatch.setenv("CXR_EVIL_SENTINEL", str(sentinel))
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for row in rows:
        found, seconds, grown = outcome(corpus, row)
        if found != row["expect"]:
            wrong[row["file"]] = f"{found}, not {row['expect']}"
        elif seconds > row["max_seconds"] or grown > row["max_rss_mb"]:
            wrong[row["file"]] = f"{seconds:.1f} s, {grown:.0f} MB"
        assert not sentinel.exists(), row["file"]
    assert wrong == {}
    assert list(tmp_path.iterdir()) == []
