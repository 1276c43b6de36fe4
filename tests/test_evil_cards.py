"""Hostile cards fare as their manifest demands, in a process of their own under caps."""

import evil_doors
import pytest

pytestmark = pytest.mark.skipif(
    not evil_doors.MAKER.exists(), reason="the generator of hostile inputs is not here"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    evil_doors.make(root)
    return root


def test_every_hostile_card_is_refused_and_every_harmless_one_read(corpus, tmp_path):
    found = evil_doors.swept(corpus, tmp_path, "card")
    assert evil_doors.wrong(corpus, found, "card") == {}
    assert len(found) == 4
    assert [outcome for outcome, *_ in found.values()].count("ok") == 1


def test_the_message_names_the_file_and_the_key(corpus, tmp_path):
    for file, (outcome, message, *_) in evil_doors.swept(corpus, tmp_path, "card").items():
        if outcome == "clear error":
            assert f"{corpus / file}/README.md" in message
