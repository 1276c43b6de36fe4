"""What values are like, judged by their bits: the same as torch says of the tensor."""

import pytest
import torch
from safetensors.torch import save_file

from cxr_foundation.convert import read
from cxr_foundation.convert.dtypes import DTYPES
from cxr_foundation.errors import UnreadableCheckpoint

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]


def vetted(tensor, folder):
    save_file({"a": tensor}, folder / "a.safetensors")
    found = read(folder / "a.safetensors").tensors.vetted("a")
    return found.finite, found.zero


def test_every_type_is_torchs_and_has_its_size():
    for name, dtype in DTYPES.items():
        assert dtype.torch is getattr(torch, name)
        assert dtype.itemsize == dtype.torch.itemsize
        assert dtype.is_floating_point == dtype.torch.is_floating_point


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_finite_and_zero_are_told_from_each_other(tmp_path, dtype):
    largest = torch.finfo(dtype.torch).max
    values = torch.tensor([1.0, -largest, 0.0], dtype=torch.float64).to(dtype.torch)
    assert vetted(values, tmp_path) == (True, False)
    assert vetted(torch.tensor([0.0, -0.0]).to(dtype.torch), tmp_path) == (True, True)
    assert vetted(torch.tensor([1.0, float("nan")]).to(dtype.torch), tmp_path) == (False, False)
    if dtype.name != "float8_e4m3fn":  # has no infinity
        values = torch.tensor([1.0, -float("inf")]).to(dtype.torch)
        assert vetted(values, tmp_path) == (False, False)


def test_whole_numbers_are_finite_and_zero_or_not(tmp_path):
    assert vetted(torch.tensor([0, -1]), tmp_path) == (True, False)
    assert vetted(torch.tensor([0, 0]), tmp_path) == (True, True)


def test_a_value_beyond_the_first_megabyte_counts(tmp_path):
    values = torch.ones(700_000)
    values[-1] = float("nan")
    assert vetted(values, tmp_path) == (False, False)


def test_of_a_view_only_its_own_elements_count(tmp_path):
    storage = torch.full((8, 8), float("nan"))
    storage[:, 0] = 0
    torch.save({"a": storage[:, 0], "b": storage}, tmp_path / "a.pth")
    tensors = read(tmp_path / "a.pth").tensors
    assert (tensors.vetted("a").finite, tensors.vetted("a").zero) == (True, True)
    assert not tensors.vetted("b").finite


def test_bytes_that_do_not_match_their_checksum_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    raw = bytearray(path.read_bytes())
    at = raw.index(torch.arange(1000.0).numpy().tobytes())
    raw[at + 100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UnreadableCheckpoint, match="CRC-32"):
        read(path).tensors.vetted("a")
