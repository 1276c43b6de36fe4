"""Bytes that differ from their digest are refused, and a digest is computed once."""

import hashlib
import os
from pathlib import Path

import pytest

from cxr_foundation.data import checked

FIRST, SECOND = b"first" * 20, b"other" * 20


@pytest.fixture
def file(tmp_path, monkeypatch):
    checked._opened.cache_clear()
    # As if the file had lain there for long.
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(FIRST + SECOND)
    yield path
    checked._opened.cache_clear()


@pytest.fixture
def digests(monkeypatch):
    """A list that grows by one with every digest that is computed."""
    computed = []

    def sha256(data):
        computed.append(len(data))
        return hashlib.sha256(data)

    class Counted:
        pass

    Counted.sha256 = staticmethod(sha256)
    monkeypatch.setattr(checked, "hashlib", Counted)
    return computed


def first(path, content=FIRST):
    return checked.read(path, offset=0, size=100, sha256=hashlib.sha256(content).hexdigest())


def test_a_range_of_bytes_is_read(file):
    digest = hashlib.sha256(SECOND).hexdigest()
    assert checked.read(file, offset=100, size=100, sha256=digest) == SECOND


def test_bytes_without_a_digest_are_read_as_they_are(file, digests):
    assert checked.read(file, offset=2, size=3, sha256="") == b"rst"
    assert digests == []


def test_other_bytes_are_refused_each_time(file):
    for _ in range(2):
        with pytest.raises(checked.OtherBytes):
            first(file, SECOND)


def test_a_digest_is_computed_once(file, digests):
    assert [first(file) for _ in range(3)] == [FIRST] * 3
    assert digests == [100]


@pytest.mark.parametrize(
    ("offset", "size", "content"), [(1, 100, FIRST), (0, 99, FIRST), (0, 100, SECOND)]
)
def test_what_was_compared_vouches_for_nothing_else(file, offset, size, content):
    first(file)
    with pytest.raises(checked.OtherBytes):
        checked.read(file, offset=offset, size=size, sha256=hashlib.sha256(content).hexdigest())


def test_a_byte_that_changes_later_is_refused(file):
    first(file)
    with open(file, "r+b") as opened:
        opened.write(b"F")
    with pytest.raises(checked.OtherBytes):
        first(file)


def test_a_changed_byte_under_the_old_time_is_refused(file):
    first(file)
    before = file.stat()
    with open(file, "r+b") as opened:
        opened.write(b"F")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(checked.OtherBytes):
        first(file)


def test_a_file_that_was_replaced_is_opened_anew(file):
    first(file)
    other = file.with_name("other")
    other.write_bytes(SECOND + FIRST)
    os.replace(other, file)
    assert first(file, SECOND) == SECOND


@pytest.mark.parametrize("left", [0, 99])
def test_a_file_that_is_cut_short_has_ended(file, left):
    first(file)
    os.truncate(file, left)
    with pytest.raises(EOFError):
        first(file)


def test_of_a_file_that_is_gone_known_bytes_are_still_read(file):
    first(file)
    file.unlink()
    assert first(file) == FIRST


def test_of_a_file_that_is_gone_other_bytes_are_an_error(file):
    first(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        first(file, SECOND)


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        first(tmp_path / "missing")


def test_nothing_is_remembered_of_a_file_that_has_just_changed(file, digests, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 60 * 10**9)
    first(file)
    first(file)
    assert digests == [100, 100]


def test_files_that_are_no_longer_kept_are_closed(file, tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors can be counted on Linux only")

    def kept():
        links = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(link).startswith(str(tmp_path)) for link in links)

    for number in range(checked._FILES + 10):
        (tmp_path / str(number)).write_bytes(FIRST)
        first(tmp_path / str(number))
    assert kept() == checked._FILES
    checked._opened.cache_clear()
    assert kept() == 0


def test_without_pread_the_bytes_are_the_same(file, monkeypatch):
    monkeypatch.setattr(checked, "_PREAD", False)
    digest = hashlib.sha256(SECOND).hexdigest()
    assert checked.read(file, offset=100, size=100, sha256=digest) == SECOND
    assert first(file) == FIRST
