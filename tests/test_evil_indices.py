"""Hostile and broken tables fare as their manifest demands, in a process of its own under caps."""

import evil_doors
import pytest

from cxr_foundation import data

pytestmark = pytest.mark.skipif(
    not evil_doors.MAKER.exists(), reason="the generator of hostile inputs is not here"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    evil_doors.make(root, evil_doors.INDICES)
    return root


def test_every_index_fares_as_its_manifest_demands(corpus, tmp_path):
    found = evil_doors.swept(corpus, tmp_path, "index")
    assert evil_doors.wrong(corpus, found, "index") == {}
    assert len(found) == 23


def test_two_numbers_that_parse_alike_stay_two_patients(corpus):
    assert [s.patient for s in data.read_index(corpus / "index" / "leak_zero.csv")] == ["007", "7"]
