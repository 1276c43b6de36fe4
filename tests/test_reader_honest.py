"""What honest checkpoints hold beside their tensors, and every way in which torch writes a tensor.

Each test says what comes out of a file. That nothing in it runs is the subject of `test_reader`.
"""

import argparse
import collections
import datetime
import functools
import io
import logging
import pathlib
import pickle
import random
import struct
import types
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from cxr_foundation.convert import read, read_checkpoint
from cxr_foundation.errors import UnreadableCheckpoint

LINEAR = nn.Linear(2, 2)
EXTRAS = {
    "arguments": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/runs/1"), device="cuda"),
    "a namespace": types.SimpleNamespace(epochs=3),
    "meters": collections.defaultdict(list, loss=[1.0, 0.5]),
    "counts": collections.Counter("abca"),
    "a queue": collections.deque([0.1], maxlen=5),
    "sets": [{1, 2}, frozenset({"a"})],
    "a partial class": functools.partial(nn.LayerNorm, eps=1e-6),
    "activations": [nn.functional.relu, nn.functional.gelu, nn.GELU()],
    "a device": torch.device("cuda:0"),
    "a size": torch.Size([3, 224, 224]),
    "types": [torch.float16, torch.quint8, torch.strided, float, np.float32, np.int8],
    "the version of torch": torch.__version__,
    "an enum of torchvision": torchvision.transforms.InterpolationMode.BICUBIC,
    "numpy scalars": [np.float64(0.5), np.float32(1), np.int64(3), np.bool_(True), np.str_("a")],
    "numpy arrays": [np.arange(3.0), np.array(["a"], dtype=object), np.arange(6).reshape(2, 3).T],
    "states of random numbers": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
    "generators": [random.Random(0), np.random.default_rng(0), np.random.RandomState(0)],
    "times": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1)],
    "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")],
    "odd values": [..., NotImplemented, 1j, slice(1), range(3), bytearray(b"a"), 1 << 200],
    "long bytes": b"x" * 200_000,
    "a logger": logging.getLogger("training"),
    "a scaler": torch.amp.GradScaler("cpu"),
    "a schedule": torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD(LINEAR.parameters(), lr=0.1), 3
    ),
    "keys that are not text": {0: 1, 0.5: 2, None: 3, b"a": 4, (1, 2): 5, True: 6},
}


@pytest.mark.parametrize("what", EXTRAS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_value_beside_the_weights_does_not_keep_them_from_being_read(
    tmp_path, what, protocol, zipped
):
    path = tmp_path / "a.pth"
    value = {"state_dict": {"w": torch.ones(2)}, "extra": EXTRAS[what], "b": torch.zeros(1)}
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert read(path).container == ("torch zip" if zipped else "torch legacy")
    found = read_checkpoint(path)
    assert found["state_dict.w"].tolist() == [1.0, 1.0]
    assert found["b"].tolist() == [0.0]


class Marked(torch.Tensor):
    """A subclass of a tensor, as libraries of data types have them."""


def annotated():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    parameter.weight_decay = 0.0
    return parameter


def a_view():
    return torch.arange(12.0).reshape(3, 4)[1:, ::2]


TENSORS = {
    "a parameter": lambda: nn.Parameter(torch.tensor([1.0, 2.0])),
    "a frozen parameter": lambda: nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False),
    "a parameter with attributes": annotated,
    "a subclass": lambda: torch.tensor([1.0, 2.0]).as_subclass(Marked),
    "a view with steps": a_view,
    "a transposed one": lambda: torch.arange(6.0).reshape(2, 3).t(),
    "channels last": lambda: (
        torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    ),
    "an expanded one": lambda: torch.ones(1).expand(1, 1),
    "a complex one": lambda: torch.tensor([1 + 2j]),
    "a scalar": lambda: torch.tensor(3),
    "an empty one": lambda: torch.empty(0, 4),
    **{
        f"elements of {name}": functools.partial(torch.ones, 3, dtype=getattr(torch, name))
        for name in "float16 bfloat16 float64 int8 int16 int32 uint8 uint16 uint64 bool".split()
    },
}


@pytest.mark.parametrize("what", TENSORS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_comes_out_with_its_values(tmp_path, what, zipped):
    tensor = TENSORS[what]()
    torch.save({"w": tensor}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "a.pth")["w"]
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor.detach().as_subclass(torch.Tensor))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (lambda: torch.eye(2).to_sparse(), "a sparse tensor"),
        (lambda: torch.empty(2, device="meta"), "a meta tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8), "QUInt8Storage"),
        (lambda: torch.zeros(2).to(torch.float8_e4m3fnuz), "a tensor of unknown type"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_tensor_that_is_no_run_of_numbers_is_refused_by_its_kind(tmp_path, tensor, reason):
    torch.save({"w": tensor()}, tmp_path / "a.pth")
    with pytest.raises(UnreadableCheckpoint, match=reason):
        read_checkpoint(tmp_path / "a.pth")


# What this machine cannot write, byte by byte


def archive(path, body, *storages):
    """A torch zip with this pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", body)
        file.writestr("a/version", "3\n")
        for key, data in enumerate(storages):
            file.writestr(f"a/data/{key}", data)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def storage(numel=2, *, where="cpu", kind=("torch", "FloatStorage"), key="0"):
    key = text("storage") + name(*kind) + text(key) + text(where) + b"K" + bytes([numel])
    return b"(" + key + b"tQ"


def tensor(numel=2, *, more=b"", **kwargs):
    """`_rebuild_tensor_v2` of a vector."""
    size = b"K" + bytes([numel]) + b"\x85K\x01\x85"
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild + b"(" + storage(numel, **kwargs) + b"K\0" + size + b"\x89" + hooks + more + b"tR"
    )


ONE_TWO = struct.pack("<2f", 1.0, 2.0)


def read_pickled(path, value, *storages):
    archive(path, b"\x80\x02}" + text("w") + value + b"s.", *(storages or [ONE_TWO]))
    return read_checkpoint(path)["w"].tolist()


def test_a_tensor_that_was_on_a_graphics_card(tmp_path):
    path = tmp_path / "a.pth"
    assert read_pickled(path, tensor(where="cuda:0")) == [1.0, 2.0]
    assert read_pickled(path, tensor(kind=("torch.cuda", "FloatStorage"))) == [1.0, 2.0]


def test_a_tensor_with_the_metadata_of_newer_versions(tmp_path):
    assert read_pickled(tmp_path / "a.pth", tensor(more=b"}" + text("conj") + b"\x89s")) == [1, 2]


def test_a_parameter_with_state(tmp_path):
    rebuild = name("torch._utils", "_rebuild_parameter_with_state")
    state = b"}" + text("weight_decay") + b"G" + struct.pack(">d", 0.0) + b"s"
    value = rebuild + b"(" + tensor() + b"\x88" + name("collections", "OrderedDict") + b")R"
    assert read_pickled(tmp_path / "a.pth", value + state + b"tR") == [1.0, 2.0]


def test_a_tensor_of_another_device_that_was_saved_through_the_cpu(tmp_path):
    rebuild = name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    value = rebuild + b"(" + tensor() + name("torch", "float32") + text("xla:0") + b"\x89tR"
    assert read_pickled(tmp_path / "a.pth", value) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("_rebuild_device_tensor_from_numpy", "non-CPU"),
        ("_rebuild_wrapper_subclass", "wrapped"),
        ("_rebuild_nested_tensor", "nested"),
    ],
)
def test_a_tensor_without_bytes_of_its_own_is_refused_by_its_kind(tmp_path, function, kind):
    with pytest.raises(UnreadableCheckpoint, match=f"it holds a {kind} tensor"):
        read_pickled(tmp_path / "a.pth", name("torch._utils", function) + b")R")


@pytest.mark.parametrize("core", ["core", "_core"])
def test_scalars_and_arrays_of_both_generations_of_numpy(tmp_path, core):
    kind = name("numpy", "dtype") + text("f8") + b"\x89\x88\x87R"
    number = name(f"numpy.{core}.multiarray", "scalar") + kind + b"C\x08" + bytes(8) + b"\x86R"
    array = name(f"numpy.{core}.numeric", "_frombuffer") + b"(C\x08" + bytes(8) + kind + b"tR"
    extras = b"]" + number + b"a" + array + b"a"
    body = b"\x80\x04}" + text("loss") + extras + b"s" + text("w") + tensor() + b"s."
    archive(tmp_path / "a.pth", body, ONE_TWO)
    assert list(read_checkpoint(tmp_path / "a.pth")) == ["w"]


def test_a_checkpoint_that_python_2_wrote(tmp_path):
    def old(value):
        return b"U" + bytes([len(value)]) + value

    extras = b"}" + old(b"caf\xe9") + name("__builtin__", "set") + b"]K\x01a\x85Rs"
    extras += old(b"steps") + name("__builtin__", "long") + b"s"
    instance = name("copy_reg", "_reconstructor") + name("research", "Net")
    instance += name("__builtin__", "object") + b"N\x87R}" + old(b"depth") + b"K\x02sb"
    items = old(b"extra") + extras + b"s" + old(b"net") + instance + b"s" + old(b"w") + tensor()
    archive(tmp_path / "a.pth", b"\x80\x02}" + items + b"s.", ONE_TWO)
    assert list(read_checkpoint(tmp_path / "a.pth")) == ["w"]


# hyper_parameters of PyTorch Lightning with a configuration of OmegaConf: the opcodes that
# omegaconf 2.3 and torch's protocol 2 write for {"lr": 0.1}, shortened to one node.


def omegaconf_config():
    def instance(module, cls, state):
        return name(module, cls) + b")\x81" + state + b"b"

    def pairs(*items):
        return b"}(" + b"".join(text(key) + value for key, value in items) + b"u"

    whole, anything = name("__builtin__", "long"), name("typing", "Any")
    leaf = pairs(("ref_type", anything), ("object_type", anything), ("optional", b"\x88"))
    node = pairs(
        ("_metadata", instance("omegaconf.base", "Metadata", leaf)),
        ("_val", b"G" + struct.pack(">d", 0.1)),
    )
    top = pairs(
        ("ref_type", anything), ("object_type", name("__builtin__", "dict")), ("key_type", whole)
    )
    content = pairs(("lr", instance("omegaconf.nodes", "AnyNode", node)))
    flags = name("collections", "defaultdict") + name("__builtin__", "list") + b"\x85R"
    state = pairs(
        ("_metadata", instance("omegaconf.base", "ContainerMetadata", top)),
        ("_content", content),
        ("_flags_cache", flags),
    )
    return instance("omegaconf.dictconfig", "DictConfig", state)


def test_a_lightning_checkpoint_with_a_configuration_of_omegaconf(tmp_path):
    weights = b"}" + text("gloria.img_encoder.model.bn1.bias") + tensor() + b"s"
    scheduler = name("pytorch_lightning.utilities.enums", "GradClipAlgorithmType")
    items = text("hyper_parameters") + omegaconf_config() + b"s"
    items += text("clip") + scheduler + text("norm") + b"\x85Rs"
    items += text("state_dict") + weights + b"s"
    archive(tmp_path / "a.ckpt", b"\x80\x02}" + items + b".", ONE_TWO)
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert list(found) == ["state_dict.gloria.img_encoder.model.bn1.bias"]


def test_a_configuration_of_the_installed_omegaconf(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"a": {"b": [1, "x", None]}, "c": "${a.b}"})
    torch.save({"w": torch.ones(2), "hyper_parameters": config}, tmp_path / "a.ckpt")
    assert list(read_checkpoint(tmp_path / "a.ckpt")) == ["w"]


# Whole modules


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_a_pickled_network_of_torchxrayvision(tmp_path, zipped):
    torchxrayvision = pytest.importorskip("torchxrayvision")
    torch.manual_seed(0)
    net = torchxrayvision.models.DenseNet(
        num_classes=18, in_channels=1, growth_rate=4, block_config=(1, 1), num_init_features=8
    )
    net.op_threshs = torch.linspace(0, 1, 18)
    net.pathologies = net.targets = ["Atelectasis", ""]
    torch.save(net, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    raw = read(tmp_path / "a.pt")
    assert "torchxrayvision.models.DenseNet" in raw.globals_named
    found, state = dict(raw.tensors), net.state_dict()
    # An attribute that is no buffer is in no state_dict either.
    assert list(found) == list(state)
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_a_whole_network_inside_a_data_parallel_wrapper(tmp_path):
    net = nn.DataParallel(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    torch.save({"net": net}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert list(found) == [f"net.{key}" for key in net.state_dict()]


def test_the_file_of_a_stock_optimizer_is_read_in_full(tmp_path):
    LINEAR(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.AdamW(LINEAR.parameters(), amsgrad=True)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert {key.rpartition(".")[2] for key in found} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
    }


def test_what_python_itself_would_pickle_with_any_protocol_is_told_apart_from_a_checkpoint(
    tmp_path,
):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        buffer = io.BytesIO()
        pickle.dump({"epoch": 3}, buffer, protocol)
        (tmp_path / "a.pkl").write_bytes(buffer.getvalue())
        with pytest.raises(UnreadableCheckpoint, match="it holds no tensors"):
            read_checkpoint(tmp_path / "a.pkl")
