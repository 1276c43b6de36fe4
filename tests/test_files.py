"""Files are written whole or not at all."""

import errno

import pytest

from cxr_foundation.errors import OutputExists, OutputFailed
from cxr_foundation.files import atomic_folder, atomic_write, sha256_of


def test_sha256_of_abc(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def test_a_file_appears_only_when_the_block_succeeds(tmp_path):
    with atomic_write(tmp_path / "a" / "f") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a" / "f").exists()
    assert (tmp_path / "a" / "f").read_text() == "whole"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["f"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(ZeroDivisionError):
        with atomic_write(tmp_path / "f") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "f").write_text("x")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "f").read_text() == "x"


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(OutputExists, match="already exists"):
        with atomic_folder(tmp_path / "out"):
            raise AssertionError("the block must not run")
    assert (tmp_path / "out" / "precious").exists()


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "f").touch()
    assert (tmp_path / "out" / "f").exists()


@pytest.mark.parametrize("writer", [atomic_write, atomic_folder])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, writer):
    with pytest.raises(OutputFailed, match="the disk is full"):
        with writer(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_writable_is_named(tmp_path):
    with pytest.raises(OutputFailed, match="not writable"):
        with atomic_write(tmp_path / "out"):
            raise PermissionError(errno.EACCES, "Permission denied")
