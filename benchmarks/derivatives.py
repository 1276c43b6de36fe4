"""The same radiograph as a DICOM and as a public data set's picture: how far apart embeddings are.

    python benchmarks/derivatives.py [--data FOLDER] [--dicom FOLDER] [--count 60] [--json FILE]

Most public sets are 8-bit derivatives of DICOM files. Each is built here from DICOM files by the
recipe that its authors published, with pydicom and NumPy alone, and read back; file and derivative
go through the same contract, once for each intensity rule, and the encoder that ships. Shown are
the median and the least cosine over the radiographs, and how often a DICOM's nearest derivative is
its own. The rule that undoes a recipe is named beside it; the others show what a wrong one costs.

* real pixels, simulated headers: the bundled radiographs, or those of --data (index.csv), written
  as 12-bit DICOM files with a window narrower than the detector's range, a lead marker brighter
  than all else and a black frame; every other one is MONOCHROME1. They are simulated: what a
  detector's own values look like, nobody can tell from a published picture.
* real DICOM files: every chest radiograph in --dicom that can be read.

The recipes, and what of them is published:

* NIH ChestX-ray14: the window of the header, 1024 x 1024, 8 bits (Wang et al., CVPR 2017, section
  3: the paper names neither kernel nor order).
* CheXpert: over the greatest value, inverted if MONOCHROME1, equalised, OpenCV's default JPEG
  (an author in github.com/stanfordmlgroup/chexpert-labeler/issues/11); the small edition has a
  shorter side of 320 pixels.
* MIMIC-CXR-JPG: between least and greatest value, cut off to 8 bits, inverted if MONOCHROME1,
  equalised, JPEG (an author in github.com/MIT-LCP/mimic-cxr/issues/16).
* CheSS, downstream: 512 x 512, clipped at the 99th percentile, between least and greatest value
  (github.com/mi2rl/CheSS, downstream/classification at c48f9f7).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian

import cxr_foundation
from cxr_foundation.data import read_index
from cxr_foundation.errors import ImageError
from cxr_foundation.images import read_image
from cxr_foundation.images.processor import Processor
from cxr_foundation.models.embed import embed

MODEL = "cxr_resnet18.moco_open"
BUNDLED = Path(cxr_foundation.__file__).parent / "demo" / "radiographs"
# The least cosine between a DICOM and its derivative by the rule that undoes its recipe.
STATED = 0.999

Array = npt.NDArray[Any]
RULES: dict[str, dict[str, Any]] = {
    "voi": {"intensity": "voi"},
    "full_range": {"intensity": "full_range"},
    "minmax": {"intensity": "minmax"},
    "percentile 0-99": {"intensity": "percentile", "percentile": (0.0, 99.0)},
    "minmax_equalize": {"intensity": "minmax_equalize"},
}


# --- recipes: DICOM to the derivative's 8-bit pixels


def inverted(header: Dataset, pixels: Array) -> Array:
    """Bone bright."""
    return 255 - pixels if header.PhotometricInterpretation == "MONOCHROME1" else pixels


def equalised(pixels: Array) -> Array:
    """OpenCV's equalizeHist, as its documentation describes it."""
    counts = np.bincount(pixels.ravel(), minlength=256)
    first = counts[np.flatnonzero(counts)[0]]
    shares = (np.cumsum(counts) - first) / max(pixels.size - first, 1)
    return np.clip(np.rint(shares * 255), 0, 255).astype(np.uint8)[pixels]


def resized(pixels: Array, width: int, height: int) -> Array:
    """By Pillow's antialiased kernel; which one the authors took is not published."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def nih(header: Dataset) -> Array:
    """NIH ChestX-ray14."""
    values = apply_modality_lut(header.pixel_array, header)
    top = 2**header.BitsStored - 1
    shown = apply_voi_lut(values, header, index=0) if "WindowWidth" in header else values
    eight = np.clip(np.rint(shown / top * 255), 0, 255).astype(np.uint8)
    return resized(inverted(header, eight), 1024, 1024)


def chexpert(header: Dataset) -> Array:
    """CheXpert."""
    pixels = header.pixel_array
    eight = np.rint(pixels * (255.0 / max(int(pixels.max()), 1))).astype(np.uint8)
    return equalised(inverted(header, eight))


def chexpert_small(header: Dataset) -> Array:
    """CheXpert-small."""
    pixels = chexpert(header)
    scale = 320 / min(pixels.shape)
    return resized(pixels, round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))


def mimic(header: Dataset) -> Array:
    """MIMIC-CXR-JPG."""
    pixels = header.pixel_array.astype(np.float64)
    pixels -= pixels.min()
    eight = (pixels / max(pixels.max(), 1) * 255).astype(np.uint8)
    return equalised(inverted(header, eight))


def chess(header: Dataset) -> Array:
    """CheSS, downstream."""
    pixels = header.pixel_array.astype(np.float32)
    if header.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = resized(pixels, 512, 512)
    pixels = np.minimum(pixels, np.percentile(pixels, 99))
    pixels = pixels - pixels.min()
    return np.rint(pixels / max(float(pixels.max()), 1e-9) * 255).astype(np.uint8)


# Recipe, suffix, the rule that undoes it.
RECIPES: dict[str, tuple[Callable[[Dataset], Array], str, str]] = {
    "NIH ChestX-ray14": (nih, "png", "voi"),
    "CheXpert": (chexpert, "jpg", "minmax_equalize"),
    "CheXpert-small": (chexpert_small, "jpg", "minmax_equalize"),
    "MIMIC-CXR-JPG": (mimic, "jpg", "minmax_equalize"),
    "CheSS downstream": (chess, "png", "percentile 0-99"),
}


# --- DICOM files


def simulated(path: Path, grey: Array, number: int) -> Path:
    """A 12-bit DICOM whose window shows `grey`, float in [0, 1]."""
    rng = np.random.default_rng(number)
    width = rng.integers(1800, 3000)
    low = rng.integers(200, 4095 - width - 200)
    raw = np.clip(np.rint(low + grey * width + rng.normal(0, 2, grey.shape)), 0, 4095)
    # A collimator's shadow and a lead letter: outside the window, so that min and max are no help.
    edge = max(2, grey.shape[0] // 64)
    raw[:edge] = raw[:, :edge] = 0
    raw[2 * edge : 4 * edge, -4 * edge : -2 * edge] = 4095
    center = low + width / 2
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", f"1.2.{number + 1}"
    header.Modality, header.PhotometricInterpretation = "DX", "MONOCHROME2"
    if number % 2:
        header.PhotometricInterpretation = "MONOCHROME1"
        raw, center = 4095 - raw, 4095 - center
    header.WindowCenter, header.WindowWidth = float(center), float(width)
    header.Rows, header.Columns = grey.shape
    header.SamplesPerPixel, header.PixelRepresentation = 1, 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = raw.astype(np.uint16).tobytes()
    header["PixelData"].VR = "OW"
    header.save_as(path, enforce_file_format=True)
    return path


def from_pictures(data: Path, folder: Path, count: int) -> Iterator[Path]:
    """One simulated DICOM for each of `count` patients."""
    patients: dict[str, Path] = {}
    for study in read_index(data):
        patients.setdefault(study.patient, study.path)
    paths = list(patients.values())
    for number, path in enumerate(paths[:: max(1, len(paths) // count)][:count]):
        yield simulated(folder / f"{number}.dcm", read_image(path), number)


def from_dicoms(folder: Path) -> Iterator[Path]:
    """Chest radiographs that the package reads."""
    for path in sorted(folder.rglob("*.dcm")):
        header = dcmread(path, force=True, stop_before_pixels=True)
        chest = "CHEST" in str(header.get("BodyPartExamined", "")).upper()
        if not chest or header.get("Modality") not in ("CR", "DX"):
            continue
        try:
            if min(read_image(path).shape) >= 256:
                yield path
        except ImageError:
            continue


# --- measuring


def measure(dicoms: list[Path], folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Cosines by recipe and rule."""
    torch.set_num_threads(1)
    model = cxr_foundation.create_model(MODEL, pretrained=True)
    contract = cxr_foundation.processor(MODEL).contract
    processors = {
        name: Processor(dataclasses.replace(contract, **rule)) for name, rule in RULES.items()
    }
    directly = {name: units(embed(model, p, dicoms)) for name, p in processors.items()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for recipe, (derive, suffix, _) in RECIPES.items():
        pictures = [folder / f"derivative-{n}.{suffix}" for n in range(len(dicoms))]
        for path, picture in zip(dicoms, pictures, strict=True):
            pixels = derive(dcmread(path, force=True))
            options = {"quality": 95} if suffix == "jpg" else {}
            Image.fromarray(pixels).save(picture, **options)
        found[recipe] = {}
        for rule, processor in processors.items():
            cosines = directly[rule] @ units(embed(model, processor, pictures)).T
            own, other = np.diag(cosines), cosines[~np.eye(len(cosines), dtype=bool)]
            found[recipe][rule] = {
                "median": float(np.median(own)),
                "least": float(own.min()),
                "other patients": float(np.median(other)) if other.size else float("nan"),
                "own is nearest": float(np.mean(cosines.argmax(axis=1) == np.arange(len(own)))),
            }
    return found


def units(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Rows of length 1."""
    exact = features.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact, axis=1, keepdims=True), dtype=np.float64)


def show(title: str, found: dict[str, dict[str, dict[str, float]]]) -> None:
    """A Markdown table; the rule that undoes the recipe is in bold."""
    print(f"\n{title}; median, least cosine (own derivative is the nearest)\n")
    print(f"| derivative | {' | '.join(RULES)} | other patients |")
    print(f"|---|{'---|' * len(RULES)}---|")
    for recipe, rules in found.items():
        right = RECIPES[recipe][2]
        cells = []
        for rule, figures in rules.items():
            text = f"{figures['median']:.4f}, {figures['least']:.4f}"
            text += f" ({figures['own is nearest']:.0%})"
            cells.append(f"**{text}**" if rule == right else text)
        print(f"| {recipe} | {' | '.join(cells)} | {rules[right]['other patients']:.4f} |")


def main() -> int:
    """Run from the command line; exit code 1 if a stated cosine is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=BUNDLED)
    parser.add_argument("--dicom", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = list(from_pictures(options.data, folder, options.count))
        tables[f"{len(made)} real radiographs, simulated headers"] = measure(made, folder)
        real = list(from_dicoms(options.dicom)) if options.dicom else []
        if real:
            tables[f"{len(real)} real DICOM files"] = measure(real, folder)
    missed = []
    for title, found in tables.items():
        show(title, found)
        for recipe, rules in found.items():
            least = rules[RECIPES[recipe][2]]["least"]
            if least < STATED:
                missed.append(f"{title}: {recipe}: {least:.4f} is below {STATED}")
    print("", *(missed or [f"every rule that undoes its recipe gives {STATED} or more"]), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
