"""Hostile cards, made by the generator of the evil corpus where it is at hand."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_foundation import catalog
from cxr_foundation.errors import CardError

EVIL = Path(__file__).resolve().parent.parent.parent / "shared" / "evil"

pytestmark = pytest.mark.skipif(
    not (EVIL / "make_evil.py").exists(), reason="the generator of hostile inputs is not here"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The generator's folders of configs and cards; the other kinds have tests of their own."""
    root = tmp_path_factory.mktemp("evil")
    sys.path.insert(0, str(EVIL))
    try:
        spec = importlib.util.spec_from_file_location("make_evil", EVIL / "make_evil.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made = module.Corpus(root)
        # The weights beside the cards are never looked at: any bytes will do.
        module.configs(made, b"weights")
        made.save()
        yield root
    finally:
        sys.path.remove(str(EVIL))
        for name in ("make_evil", "evillib"):
            sys.modules.pop(name, None)


def test_every_hostile_card_is_refused_and_every_harmless_one_read(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinel = tmp_path / "sentinel"
    monkeypatch.setenv("CXR_EVIL_SENTINEL", str(sentinel))
    monkeypatch.chdir(tmp_path)
    rows = [r for r in json.loads((corpus / "manifest.json").read_text()) if r["kind"] == "card"]
    assert len(rows) == 4

    for row in rows:
        path = corpus / row["file"]
        before = sorted(os.listdir(path))
        if row["expect"] == "ok":
            card = catalog.read_card(path)
            assert repr(card).isprintable()
            assert "\x1b" not in catalog.body_of(path) and "\u202e" not in catalog.body_of(path)
        else:
            with pytest.raises(CardError) as error:
                catalog.read_card(path)
            assert str(path / "README.md") in str(error.value)
            assert str(error.value).isprintable()
        assert sorted(os.listdir(path)) == before
    assert os.listdir(tmp_path) == []
