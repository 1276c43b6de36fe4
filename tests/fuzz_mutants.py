"""Sound small files and how they are mutated: bytes, lengths, JSON, pickle opcodes, archives."""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import pickle
import pickletools
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import encoders
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

SENTINEL = "EXECUTED"
Members = list[tuple[str, bytes]]

TINY = {"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 1, "in_chans": 1}
_LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_LONG = (*_LENGTHS, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_NAMES = (
    b"os\nsystem\n",
    b"posix\nsystem\n",
    b"builtins\neval\n",
    b"builtins\ngetattr\n",
    b"__builtin__\nlong\n",
    b"builtins\nlist\n",
    b"builtins\nset\n",
    b"collections\nOrderedDict\n",
    b"collections\ndefaultdict\n",
    b"numpy.core.multiarray\nscalar\n",
    b"fuzzed_module\nPayload\n",
    b"torch\nSize\n",
    b"torch\nfloat16\n",
    b"torch\nHalfStorage\n",
    b"torch.storage\nUntypedStorage\n",
    b"torch.storage\n_load_from_bytes\n",
    b"torch._utils\n_rebuild_tensor\n",
    b"torch._utils\n_rebuild_tensor_v3\n",
    b"torch._utils\n_rebuild_parameter\n",
    b"torch._utils\n_rebuild_sparse_tensor\n",
    b"torch._tensor\n_rebuild_from_type_v2\n",
    b"torch.nn.modules.linear\nLinear\n",
    b"torch.nn\nfunctional.torch.os.system\n",
    b"timm.models\ncreate_model\n",
)
_PAYLOAD = b"cposix\nsystem\nX" + struct.pack("<I", len(SENTINEL) + 2) + b"> " + SENTINEL.encode()
_SNIPPETS = (
    _PAYLOAD + b"\x85R",
    _PAYLOAD + b"\x85R0",
    b"cfuzzed_module\nPayload\n)R",
    b"cfuzzed_module\nPayload\n)\x81}b",
    b"(" * 50,
    b"]" * 50,
    b")" + b"\x85" * 2000,
    b"}q\x00h\x00h\x00s",
    b"2" * 50,
    b"\x8a\x20" + b"\xff" * 32,
    b"\x8e" + struct.pack("<Q", 1 << 62),
    b"X" + struct.pack("<I", (1 << 32) - 1),
    b"\x95" + struct.pack("<Q", (1 << 64) - 1),
    b"j\xff\xff\xff\xff",
    b"X\x05\0\0\0a\xed\xa0\x80b",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    17,
    10**400,
    -(10**30),
    1 << 63,
    0.0,
    1.5,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "\u202e\x1b[2J",
    "__class__",
    "../../etc/passwd",
    "x" * 5000,
    [],
    {},
    [[]],
    [1],
    [0, 0, 0],
    [1, 2, 3, 4],
    [10**400] * 3,
    [float("inf")],
    ["a"],
    [None] * 40,
    {"a": {"b": []}},
)
_KEYS = (
    "act_layer",
    "architecture",
    "attn_drop_rate",
    "auto_map",
    "cache_dir",
    "checkpoint_path",
    "class_token",
    "contract",
    "cxr_foundation",
    "data_offsets",
    "depth",
    "device",
    "drop_path_rate",
    "dtype",
    "embed_dim",
    "embed_layer",
    "features_only",
    "file",
    "fix_init",
    "global_pool",
    "img_size",
    "in_chans",
    "init_values",
    "kernel_size",
    "label_names",
    "mlp_ratio",
    "model_args",
    "norm_layer",
    "num_classes",
    "num_heads",
    "out_indices",
    "patch_size",
    "pos_embed",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "qkv_bias",
    "reg_tokens",
    "scriptable",
    "shape",
    "url",
    "weight_init",
    "window_size",
    "__metadata__",
)

_SCALARS = (
    *(b"", b"~", b"no", b"1e400", b"-.inf", b".nan", b"0x10", b"0o7", b"1_000", b"12:30:45"),
    *(b"1" * 19, b"1" * 400, b"." + b"9" * 400, b"2020-01-01", b"!!python/name:os.system x"),
    *(b"!!binary aGk=", b"&a [*a]", b"*a", b"<<", b'"\\ud800"', b'"\\U0001F600"', b'"\\x1b[2J"'),
    *(b'"' + "\u202e".encode() + b'"', b"|\n  text", b">-\n  text", b"{a: {b: [1, 2]}}", b"[" * 50),
    *(b"[]", b"{}", b"[1, x, null]", b"? [a]", b"@x", b"`", b"%YAML 1.1", b"'\x00'", b"\xff\xfe"),
    *(b"../../x", b"http://127.0.0.1/x", b"verified 2020-01-01 x", b"bytes 2020-99-99 x", b"\t"),
    *(b"---", b"...", b"a: b: c", b"x" * 5000, b"[" + b"1," * 3000 + b"]"),
)


# Bytes


def lengths_set(data: bytearray, rng: random.Random, at: int | None = None) -> None:
    """Overwrite 2, 4 or 8 bytes with an extreme number."""
    width, form = rng.choice(((2, "<H"), (4, "<I"), (8, "<Q"), (8, ">Q")))
    place = rng.randrange(len(data)) if at is None else at
    data[place : place + width] = struct.pack(form, rng.choice(_LONG) & ((1 << 8 * width) - 1))


def bytes_changed(data: bytes, rng: random.Random, other: bytes, times: int = 3) -> bytes:
    """Flip, set, insert, delete, repeat, cut, splice."""
    made = bytearray(data)
    for _ in range(rng.randint(1, times)):
        if not made:
            return bytes(made)
        at, length = rng.randrange(len(made)), rng.choice((1, 1, 2, 4, 8, 30, 200))
        # What a container says about itself stands at both its ends.
        if rng.random() < 0.5:
            at = min(rng.randrange(400), len(made) - 1)
            at = at if rng.random() < 0.5 else len(made) - 1 - at
        match rng.randrange(9):
            case 0 | 1:
                made[at] ^= 1 << rng.randrange(8)
            case 2:
                made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                made[at:at] = rng.randbytes(length)
            case 4:
                del made[at : at + length]
            case 5:
                made[at:at] = made[at : at + length] * rng.choice((1, 2, 50))
            case 6:
                del made[at:]
            case 7:
                start = rng.randrange(len(other))
                made[at : at + length] = other[start : start + length]
            case 8:
                lengths_set(made, rng, at)
    return bytes(made)


# JSON


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        yield from _places(child, (*path, key))


def json_changed(value: Any, rng: random.Random, extra: tuple[Any, ...] = ()) -> bytes:
    """Text of a JSON value with other types, numbers, keys, depths."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        path = rng.choice([p for p in _places(value) if p] or [()])
        if not path:
            break
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        match rng.randrange(6):
            case 0 | 1 | 2:
                holder[path[-1]] = copy.deepcopy(rng.choice((*_VALUES, *extra)))
            case 3:
                del holder[path[-1]]
            case 4 if isinstance(holder, dict):
                holder[rng.choice(_KEYS)] = copy.deepcopy(rng.choice((*_VALUES, *extra)))
            case 5 if isinstance(holder, dict):
                holder[rng.choice(_KEYS)] = holder.pop(path[-1])
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    match rng.randrange(12):
        case 0:
            text = text[:1] + text[1:].replace('"', "'", 1)
        case 1:
            at = text.find(":") + 1
            text = text[:at] + "[" * 3000 + "]" * 3000 + text[at:]
        case 2:
            text = text[:-1] + "," + text[1:]
        case 3:
            text = text.replace("1", rng.choice(("1e999", "1.0", "-1", "01", "1" * 5000)), 1)
        case 4:
            text = "\ufeff" + text
    return text.encode("utf-8", "surrogatepass")


# Pickles


def pickle_changed(body: bytes, rng: random.Random) -> bytes:
    """Swap, drop, repeat and replace opcodes; change names, memo indices and lengths."""
    operations = list(pickletools.genops(body))
    starts = [position for _, _, position in operations if position is not None]
    parts = [body[a:b] for a, b in zip(starts, [*starts[1:], len(body)], strict=True)]
    for _ in range(rng.randint(1, 3)):
        n = rng.randrange(len(parts))
        match rng.randrange(9):
            case 0:
                m = rng.randrange(len(parts))
                parts[n], parts[m] = parts[m], parts[n]
            case 1:
                parts[n] = b""
            case 2:
                parts[n] = parts[n] * rng.choice((2, 3, 100))
            case 3:
                parts[n] = (
                    bytes([rng.choice(pickletools.opcodes).code.encode("latin-1")[0]])
                    + (parts[n][1:])
                )
            case 4:
                named = [i for i, part in enumerate(parts) if part[:1] == b"c"] or [n]
                parts[rng.choice(named)] = b"c" + rng.choice(_NAMES)
            case 5:
                memo = [i for i, part in enumerate(parts) if part[:1] in b"qrhj"] or [n]
                parts[rng.choice(memo)] = rng.choice((b"q", b"h")) + rng.randbytes(1)
            case 6:
                numbers = [i for i, p in enumerate(parts) if p[:1] in (b"K", b"M", b"J")] or [n]
                number = rng.choice(_LONG)
                parts[rng.choice(numbers)] = pickle.dumps(number, 2)[2:-1]
            case 7:
                parts.insert(n, rng.choice(_SNIPPETS))
            case 8:
                sized = [i for i, p in enumerate(parts) if p[:1] in (b"X", b"\x8a")] or [n]
                chosen = bytearray(parts[i := rng.choice(sized)])
                lengths_set(chosen, rng, 1)
                parts[i] = bytes(chosen)
    return b"".join(parts)


# Archives


def zip_of(members: Members) -> bytes:
    """As torch writes it: stored, not compressed. Two members may have one name."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def tar_of(members: Members) -> bytes:
    """As torch wrote it before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def joined(members: Members) -> bytes:
    """A stream: one after the other."""
    return b"".join(data for _, data in members)


def _legacy_parts(data: bytes) -> Members:
    """The five pickles of torch's stream, then its storages."""
    stream, parts = io.BytesIO(data), []
    for n in range(5):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        parts.append((f"pickle {n}", data[start : stream.tell()]))
    return [*parts, ("storages", data[stream.tell() :])]


def _zip_members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def _old_tar() -> Members:
    key, floats = pickle.dumps(1, 2), b"ctorch\nFloatStorage\n\x87."
    storages = key + b"\x80\x02K\x01X\x03\0\0\0cpu" + floats + struct.pack("<q2f", 2, 1.0, 2.0)
    views = key + b"\x80\x02K\x02K\x01ctorch\nFloatTensor\n\x87." + struct.pack("<qqqq", 1, 2, 1, 0)
    return [
        ("sys_info", pickle.dumps({"little_endian": True}, 2)),
        ("pickle", b"\x80\x02}X\x01\0\0\0wK\x02Qs."),
        ("storages", storages + pickle.dumps([], 2)),
        ("tensors", views),
    ]


# Makers


def tiny() -> nn.Module:
    """A vision transformer of 3,000 parameters."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TINY)
    return model


class SafetensorsMaker:
    """Mutants of a safetensors file."""

    file_name = "mutant.safetensors"

    def __init__(self, folder: Path) -> None:
        self._seed = safetensors.torch.save(tiny().state_dict(), {"format": "pt"})
        mixed = {"a": torch.ones(2).half(), "b": torch.ones(3, 2).bfloat16(), "c": torch.tensor(1)}
        self._other = safetensors.torch.save({**mixed, "empty": torch.zeros(0, 2)})

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return [self._seed, self._other]

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        data, other = rng.sample((self._seed, self._other), 2)
        if rng.random() < 0.4:
            return bytes_changed(data, rng, other)
        (length,) = struct.unpack("<Q", data[:8])
        header = json_changed(json.loads(data[8 : 8 + length]), rng)
        if rng.random() < 0.2:
            header = bytes_changed(header, rng, other)
        told = rng.choice(_LONG) if rng.random() < 0.05 else len(header)
        return struct.pack("<Q", told & ((1 << 64) - 1)) + header + data[8 + length :]


class TorchMaker:
    """Mutants of what torch writes: zip, stream, tar and whole modules."""

    file_name = "mutant.pth"

    def __init__(self, folder: Path) -> None:
        self._seeds: list[tuple[Members, Callable[[Members], bytes]]] = [(_old_tar(), tar_of)]
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 1, 32, 32)).sum().backward()
        optimizer.step()
        base = torch.arange(24.0)
        small: dict[str, Any] = {"w": base[:6].reshape(2, 3).t(), "b": base[4:6], "n": [base[:1]]}
        whole: dict[str, Tensor | dict[str, Any]] = {
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "args": argparse.Namespace(lr=0.1, out=Path("a"), betas=(0.9, 0.99)),
        }
        for value in (whole, small, {"model": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))}):
            for protocol in (2, 4):
                for zipped in (True, False):
                    buffer = io.BytesIO()
                    torch.save(
                        value,
                        buffer,
                        pickle_protocol=protocol,
                        _use_new_zipfile_serialization=zipped,
                    )
                    split, pack = (_zip_members, zip_of) if zipped else (_legacy_parts, joined)
                    self._seeds.append((split(buffer.getvalue()), pack))

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return [pack(members) for members, pack in self._seeds]

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        (members, pack), (others, pack_others) = rng.sample(self._seeds, 2)
        way = rng.random()
        if way < 0.25:
            return bytes_changed(pack(members), rng, pack_others(others))
        members = list(members)
        pickles = [n for n, (_, data) in enumerate(members) if data[:1] == b"\x80"]
        # The largest pickle is the one that matters.
        n = max(pickles, key=lambda i: len(members[i][1]))
        if rng.random() < 0.2:
            n = rng.randrange(len(members))
        name, data = members[n]
        if way < 0.75 and n in pickles:
            ends = [op.name for op, _, _ in pickletools.genops(data)]
            assert ends[-1] == "STOP"
            length = self._pickle_length(data)
            data = pickle_changed(data[:length], rng) + data[length:]
        elif way < 0.9:
            data = bytes_changed(data, rng, rng.choice(others)[1])
        elif way < 0.95:
            name = rng.choice((members[0][0], "../x", "a/data/0", "archive/code/x.py", "\u202e"))
        else:
            members.append(rng.choice(others))
        members[n] = (name, data)
        if rng.random() < 0.1:
            del members[rng.randrange(len(members))]
        packed = pack(members)
        return bytes_changed(packed, rng, packed, 1) if rng.random() < 0.1 else packed

    @staticmethod
    def _pickle_length(data: bytes) -> int:
        stream = io.BytesIO(data)
        for _ in pickletools.genops(stream):
            pass
        return stream.tell()


class ConfigMaker:
    """Mutants of the config.json of a published folder; its weights stay sound."""

    file_name = "published/config.json"

    def __init__(self, folder: Path) -> None:
        published = encoders.publish(
            folder / "published",
            "vit_tiny_patch16_224",
            made=encoders.contract(1, 32),
            num_classes=2,
            **{k: v for k, v in TINY.items() if k != "in_chans"},
        )
        self._seed = (published / "config.json").read_bytes()
        os.environ["HF_HUB_OFFLINE"] = "1"
        self._words = (
            *random.Random(0).sample(timm.list_models(), 60),
            *("cxr_vit_b", "cxr_resnet50", "hf-hub:a/b", "local-dir:/etc", "gelu", "swiglu", "avg"),
        )

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return [self._seed]

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        if rng.random() < 0.2:
            return bytes_changed(self._seed, rng, self._seed)
        value = json.loads(self._seed)
        if rng.random() < 0.15:
            value["architecture"] = rng.choice(self._words)
        if rng.random() < 0.4:
            numbers = (*_VALUES, *self._words, 7, 14, 16, 64, 256, 1000, 16_384)
            value["model_args"][rng.choice(_KEYS)] = copy.deepcopy(rng.choice(numbers))
        return json_changed(value, rng, self._words)


class CardMaker:
    """Mutants of the cards that ship."""

    file_name = "README.md"

    def __init__(self, folder: Path) -> None:
        cards = sorted((Path(__file__).parent.parent / "model_cards").glob("*.md"))
        self._seeds = [card.read_bytes() for card in cards]

    def sound(self) -> list[bytes]:
        """Files that must be read."""
        return self._seeds

    def mutant(self, rng: random.Random) -> bytes:
        """One file that may be anything."""
        data, other = rng.choice(self._seeds), rng.choice(self._seeds)
        if rng.random() < 0.3:
            return bytes_changed(data, rng, other)
        lines = data.split(b"\n")
        end = lines.index(b"---", 1)
        for _ in range(rng.randint(1, 3)):
            n = rng.randrange(1, end)
            key, colon, _ = lines[n].partition(b":")
            match rng.randrange(6):
                case 0 | 1 | 2 if colon:
                    lines[n] = key + b": " + rng.choice(_SCALARS)
                case 3:
                    del lines[n]
                    end -= 1
                case 4:
                    lines[n] = lines[n] + b"\n" + lines[rng.randrange(1, end)]
                case 5:
                    lines[n] = b"  " * rng.randrange(4) + lines[n].strip()
            if end < 2:
                break
        return b"\n".join(lines)


MAKERS: dict[str, Callable[[Path], Any]] = {
    "safetensors": SafetensorsMaker,
    "torch": TorchMaker,
    "config": ConfigMaker,
    "card": CardMaker,
}
"""What makes the mutants of a kind; it gets the folder of files that a mutant needs beside it."""
