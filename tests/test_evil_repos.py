"""Hostile folders and state dicts: `load` does exactly what the corpus's manifest demands."""

import evil_doors
import pytest

pytestmark = pytest.mark.skipif(
    not evil_doors.MAKER.exists(), reason="the corpus of hostile files is not here"
)
KINDS = ("config", "arch")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    evil_doors.make(root)
    return root


def test_every_folder_and_state_dict_is_loaded_or_refused_as_it_must_be(corpus, tmp_path):
    rows = evil_doors.rows_of(corpus, KINDS)
    # A sweep says how much it swept.
    assert sum(r["kind"] == "config" for r in rows.values()) == 27
    assert len(rows) == 69
    found = evil_doors.swept(corpus, tmp_path, *KINDS)
    assert evil_doors.wrong(corpus, found, *KINDS) == {}


def test_a_row_that_fares_otherwise_would_be_seen(corpus):
    rows = evil_doors.rows_of(corpus, {"card"})
    right = {f: [r["expect"], "", 0.1, 1.0] for f, r in rows.items()}
    assert evil_doors.wrong(corpus, right, "card") == {}
    first = next(iter(right))
    for n, value in ((0, "crash"), (1, "a message that names no file"), (2, 60.0), (3, 9000.0)):
        changed = {**right, first: [*right[first][:n], value, *right[first][n + 1 :]]}
        assert list(evil_doors.wrong(corpus, changed, "card")) == [first]
