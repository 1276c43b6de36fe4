"""Reads every DICOM file of a folder and prints a Markdown table: decoded, or refused and why.

    python conformance/files.py FOLDER [--index index.csv] > docs/dicom_files.md

Where pydicom with its own choice of decoders gives stored values too, those of ours are compared
with them. The table names files, not folders. An index (columns file, source, licence) says where
each file is from.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cxr_foundation.errors import CxrError
from cxr_foundation.images import read_pixels
from cxr_foundation.images.codec import decode, read_layout
from cxr_foundation.images.header import read_header

_LARGEST = 2**28


def describe(path: Path) -> tuple[str, str]:
    """("decoded" or "refused", shape or reason)."""
    try:
        pixels = read_pixels(path)
    except CxrError as error:
        return "refused", error.reason
    values = pixels.values
    assert values.dtype == np.float32 and 0 <= values.min() and values.max() <= 1
    rows, columns = values.shape
    notes = "".join(f"; {note}" for note in pixels.notes)
    return "decoded", f"{rows} x {columns}{', lossy' if pixels.lossy else ''}{notes}"


def agreement(path: Path) -> str:
    """Whether pydicom's stored values are the same: "yes", the largest difference, or "-"."""
    import pydicom

    try:
        header = read_header(path, path.read_bytes(), limit=_LARGEST)
        layout = read_layout(header)
        raw = decode(header, layout)
        with warnings.catch_warnings(action="ignore"):
            theirs: Any = pydicom.dcmread(path, force=True).pixel_array
    except CxrError:
        return "-"
    except Exception:
        return "pydicom fails"
    if theirs.shape != raw.shape or raw.ndim == 3:
        return "-"
    mask = 2**layout.stored - 1
    stored = raw.astype(np.int64) >> layout.shift & mask
    off = int(np.abs(stored - (theirs.astype(np.int64) & mask)).max())
    return "yes" if off == 0 else f"off by {off} at most"


def elements(path: Path) -> list[str]:
    """Modality, syntax, photometric and bits, by our own walk; empty where it fails."""
    try:
        header = read_header(path, path.read_bytes(), limit=_LARGEST)
    except CxrError:
        return ["", "", "", ""]
    bits = [header.raw(name) for name in ("BitsStored", "BitsAllocated")]
    depth = "/".join(str(int.from_bytes(b, "little" if header.little else "big")) if b else "?"
                     for b in bits)  # fmt: skip
    depth = "" if bits == [None, None] else depth
    return [header.string("Modality"), header.syntax, header.string("PhotometricInterpretation"),
            depth]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, help="csv with the columns file, source and licence")
    asked = parser.parse_args()
    about: dict[str, dict[str, str]] = {}
    if asked.index:
        with asked.index.open(newline="") as lines:
            about = {Path(row["file"]).name: row for row in csv.DictReader(lines)}
    rows, outcomes = [], Counter[str]()
    for path in sorted(p for p in asked.folder.rglob("*") if p.is_file() and p != asked.index):
        outcome, detail = describe(path)
        outcomes[outcome] += 1
        same = agreement(path) if outcome == "decoded" else "-"
        source = about.get(path.name, {}).get("source", "")
        cells = [path.name, source, *elements(path), outcome, detail, same]
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    print("# Real DICOM files\n")
    print(f"{outcomes['decoded']} of {outcomes.total()} files are decoded, "
          f"{outcomes['refused']} are refused for the reason given.\n")  # fmt: skip
    print("| file | source | modality | transfer syntax | photometric | bits stored/allocated "
          "| outcome | | stored values as pydicom's |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
