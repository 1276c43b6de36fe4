"""Names that an honest checkpoint's pickle mentions: what they are, never what they do.

Nothing is imported for any of them. A name that stands here is replaced by a stand-in; any other
name of Python's standard library, torch or numpy is taken for code, and its file is refused.
"""

from __future__ import annotations

import sys

from cxr_foundation.convert.dtypes import DTYPES, DType

__all__ = ["FAMILIES", "INERT", "OURS", "PYTHON2", "STORAGES"]

# https://github.com/pytorch/pytorch/blob/v2.6.0/torch/storage.py, `_dtype_to_storage_type_map`
_STORAGE_NAMES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
STORAGES: dict[str, DType | None] = {
    f"torch.{place}{name}Storage": DTYPES[dtype]
    for place in ("", "cuda.")
    for name, dtype in _STORAGE_NAMES.items()
}
STORAGES["torch.storage.UntypedStorage"] = None

_BUILTINS = (
    "set frozenset list dict tuple int float bool str bytes bytearray complex object slice range "
    "Ellipsis NotImplemented long unicode basestring xrange"
)
_NUMPY = (
    "bool bool_ bytes_ str_ object_ void float16 float32 float64 longdouble complex64 complex128 "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 longlong ulonglong datetime64 timedelta64"
)
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_SCALER = "GradScaler OptState _refresh_per_optimizer_state"
# Types that a file may mention, not ones whose elements it may hold.
_OTHER_DTYPES = (
    "complex32 quint8 qint8 qint32 quint4x2 quint2x4 float8_e4m3fnuz float8_e5m2fnuz "
    "float8_e8m0fnu float4_e2m1fn_x2"
)
INERT = {
    *(f"builtins.{n}" for n in _BUILTINS.split()),
    *(f"collections.{n}" for n in ("OrderedDict", "defaultdict", "Counter", "deque")),
    *(f"{home}.{n}" for home in ("pathlib", "pathlib._local") for n in _PATHS.split()),
    *(f"datetime.{n}" for n in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"typing.{n}" for n in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
    "_codecs.encode",
    "argparse.Namespace",
    "copyreg._reconstructor",
    "functools.partial",
    *(f"logging.{n}" for n in ("Logger", "RootLogger", "getLogger")),
    "decimal.Decimal",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.random._pickle.__{n}_ctor" for n in ("generator", "bit_generator", "randomstate")),
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "random.Random",
    "uuid.UUID",
    *(f"numpy.{n}" for n in _NUMPY.split()),
    *(
        f"numpy.{core}.{n}"
        for core in ("core", "_core")
        for n in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
    "torch.Tensor",
    *(f"torch.{place}{name}Tensor" for place in ("", "cuda.") for name in _STORAGE_NAMES),
    *(f"torch.{place}amp.grad_scaler.{n}" for place in ("", "cuda.") for n in _SCALER.split()),
    *(f"torch._utils.torch.{n}_format" for n in ("contiguous", "preserve")),
    *(f"torch._utils.torch.channels_{n}" for n in ("last", "last_3d")),
    *(f"torch._C._nn.{n}" for n in ("gelu", "silu", "relu6", "elu_", "leaky_relu", "hardswish")),
    *(f"torch.{n}" for n in _OTHER_DTYPES.split()),
    *(f"torch.{n}Storage" for n in ("QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4")),
    "torch.device",
    "torch.serialization._get_layout",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
}
FAMILIES = (
    "lightning.",
    "lightning_fabric.",
    "numpy.dtypes.",
    "omegaconf.",
    "pytorch_lightning.",
    "timm.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.",
    "torchxrayvision.",
)
OURS = frozenset(sys.stdlib_module_names) | {"numpy", "torch"}
# Protocol 2 is written with the module names of Python 2.
PYTHON2 = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "commands": "subprocess",
    "exceptions": "builtins",
}
