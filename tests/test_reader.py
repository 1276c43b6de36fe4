"""Opening checkpoints of unknown origin: what comes out, and what never happens."""

import argparse
import collections
import io
import os
import pickle
import random
import struct
import tarfile

import numpy as np
import pytest
import safetensors.torch
import torch

from cxr_foundation.convert import read, read_checkpoint
from cxr_foundation.errors import CxrError, UnreadableCheckpoint, UnsafeCheckpoint

SENTINEL = "THIS_MUST_NOT_APPEAR"


@pytest.fixture(autouse=True)
def no_code_ran(tmp_path, monkeypatch):
    """Every test of this file ends with the proof that nothing was run."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / SENTINEL).exists()


class Payload:
    def __reduce__(self):
        return os.system, (f"echo x > {SENTINEL}",)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.norm = torch.nn.BatchNorm2d(2)
        self.act = torch.nn.functional.relu
        self.register_buffer("table", torch.arange(3), persistent=False)
        self.note = "an attribute that is no tensor"


def tensors():
    g = torch.Generator().manual_seed(0)
    made = {
        "weight": torch.randn(3, 4, generator=g),
        "half": torch.randn(5, generator=g).half(),
        "brain": torch.randn(2, 2, generator=g).bfloat16(),
        "double": torch.randn(2, generator=g).double(),
        "count": torch.tensor(7),
        "bytes": torch.arange(6, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }
    return made


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)
        assert found[name].is_contiguous()


def legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def old_tar(value, path):
    """The format that torch wrote before 0.1.10, for a flat dictionary of float tensors."""
    protocol = 2
    storages, views = io.BytesIO(), io.BytesIO()
    storages.write(pickle.dumps(len(value), protocol))
    views.write(pickle.dumps(len(value), protocol))
    for n, tensor in enumerate(value.values()):
        kind = b"ctorch\nFloatStorage\n"
        storages.write(b"\x80\x02K" + bytes([n]) + b"X\x03\0\0\0cpu" + kind + b"\x87.")
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        kind = b"ctorch\nFloatTensor\n"
        views.write(b"\x80\x02K" + bytes([100 + n]) + b"K" + bytes([n]) + kind + b"\x87.")
        views.write(struct.pack("<q", tensor.dim()))
        views.write(struct.pack(f"<{tensor.dim()}q", *tensor.shape))
        views.write(struct.pack(f"<{tensor.dim()}q", *tensor.stride()) + struct.pack("<q", 0))
    storages.write(pickle.dumps([], protocol))
    body = b"\x80\x02}("
    for n, name in enumerate(value):
        body += b"X" + struct.pack("<I", len(name)) + name.encode() + b"K" + bytes([100 + n]) + b"Q"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in (
            ("sys_info", pickle.dumps({"little_endian": True}, protocol)),
            ("pickle", body + b"u."),
            ("storages", storages.getvalue()),
            ("tensors", views.getvalue()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# What comes out


def test_a_torch_zip_comes_out_bit_for_bit(tmp_path):
    torch.save(tensors(), tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").container == "torch zip"
    assert_same(read_checkpoint(tmp_path / "a.pth"), tensors())


def test_types_that_torch_writes_with_an_untyped_storage_come_out(tmp_path):
    value = {
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "f8": torch.ones(3).to(torch.float8_e4m3fn),
    }
    torch.save(value, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert found["u16"].tolist() == [1, 65535]
    assert found["f8"].dtype == torch.float8_e4m3fn
    assert found["f8"].float().tolist() == [1.0, 1.0, 1.0]


def test_a_legacy_stream_comes_out_bit_for_bit(tmp_path):
    legacy(tensors(), tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").container == "torch legacy"
    assert_same(read_checkpoint(tmp_path / "a.pth"), tensors())


def test_a_safetensors_file_comes_out_bit_for_bit(tmp_path):
    safetensors.torch.save_file(tensors(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    expected = safetensors.torch.load_file(tmp_path / "a.safetensors")
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors").container == "safetensors"
    assert_same({n: found[n] for n in sorted(found)}, {n: expected[n] for n in sorted(expected)})


def test_an_old_tar_comes_out_bit_for_bit(tmp_path):
    value = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -1.0])}
    old_tar(value, tmp_path / "a.pth.tar")
    assert read(tmp_path / "a.pth.tar").container == "torch tar"
    assert_same(read_checkpoint(tmp_path / "a.pth.tar"), value)


def test_what_a_file_is_does_not_depend_on_its_name(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_checkpoint(tmp_path / "a.safetensors")["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("save", [torch.save, legacy])
def test_a_training_checkpoint_gives_its_tensors_and_nothing_else(tmp_path, save):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net.conv(torch.ones(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 3,
        "arch": "net",
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
        "best": np.float64(0.5),
        "history": np.arange(3.0),
        "meters": collections.defaultdict(list, loss=[1.0]),
    }
    save(value, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    expected = {f"state_dict.{n}": t for n, t in net.state_dict().items()}
    momenta = {n: t for n, t in found.items() if n.startswith("optimizer.state.")}
    assert_same({n: found[n] for n in expected}, expected)
    assert sorted(momenta) == [
        "optimizer.state.0.momentum_buffer",
        "optimizer.state.1.momentum_buffer",
    ]
    assert len(found) == len(expected) + len(momenta)


@pytest.mark.parametrize("save", [torch.save, legacy])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_a_pickled_module_of_an_unknown_class_gives_its_state_dict(tmp_path, save):
    net = Net()
    save({"model": net}, tmp_path / "a.pth")
    raw = read(tmp_path / "a.pth")
    assert f"{__name__}.Net" in raw.globals_named
    assert_same(dict(raw.tensors), {f"model.{n}": t for n, t in net.state_dict().items()})


def test_views_come_out_as_tensors_of_their_own(tmp_path):
    base = torch.arange(1_000_000.0)
    value = {
        "first": base[:4],
        "second": base[2:6],
        "transposed": base[:6].reshape(2, 3).t(),
        "column": base[:12].reshape(3, 4)[:, 1],
    }
    torch.save(value, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert found["first"].tolist() == [0, 1, 2, 3]
    assert found["second"].tolist() == [2, 3, 4, 5]
    assert found["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["column"].tolist() == [1, 5, 9]
    assert all(t.untyped_storage().nbytes() == 4 * t.numel() for t in found.values())


def test_two_names_of_one_tensor_both_come_out(tmp_path):
    weight = torch.ones(2)
    torch.save({"a": weight, "b": weight}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    found["a"].zero_()
    assert found["b"].tolist() == [1.0, 1.0]


def test_shapes_are_known_before_a_tensor_is_read(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[16000000000],"data_offsets":[0,64000000000]}}'
    path = tmp_path / "sparse.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 64_000_000_000)
    assert read(path).tensors.shapes == {"w": (16_000_000_000,)}


# What never happens


@pytest.mark.parametrize("save", [torch.save, legacy])
def test_a_pickle_with_code_is_refused_by_the_name_of_the_code(tmp_path, save):
    save({"w": torch.ones(2), "z": Payload()}, tmp_path / "a.pth")
    with pytest.raises(UnsafeCheckpoint) as error:
        read_checkpoint(tmp_path / "a.pth")
    assert str(error.value) == (
        f"{tmp_path}/a.pth: it names code: posix.system; nothing was run. "
        "Do not open it with torch.load. Ask its authors for safetensors."
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.utils.collect_env", "run"),
        ("torch.hub", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("collections", "namedtuple"),
        ("runpy", "run_path"),
    ],
)
@pytest.mark.parametrize("called", [True, False])
def test_a_name_that_is_not_on_the_list_is_refused_even_if_it_is_not_called(
    tmp_path, module, name, called
):
    value = f"c{module}\n{name}\n".encode() + (b")R" if called else b"")
    (tmp_path / "a.pth").write_bytes(b"\x80\x02}X\x01\0\0\0w" + value + b"s.")
    with pytest.raises(UnsafeCheckpoint, match=f"names code: {module}.{name}"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_name_of_an_unknown_package_may_be_a_class_but_not_a_call(tmp_path):
    weight = pickle.dumps(1, 2)[2:-1]
    instance = b"\x80\x02}X\x01\0\0\0wcresearch.code\nNet\n)\x81s."
    call = b"\x80\x02}X\x01\0\0\0wcresearch.code\nrun\n" + weight + b"\x85Rs."
    (tmp_path / "instance.pth").write_bytes(instance)
    (tmp_path / "call.pth").write_bytes(call)
    with pytest.raises(UnreadableCheckpoint, match="it holds no tensors"):
        read_checkpoint(tmp_path / "instance.pth")
    with pytest.raises(UnsafeCheckpoint, match=r"names code: research\.code\.run"):
        read_checkpoint(tmp_path / "call.pth")


def test_a_deep_key_is_not_hashed(tmp_path):
    deep = b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s."
    (tmp_path / "a.pth").write_bytes(deep)
    with pytest.raises(UnreadableCheckpoint, match="it holds no tensors"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_huge_memo_index_takes_no_memory(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(UnreadableCheckpoint, match="it holds no tensors"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_claimed_length_is_checked_before_memory_is_taken(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.")
    with pytest.raises(UnreadableCheckpoint, match="the file is cut short"):
        read_checkpoint(tmp_path / "a.pth")


def test_many_views_of_one_storage_are_not_turned_into_memory(tmp_path):
    base = torch.zeros(1000)
    torch.save({f"w{n}": base for n in range(500)}, tmp_path / "a.pth")
    with pytest.raises(UnreadableCheckpoint, match="its tensors claim 2,000,000 bytes"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_flipped_bit_is_found(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match="do not match their CRC-32"):
        read_checkpoint(tmp_path / "a.pth")


# Files that are no checkpoints


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "it is a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a checkpoint of any known kind"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, data, reason):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match=reason):
        read_checkpoint(tmp_path / "a.pth")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UnreadableCheckpoint, match="No such file"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(UnreadableCheckpoint, match="not a regular file"):
        read_checkpoint(tmp_path)
    with pytest.raises(UnreadableCheckpoint, match="not a regular file"):
        read_checkpoint(tmp_path / "pipe.pth")


def samples(folder):
    value = {"state_dict": tensors(), "args": argparse.Namespace(lr=0.1)}
    torch.save(value, folder / "zip.pth")
    legacy(value, folder / "legacy.pth")
    safetensors.torch.save_file(tensors(), folder / "a.safetensors")
    old_tar({"w": torch.ones(2, 2)}, folder / "old.tar")
    return ["zip.pth", "legacy.pth", "a.safetensors", "old.tar"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
    for name in samples(tmp_path):
        data = (tmp_path / name).read_bytes()
        # A tar may lose the zeros that fill its last block and is still whole.
        end = len(data.rstrip(b"\0")) if name == "old.tar" else len(data)
        for length in range(0, end, 37):
            (tmp_path / "cut").write_bytes(data[:length])
            with pytest.raises(UnreadableCheckpoint):
                read_checkpoint(tmp_path / "cut")


def test_mutated_files_give_tensors_or_an_error_of_ours(tmp_path):
    rng = random.Random(0)
    outcomes = collections.Counter()
    for name in samples(tmp_path):
        data = (tmp_path / name).read_bytes()
        for _ in range(200):
            mutant = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(mutant))
                kind = rng.randrange(3)
                if kind == 0:
                    mutant[at] ^= 1 << rng.randrange(8)
                elif kind == 1:
                    mutant[at : at + 8] = b"\xff" * 8
                else:
                    other = rng.randrange(len(mutant))
                    mutant[at : at + 16] = mutant[other : other + 16]
            (tmp_path / "mutant").write_bytes(mutant)
            try:
                read_checkpoint(tmp_path / "mutant")
                outcomes["read"] += 1
            except CxrError:
                outcomes["refused"] += 1
    assert outcomes.total() == 800
    assert outcomes["refused"] > 400
