"""The corpus of hostile and broken shards: each reaches what its manifest says, in its caps."""

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
        "corpus = make_evil.Corpus(sys.argv[2]); make_evil.shards(corpus); corpus.save()"
    )
    subprocess.run([sys.executable, "-c", program, MAKER.parent, folder], check=True, timeout=60)
    return folder


def test_every_shard_reaches_what_the_manifest_says(corpus, tmp_path, monkeypatch):
    sentinel = tmp_path / "executed"
    monkeypatch.setenv("CXR_EVIL_SENTINEL", str(sentinel))
    before = sorted(corpus.parent.rglob("*"))
    cases = json.loads((corpus / "manifest.json").read_text())
    wrong = []
    for case in cases:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        outcome = "ok"
        try:
            samples = data.read_shard(corpus / case["file"])
        except CxrError as error:
            outcome = "clear error"
            if Path(case["file"]).name not in str(error):
                wrong.append((case["file"], "the error does not name the file"))
            if any(marker in str(error) for marker in case.get("phi", ())):
                wrong.append((case["file"], "the error quotes an identifier"))
        else:
            assert [s.pixels().shape for s in samples]
            if "count" in case and len(samples) != case["count"]:
                wrong.append((case["file"], f"{len(samples)} samples"))
        if time.perf_counter() - start > case["max_seconds"]:
            wrong.append((case["file"], "too slow"))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak > case["max_rss_mb"] * 1024:
            wrong.append((case["file"], "too much memory"))
        if outcome != case["expect"]:
            wrong.append((case["file"], outcome))
    assert wrong == []
    assert len(cases) == 21
    assert not sentinel.exists()
    assert sorted(corpus.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("dotdot", "would lie outside the folder"),
        ("symlink", "is a link, a device or of another special kind"),
        ("setuid", "has set-uid, set-gid or sticky permissions"),
        ("truncated", "is cut off: 3,072 bytes are claimed"),
        ("checksum", "has a damaged header at byte 1,024"),
        ("pickle", "is neither a PNG or JPEG nor a JSON file"),
        ("dup_member", "this sample is there twice"),
        ("orphan", "its picture is missing"),
        ("size_lie", "is cut off: 8,589,935,104 bytes are claimed"),
        ("phi_json", "a key that is not on the allow-list and may identify a patient"),
        ("html", "is not a tar file"),
        ("empty", "is empty"),
    ],
)
def test_an_error_says_what_is_wrong(corpus, file, reason):
    with pytest.raises(CxrError) as caught:
        data.read_shard(corpus / "shard" / f"{file}.tar")
    assert reason in str(caught.value)
