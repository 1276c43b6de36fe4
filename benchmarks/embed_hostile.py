"""10,000 mixed inputs, one in a hundred of them hostile, through `cxr embed`.

    python benchmarks/embed_hostile.py [--count 10000] [--model NAME] [--json FILE]

The inputs are drawn here: PNG and TIFF of 8 and 16 bits, JPEG, DICOM; the hostile ones are cut off,
empty, something else under a picture's name, bombs, pictures in colour or of several pages, and
DICOMs that must not be read. Every hostile one has to be reported, and nothing else; the exit code
has to be 3; and the peak memory of the command while it does the last tenth has to be within 5 %
of its peak while it did the first. Exits with 1 if one of these is not so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SIDE = 256
_DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.1.1"


def drawn(seed: int) -> np.ndarray:
    """A smooth grey picture, uint16 (SIDE, SIDE)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = sum(np.sin(6 * (a * rows + b * columns)) for a, b in random.uniform(0, 2, (4, 2)))
    return np.rint((waves - waves.min()) / np.ptp(waves) * 65535).astype(np.uint16)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def dicom(values: np.ndarray, **elements: object) -> bytes:
    """An uncompressed DICOM's bytes; `elements` add or replace."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    known = {
        "SOPClassUID": _DIGITAL_XRAY,
        "SOPInstanceUID": generate_uid(entropy_srcs=["drawn"]),
        "Modality": "DX",
        "PatientName": "DRAWN",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    for keyword, value in {**known, **elements}.items():
        setattr(header, keyword, value)
    header.PixelData = values.tobytes()
    header["PixelData"].VR = "OW"
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def honest(seed: int) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of one picture in each form."""
    values = drawn(seed)
    low = (values >> 8).astype(np.uint8)
    return [
        ("png", encoded(Image.fromarray(low), "PNG")),
        ("png", encoded(Image.fromarray(values), "PNG")),
        ("jpg", encoded(Image.fromarray(low), "JPEG", quality=90)),
        ("tif", encoded(Image.fromarray(values), "TIFF")),
        ("dcm", dicom(values)),
        ("dcm", dicom(values, PhotometricInterpretation="MONOCHROME1")),
    ]


def hostile() -> list[tuple[str, bytes]]:
    """(suffix, bytes) of each kind of bad file."""
    values = drawn(0)
    low = (values >> 8).astype(np.uint8)
    png, jpeg, good = honest(0)[0][1], honest(0)[2][1], dicom(values)
    colour = np.stack([low, low.T, 255 - low], axis=-1)
    pages = [Image.fromarray(low)] * 2
    size = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = png[:12] + size + struct.pack(">I", zlib.crc32(size)) + png[33:]
    return [
        ("png", png[: len(png) // 2]),
        ("png", b""),
        ("png", b"<html>503 Service Unavailable</html>"),
        ("png", bomb),
        ("png", encoded(Image.fromarray(colour), "PNG")),
        ("jpg", jpeg[: len(jpeg) // 3]),
        ("jpg", b"MZ" + bytes(1000)),
        ("tif", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])),
        ("dcm", good[:-1000]),
        ("dcm", bytes(128) + b"DICM" + bytes(200)),
        ("dcm", dicom(values, PresentationIntentType="FOR PROCESSING")),
        ("dcm", dicom(values, Rows=60000, Columns=60000)),
        ("dcm", dicom(values, NumberOfFrames=900)),
    ]


def write(folder: Path, count: int) -> set[str]:
    """Write the inputs; the names of the hostile ones."""
    good, bad = [p for seed in range(20) for p in honest(seed)], hostile()
    names = set()
    for i in range(count):
        # 37 of every 100 numbers: the bad ones are in all parts of the data, not at its end.
        is_bad = i % 100 == 37
        suffix, content = bad[i // 100 % len(bad)] if is_bad else good[i % len(good)]
        name = f"{i:06d}.{suffix}"
        (folder / name).write_bytes(content)
        if is_bad:
            names.add(name)
    return names


def memory_of(pid: int) -> float:
    """Resident megabytes of a process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(int(s.split()[1]) / 1024 for s in status if s.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0.0


def watch(child: subprocess.Popen[str], parts: Path) -> dict[int, float]:
    """Peak megabytes of the command, by the number of parts that were complete."""
    peaks: dict[int, float] = {}
    while child.poll() is None:
        # Before the folder is there, the command imports its libraries and loads the model.
        if parts.is_dir():
            done = len(list(parts.glob("part-*.parquet")))
            peaks[done] = max(peaks.get(done, 0.0), memory_of(child.pid))
        time.sleep(0.05)
    return peaks


def main() -> int:
    """Run it; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--model", default="cxr_resnet18.moco_open")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder, output = Path(root, "data"), Path(root, "features.parquet")
        folder.mkdir()
        planted = write(folder, options.count)
        cxr = str(Path(sys.executable).with_name("cxr"))
        command = [cxr, "embed", str(folder), "--model", options.model, "-o", str(output), "--json"]
        start = time.monotonic()
        with open(Path(root, "report"), "w+") as out, open(os.devnull, "w") as null:
            child = subprocess.Popen(
                [*command, "--workers", str(options.workers)], stdout=out, stderr=null, text=True
            )
            peaks = watch(child, Path(f"{output}.parts"))
            out.seek(0)
            report = json.load(out)
    reported = {row["path"] for row in report["refused"]}
    # The run's last peak is of joining the parts; before it come those of reading and computing.
    first, last = peaks[0], peaks[max(peaks)]
    figures = {
        "inputs": options.count,
        "hostile": len(planted),
        "reported": len(reported & planted),
        "missed": sorted(planted - reported),
        "reported but honest": sorted(reported - planted),
        "rows": report["rows"],
        "exit code": child.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "peak MB, first part": round(first, 1),
        "peak MB, last part": round(last, 1),
        "peak MB by part": {n: round(p, 1) for n, p in sorted(peaks.items())},
        "last / first": round(last / first, 4),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    checks: list[Callable[[], bool]] = [
        lambda: reported == planted,
        lambda: child.returncode == 3,
        lambda: report["rows"] == options.count - len(planted),
        lambda: abs(last / first - 1) <= 0.05,
    ]
    return int(not all(check() for check in checks))


if __name__ == "__main__":
    sys.exit(main())
