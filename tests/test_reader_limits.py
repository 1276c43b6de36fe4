"""Small files that ask for much: hours of hashing, gigabytes of copies, stacks without end.

Each is refused, or read without what was asked for, in seconds and without memory. The files are
written opcode by opcode: no pickler would make them.
"""

import resource
import signal
import struct
import tarfile
from io import BytesIO

import pytest
import safetensors.torch
import torch

from cxr_foundation.convert import read_checkpoint
from cxr_foundation.errors import UnreadableCheckpoint, UnsafeCheckpoint

MEGABYTES = 512


class TooSlow(BaseException):
    """Not an Exception: no reader could swallow it."""


@pytest.fixture(autouse=True)
def caps():
    """Ten seconds of the processor and 512 MB for every test of this file."""

    def stop(*_):
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_VIRTUAL, 10)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < MEGABYTES << 10


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def remembered(value, n):
    """Put a value into the memo and take it from the stack."""
    return value + b"r" + struct.pack("<I", n) + b"0"


def refused(tmp_path, body, reason, error=UnreadableCheckpoint):
    (tmp_path / "a.pth").write_bytes(b"\x80\x04" + body + b".")
    with pytest.raises(error, match=reason) as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert len(str(caught.value)) < 1000


# A tensor of 0 elements: the largest that a bare pickle can hold.
EMPTY_STORAGE = (
    b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\0tQ"
)
TENSOR = b"ctorch._utils\n_rebuild_tensor\n(" + EMPTY_STORAGE + b"K\0K\0\x85K\x01\x85tR"


def test_keys_with_one_hash_are_not_compared_with_each_other(tmp_path):
    # Python hashes a whole number by its remainder by 2^61 - 1.
    step = (1 << 61) - 1
    keys = b"".join(b"\x8a\x0b" + (n * step).to_bytes(11, "little") + b"N" for n in range(60_000))
    refused(tmp_path, b"}(" + keys + b"u", "it holds no tensors")
    pairs = b"".join(
        b"\x8a\x0b" + (n * step).to_bytes(11, "little") + b"N\x86" for n in range(30_000)
    )
    built = b"ccollections\nOrderedDict\n](" + pairs + b"e\x85R"
    refused(tmp_path, built, "it holds no tensors")


def test_a_number_of_many_digits_is_no_key(tmp_path):
    number = remembered(b"\x8b" + struct.pack("<I", 4 << 20) + b"\x7f" * (4 << 20), 0)
    refused(tmp_path, number + b"}(" + b"h\0N" * 100_000 + b"u", "it holds no tensors")


@pytest.mark.parametrize(
    "call", [b"cbuiltins\nlist\n", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n"]
)
def test_a_list_is_not_copied_again_and_again(tmp_path, call):
    long = remembered(b"](" + b"N" * 1_000_000 + b"e\x85", 0) + remembered(call, 1)
    body = long + b"](" + b"h\x01h\0R" * 100_000 + b"e"
    refused(tmp_path, body, "rebuilds more than any checkpoint|repeat without end")


def test_tensors_are_not_rebuilt_without_end(tmp_path):
    arguments = b"(" + EMPTY_STORAGE + b"K\0K\0\x85K\x01\x85t"
    body = remembered(b"ctorch._utils\n_rebuild_tensor\n", 0) + remembered(arguments, 1)
    refused(tmp_path, body + b"](" + b"h\0h\x01R" * 200_000 + b"e", "rebuilds more than any")


def test_subclasses_of_tensors_may_be_nested_without_end(tmp_path):
    again = remembered(b"ctorch._tensor\n_rebuild_from_type_v2\n", 0)
    layers = b"(h\0N" * 100_000 + b")" + b"Nt" * 100_000
    refused(tmp_path, again + b"h\0" + layers + b"R", "wrong number of arguments|without arguments")


def test_a_long_name_is_not_joined_for_every_tensor_below_it(tmp_path):
    below = b"}(" + b"".join(text(f"{n}") + b"h\0" for n in range(5_000)) + b"u"
    for size in (1_000, 60_000, 20 << 20):
        body = remembered(TENSOR, 0) + b"}" + text("x" * size) + below + b"s"
        refused(tmp_path, body, r"a tensor's name has more than 512|storage '0' is not in the file")


def test_deep_and_wide_contents_are_walked_without_copies_of_their_path(tmp_path):
    wide = b"](" + b"h\0" * 100_000 + b"e"
    body = remembered(b"]Na", 0) + b"]" * 60 + wide + b"a" * 60
    refused(tmp_path, body, "it holds no tensors")
    refused(tmp_path, b"]" * 70 + b"a" * 69, "nested deeper than 64")


def test_contents_that_hold_themselves_twice_end(tmp_path):
    doubled = b"]" + b"2\x86" * 60
    refused(tmp_path, doubled, "its contents repeat without end")


def test_modules_that_share_a_long_list_of_buffers_end(tmp_path):
    names = remembered(b"](" + b"".join(text(f"{n}") for n in range(100_000)) + b"e", 0)
    state = b"}(" + text("_non_persistent_buffers_set") + b"h\0" + text("_modules") + b"}"
    state += text("_buffers") + b"}" + text("b") + b"Nsu"
    module = remembered(b"ctorch.nn\nModule\n)\x81" + state + b"b", 1)
    refused(tmp_path, names + module + b"](" + b"h\x01" * 100_000 + b"e", "lists 100,000 buffers")


def test_names_of_classes_are_short_and_few(tmp_path):
    long = remembered(text("m" * 60_000), 0) + b"](" + (b"h\0" + text("a") + b"\x93") * 10 + b"e"
    refused(tmp_path, long, "a name in the pickle never ends")
    many = b"".join(text("m") + text(f"C{n}") + b"\x93" for n in range(20_000))
    refused(tmp_path, b"](" + many + b"e", "names more than 10,000 classes")
    same = remembered(text("m" * 1000), 0) + remembered(text("C" * 1000), 1)
    refused(tmp_path, same + b"](" + b"h\0h\x01\x93" * 300_000 + b"e", "it holds no tensors")


def test_long_text_is_passed_over(tmp_path):
    astral = "\U0001f600".encode() * (10 << 20)
    refused(tmp_path, text(astral), "it holds no tensors")
    refused(tmp_path, b"X" + struct.pack("<I", 1 << 31), "the file is cut short")


def test_a_path_that_leads_out_of_a_library_is_code(tmp_path):
    name = text("torch.nn") + text("functional.torch.os.system") + b"\x93"
    refused(tmp_path, name, r"names code: torch\.nn\.functional", UnsafeCheckpoint)


@pytest.mark.parametrize(
    "function",
    [b"ctimm.models\ncreate_model\n", b"ctorchvision.datasets.utils\ndownload_url\n"],
)
def test_a_function_of_a_known_library_is_not_called(tmp_path, function):
    refused(tmp_path, function + text("x") + b"\x85R", "names code", UnsafeCheckpoint)


def test_an_empty_tensor_of_endless_size_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(
        safetensors.torch.save({"w": torch.zeros(0, 1, 1)}).replace(
            b'"shape":[0,1,1]', b'"shape":[0,%d,%d]' % (1 << 61, 1 << 61)
        )
    )
    data = (tmp_path / "a.safetensors").read_bytes()
    header = data[8:]
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UnreadableCheckpoint, match="larger than any tensor can be"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("inner", ['"a":[{},{}', '"a":{"dtype":[[]],"shape":[[[]]]'])
def test_a_header_that_parses_into_gigabytes_is_not_parsed(tmp_path, inner):
    header = b"{" + inner.encode() + b",[]" * (5 << 20) + b"}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UnreadableCheckpoint, match="its header claims"):
        read_checkpoint(tmp_path / "a.safetensors")


def tar(path, **members):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, BytesIO(data))


def test_a_tar_of_many_parts_of_parts_ends(tmp_path):
    one = b"\x80\x02K\x01."
    storages = one + b"\x80\x02K\x01" + text("cpu") + b"ctorch\nFloatStorage\n\x87."
    storages += struct.pack("<q", 1) + bytes(4)
    number = [b"J" + struct.pack("<i", n) for n in range(19_002)]
    parts = b"".join(b"(" + number[n] + number[n - 1] + b"K\0K\x01t" for n in range(2, 19_001))
    tensors = b"\x80\x02M\x10\x27." + b"".join(
        b"\x80\x02"
        + b"J"
        + struct.pack("<i", 30_000 + n)
        + number[19_000]
        + b"ctorch\nFloatTensor\n\x87."
        + struct.pack("<qqqq", 1, 1, 1, 0)
        for n in range(10_000)
    )
    names = b"".join(
        text(f"{n}") + b"J" + struct.pack("<i", 30_000 + n) + b"Q" for n in range(10_000)
    )
    tar(
        tmp_path / "a.tar",
        sys_info=b"\x80\x02}.",
        pickle=b"\x80\x02}(" + names + b"u.",
        storages=storages + b"\x80\x02](" + parts + b"e.",
        tensors=tensors,
    )
    assert len(read_checkpoint(tmp_path / "a.tar")) == 10_000


def test_a_tar_that_counts_to_the_sky_is_refused(tmp_path):
    count = b"\x80\x02\x8a\x07" + b"\xff" * 6 + b"\0."
    members = {"sys_info": b"\x80\x02}.", "pickle": b"\x80\x02}.", "tensors": count}
    tar(tmp_path / "a.tar", **members, storages=count)
    with pytest.raises(UnreadableCheckpoint, match="at most 20,000 are read"):
        read_checkpoint(tmp_path / "a.tar")
