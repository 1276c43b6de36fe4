"""The corpus of hostile and broken indices: each reaches what its manifest says, in its caps."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_foundation import data
from cxr_foundation.errors import CxrError

MAKER = Path(__file__).resolve().parents[2] / "shared" / "evil" / "make_evil.py"
pytestmark = pytest.mark.skipif(not MAKER.exists(), reason="the corpus's generator is not here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import make_evil;"
        "corpus = make_evil.Corpus(sys.argv[2]); make_evil.indices(corpus); corpus.save()"
    )
    subprocess.run([sys.executable, "-c", program, MAKER.parent, folder], check=True, timeout=60)
    return folder


def test_every_index_reaches_what_the_manifest_says(corpus, tmp_path, monkeypatch):
    sentinel = tmp_path / "executed"
    monkeypatch.setenv("CXR_EVIL_SENTINEL", str(sentinel))
    before = sorted(corpus.rglob("*"))
    cases = json.loads((corpus / "manifest.json").read_text())
    wrong = []
    for case in cases:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        try:
            studies = data.read_index(corpus / case["file"])
        except CxrError as error:
            outcome = "clear error"
            if Path(case["file"]).name not in str(error):
                wrong.append((case["file"], "the error does not name the file"))
        else:
            outcome = "ok"
            if "count" in case and len(studies) != case["count"]:
                wrong.append((case["file"], f"{len(studies)} rows"))
        if time.perf_counter() - start > case["max_seconds"]:
            wrong.append((case["file"], "too slow"))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak > case["max_rss_mb"] * 1024:
            wrong.append((case["file"], "too much memory"))
        if outcome != case["expect"]:
            wrong.append((case["file"], outcome))
    assert wrong == []
    assert len(cases) == 23
    assert not sentinel.exists()
    assert sorted(corpus.rglob("*")) == before


def test_two_numbers_that_parse_alike_stay_two_patients(corpus):
    assert [s.patient for s in data.read_index(corpus / "index" / "leak_zero.csv")] == ["007", "7"]
