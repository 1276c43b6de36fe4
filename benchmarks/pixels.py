"""A file to a 224 x 224 or 512 x 512 tensor: this package, its peers, and the floor under all.

    python benchmarks/pixels.py [--rounds 7] [--json FILE]

One noisy radiograph-like picture is drawn and written as an uncompressed 12-bit DICOM, a 16-bit
PNG, an 8-bit PNG and a JPEG, square, so that cropping and squashing are the same. All ways run
once in each round on one thread, and a ratio is the median of its rounds'. The floor is the
fastest exact decoder that is installed and torch's antialiased kernel in float32. The error is
the largest difference to an antialiased triangle filter in float64 of the file's own pixels.
torchxrayvision, MONAI, torchvision and imagecodecs are measured where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from torch.nn.functional import interpolate

from cxr_foundation.contract import InputContract
from cxr_foundation.images.processor import Processor

TARGETS = {
    "ours / floor": ("at most", 1.3),
    "torchxrayvision / ours": ("at least", 8.0),
    "error": ("at most", 1e-6),
}
SIDES = (224, 512)
Way = Callable[[Path, int], torch.Tensor]
Array = npt.NDArray[Any]


def drawn(side: int, bits: int) -> Array:
    """Two lungs, ribs and quantum noise: uint8 or uint16 (side, side)."""
    y, x = np.mgrid[0:side, 0:side] / side
    chest = 0.25 + 0.5 * np.exp(-((x - 0.5) ** 2 / 0.18 + (y - 0.55) ** 2 / 0.3))
    for centre in (0.3, 0.7):
        chest -= 0.35 * np.exp(-((x - centre) ** 2 / 0.02 + (y - 0.45) ** 2 / 0.07))
    chest += 0.04 * np.sin(60 * y + 6 * np.cos(6 * x))
    chest += np.random.default_rng(0).normal(0, 0.012, chest.shape)
    return (np.clip(chest, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def write(folder: Path) -> dict[str, tuple[Path, Array, int]]:
    """(file, its exact pixels, white) by what it is."""
    deep, flat = drawn(2048, 12), drawn(1024, 8)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    header.SOPInstanceUID = "1.2.3"
    header.Modality, header.PhotometricInterpretation = "DX", "MONOCHROME2"
    header.Rows, header.Columns = deep.shape
    header.SamplesPerPixel, header.PixelRepresentation = 1, 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = deep.tobytes()
    header["PixelData"].VR = "OW"
    header.save_as(folder / "a.dcm", enforce_file_format=True)
    sixteen = drawn(2048, 16)
    Image.fromarray(sixteen).save(folder / "a16.png")
    Image.fromarray(flat).save(folder / "a8.png")
    Image.fromarray(flat).save(folder / "a.jpg", quality=95)
    lossy = np.asarray(Image.open(folder / "a.jpg"))
    return {
        "DICOM, 12 bit, 2048 x 2048": (folder / "a.dcm", deep, 4095),
        "PNG, 16 bit, 2048 x 2048": (folder / "a16.png", sixteen, 65535),
        "PNG, 8 bit, 1024 x 1024": (folder / "a8.png", flat, 255),
        "JPEG, 8 bit, 1024 x 1024": (folder / "a.jpg", lossy, 255),
    }


def reference(pixels: Array, white: int, side: int) -> npt.NDArray[np.float64]:
    """The antialiased triangle filter in float64."""
    scale = len(pixels) / side
    places = (np.arange(side)[:, None] + 0.5) * scale - (np.arange(len(pixels)) + 0.5)
    weights = np.maximum(0.0, 1.0 - np.abs(places) / max(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ (pixels / white) @ weights.T, dtype=np.float64)


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


def kernel(pixels: Array | torch.Tensor, white: int, side: int) -> torch.Tensor:
    """What no exact way can do without: one division and one float32 resize."""
    if isinstance(pixels, torch.Tensor):
        grey = pixels.float().div_(white)
    else:
        grey = torch.from_numpy(np.true_divide(pixels, np.float32(white), dtype=np.float32))
    return interpolate(
        grey[None, None], (side, side), mode="bilinear", antialias=True, align_corners=False
    )[0, 0]


def floors(suffix: str, white: int) -> dict[str, Way]:
    """Every exact decoder with `kernel` behind it."""
    if suffix == ".dcm":

        def bare(path: Path, side: int) -> torch.Tensor:
            file = dcmread(path)
            stored = np.frombuffer(file.PixelData, np.uint16)
            return kernel(stored.reshape(file.Rows, file.Columns), white, side)

        return {"pydicom's header, frombuffer": bare}

    def pillow(path: Path, side: int) -> torch.Tensor:
        return kernel(np.asarray(Image.open(io.BytesIO(path.read_bytes()))), white, side)

    ways: dict[str, Way] = {"Pillow": pillow}
    if installed("torchvision") and white == 255:
        from torchvision.io import ImageReadMode, decode_image, read_file

        def tensors(path: Path, side: int) -> torch.Tensor:
            grey = decode_image(read_file(str(path)), ImageReadMode.GRAY)
            return kernel(grey[0], white, side)

        ways["torchvision.io"] = tensors
    if installed("imagecodecs"):
        import imagecodecs

        decode = imagecodecs.jpeg_decode if suffix == ".jpg" else imagecodecs.png_decode

        def codecs(path: Path, side: int) -> torch.Tensor:
            return kernel(decode(path.read_bytes()), white, side)

        ways["imagecodecs"] = codecs
    return ways


def ours(side: int) -> Way:
    """This package's path."""
    contract = InputContract(channels=1, size=(side, side), mean=(0.0,), std=(1.0,))
    prepare = Processor(contract).prepare
    return lambda path, _: prepare(path)[0]


def peers(suffix: str, white: int) -> dict[str, Way]:
    """The ways that the peers' own documents show, brought to [0, 1] for the comparison."""
    ways: dict[str, Way] = {}
    if installed("torchvision"):
        from torchvision.io import ImageReadMode, decode_image, read_file
        from torchvision.transforms.v2 import functional

        def torchvision(path: Path, side: int) -> torch.Tensor:
            if suffix == ".dcm":
                stored = dcmread(path).pixel_array.astype(np.float32) / white
                return functional.resize(torch.from_numpy(stored)[None], [side, side])[0]
            grey = decode_image(read_file(str(path)), ImageReadMode.GRAY)
            small = functional.resize(grey, [side, side], antialias=True)
            return functional.to_dtype(small, torch.float32, scale=True)[0]

        # torchvision's decoder takes 16-bit PNGs to 8 bits.
        ways["torchvision"] = torchvision
    if installed("torchxrayvision"):
        import torchxrayvision as xrv

        def torchxrayvision(path: Path, side: int) -> torch.Tensor:
            if suffix == ".dcm":
                grey = xrv.utils.read_xray_dcm(path)[None]
            elif white == 255:
                grey = xrv.utils.load_image(str(path))
            else:
                grey = xrv.utils.normalize(np.asarray(Image.open(path)), white)[None]
            grey = xrv.datasets.XRayResizer(side)(xrv.datasets.XRayCenterCrop()(grey))
            return torch.from_numpy((grey[0] + 1024) / 2048)

        ways["torchxrayvision"] = torchxrayvision
    if installed("monai"):
        from monai.data import PILReader, PydicomReader
        from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize
        from monai.transforms import ScaleIntensityRange as Scale

        reader = (
            PydicomReader(swap_ij=False) if suffix == ".dcm" else PILReader(reverse_indexing=False)
        )
        for mode in ("area", "bilinear"):
            steps = {
                side: Compose(
                    [
                        LoadImage(reader, image_only=True),
                        EnsureChannelFirst(),
                        Scale(0, white, 0.0, 1.0),
                        Resize((side, side), mode=mode, anti_aliasing=mode == "bilinear"),
                    ]
                )
                for side in SIDES
            }

            def monai(path: Path, side: int, steps: Any = steps) -> torch.Tensor:
                return torch.as_tensor(steps[side](path)).reshape(side, side)

            ways[f"MONAI, {mode}"] = monai
    return ways


def measure(file: Path, pixels: Array, white: int, side: int, rounds: int) -> dict[str, Any]:
    """Seconds, ratios and errors of every way for one file and size."""
    exact = {f"floor: {k}": v for k, v in floors(file.suffix, white).items()}
    ways = {**exact, "ours": ours(side), **peers(file.suffix, white)}
    truth = reference(pixels, white, side)
    errors: dict[str, float] = {}
    for name in list(ways):
        try:
            result = ways[name](file, side)
        except Exception as error:
            print(f"  {name}: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
            del ways[name]
            continue
        errors[name] = float(np.abs(result.double().numpy() - truth).max())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(file, side)
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    floor = min((name for name in exact if name in middle), key=lambda name: middle[name])
    return {
        "floor": floor,
        "milliseconds": {name: 1e3 * value for name, value in middle.items()},
        "over the floor": {name: _ratio(taken, seconds[floor]) for name, taken in seconds.items()},
        "over ours": {name: _ratio(taken, seconds["ours"]) for name, taken in seconds.items()},
        "error": errors,
    }


def _ratio(taken: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(taken, base, strict=True))


def main() -> int:
    """Run from the command line; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (file, pixels, white) in write(Path(folder)).items():
            for side in SIDES:
                title = f"{kind} to {side} x {side}"
                figures = found[title] = measure(file, pixels, white, side, options.rounds)
                print(f"\n{title}; the floor is {figures['floor'].removeprefix('floor: ')}")
                print(f"  {'':36}{'ms':>9}{'/ floor':>9}{'/ ours':>9}{'error':>10}")
                for name, value in figures["milliseconds"].items():
                    over, than = figures["over the floor"][name], figures["over ours"][name]
                    error = figures["error"][name]
                    print(f"  {name:36}{value:9.1f}{over:9.2f}{than:9.2f}{error:10.1e}")
                reached = {
                    "ours / floor": figures["over the floor"]["ours"],
                    "torchxrayvision / ours": figures["over ours"].get("torchxrayvision"),
                    "error": figures["error"]["ours"],
                }
                for name, value in reached.items():
                    direction, bound = TARGETS[name]
                    if value is not None and (value > bound) == (direction == "at most"):
                        missed.append(f"{title}: {name} is {value:.3g}, {direction} {bound:g}")
    print("", *(missed or ["all targets are met"]), sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"found": found, "missed": missed}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
