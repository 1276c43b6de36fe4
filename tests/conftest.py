"""Fixtures of all tests. No test reaches a network: huggingface_hub is offline by default."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Read by huggingface_hub at import; a test that speaks to the loopback server starts a process.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# Read by torch at import: tests run in two processes, and two teams of threads on the same two
# cores would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(autouse=True)
def own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Conversions of one test are never seen by another, nor by the user; they are large."""
    home = tmp_path_factory.mktemp("hf_home")
    monkeypatch.setenv("HF_HOME", str(home))
    yield
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The radiographs that ship, with their index.csv and splits.csv."""
    return ROOT / "cxr_foundation" / "demo" / "radiographs"


@pytest.fixture(scope="session")
def radiographs(bundled: Path) -> Path:
    """A folder of real radiographs with index.csv: the large set where it lies, else ours."""
    large = SHARED / "data" / "cxr_small"
    return large if (large / "index.csv").exists() else bundled
