"""DICOM's pixel data to stored values, per transfer syntax: ours, the codec alone, pydicom.

    python benchmarks/decode.py [--rounds 5] [--rows 2500] [--columns 2048] [--json FILE]

The file is in memory. "ours" walks the header, checks the frame and decodes; the floor is the
quickest exact codec that could be found, called on the bare frame; "pydicom" is dcmread and
pixel_array with pydicom's own choice among the decoders that are installed. Every result is
compared with the picture that was encoded. The cases of a round follow one another; a ratio is the
median over rounds of two times of the same round. Codecs run on one thread, except that for JPEG
2000 ours takes OMP_NUM_THREADS (else every core), and gdcm, which is pydicom's choice where it is
installed, every core whatever is asked; the last column compares the time of all cores. The picture
is drawn: smooth, with noise, which codecs like less than a real radiograph. Needs imagecodecs,
whose HTJ2K decoder is only a floor: damaged frames make it give a wrong picture without an error.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom

from cxr_foundation.images.codec import decode, read_layout
from cxr_foundation.images.header import read_header

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
import drawn

JPEG = "1.2.840.10008.1.2.4."


def draw(rows: int, columns: int, bits: int) -> np.ndarray[Any, Any]:
    """A smooth picture with noise of 0.5 % of the range."""
    noise = np.random.default_rng(0).normal(0, 0.005, (rows, columns))
    y, x = np.mgrid[:rows, :columns]
    shade = 0.5 + 0.4 * np.sin(x / columns * 7) * np.cos(y / rows * 6) + noise
    return np.asarray(np.clip(shade, 0, 1) * (2**bits - 1), dtype=np.uint16)


def rle(picture: np.ndarray[Any, Any]) -> bytes:
    """By pydicom: the drawn files' own encoder knows no literal runs and would be unkind."""
    from pydicom.pixels.encoders import RLELosslessEncoder

    return RLELosslessEncoder.encode(
        picture.tobytes(), rows=picture.shape[0], columns=picture.shape[1], samples_per_pixel=1,
        bits_allocated=16, bits_stored=16, pixel_representation=0, number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
    )  # fmt: skip


def unrle(frame: bytes, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """pylibjpeg-rle alone."""
    from rle.rle import decode_frame

    raw = decode_frame(frame, shape[0] * shape[1], 16, "<")
    return np.frombuffer(raw, "<u2").reshape(shape)


def cases(
    picture: np.ndarray[Any, Any], bits: int
) -> dict[str, tuple[str, Any, Callable[[], Any]]]:
    """Name: (transfer syntax UID, pixel data, the codec alone)."""
    native = picture.tobytes()
    found: dict[str, tuple[str, Any, Callable[[], Any]]] = {
        "uncompressed": (
            drawn.EXPLICIT, native,
            lambda: np.frombuffer(native, "<u2").reshape(picture.shape).copy(),
        )
    }  # fmt: skip
    lossless = imagecodecs.jpeg8_encode(picture, lossless=True, predictor=1, bitspersample=bits)
    frames: dict[str, tuple[str, bytes, Callable[[bytes], Any]]] = {
        "RLE": (drawn.RLE, rle(picture), lambda f: unrle(f, picture.shape)),
        "JPEG lossless SV1": (JPEG + "70", lossless, imagecodecs.jpeg8_decode),
        "JPEG-LS": (JPEG + "80", imagecodecs.jpegls_encode(picture), imagecodecs.jpegls_decode),
        "JPEG 2000 lossless": (
            JPEG + "90",
            imagecodecs.jpeg2k_encode(
                picture, codecformat="j2k", reversible=True, level=0, bitspersample=bits
            ),
            imagecodecs.jpeg2k_decode,
        ),
        "HTJ2K lossless": (
            JPEG + "201", imagecodecs.htj2k_encode(picture, reversible=True),
            imagecodecs.htj2k_decode,
        ),
    }  # fmt: skip
    for name, (uid, frame, codec) in frames.items():
        found[name] = uid, drawn.encapsulated(frame), lambda c=codec, f=frame: c(f)
    return found


def dicom(picture: np.ndarray[Any, Any], bits: int, uid: str, pixels: bytes) -> bytes:
    """A whole file."""
    rows, columns = picture.shape
    elements: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "SOPInstanceUID": "1.2.3", "Modality": "DX",
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": rows,
        "Columns": columns, "BitsAllocated": 16, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": 0, "PixelData": pixels,
    }  # fmt: skip
    return drawn.file(elements, syntax=uid)


def ours(data: bytes) -> Any:
    """Header, checks, decoder."""
    header = read_header("drawn", data, limit=2**28)
    return decode(header, read_layout(header))


def theirs(data: bytes) -> Any:
    """By `dcmread` and `pixel_array`."""
    with warnings.catch_warnings(action="ignore"):
        return pydicom.dcmread(io.BytesIO(data)).pixel_array


def timed(run: Callable[[], Any], expected: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Seconds, and seconds of all cores; what comes out has to be the picture."""
    start, used = time.perf_counter(), time.process_time()
    pixels = run()
    seconds = time.perf_counter() - start, time.process_time() - used
    if not np.array_equal(pixels, expected):
        raise SystemExit("a decoder gave other pixels than were encoded")
    return seconds


def main() -> None:
    """Encode, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = []
    print(
        "| syntax | bits | ours, ms | codec, ms | pydicom, ms | ours / codec | pydicom / ours "
        "| of all cores |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for bits in (12, 16):
        picture = draw(asked.rows, asked.columns, bits)
        for name, (uid, pixels, alone) in cases(picture, bits).items():
            data = dicom(picture, bits, uid, pixels)
            runs = {
                "ours": lambda d=data: ours(d),
                "codec": alone,
                "pydicom": lambda d=data: theirs(d),
            }
            rounds = [
                {what: timed(run, picture) for what, run in runs.items()}
                for _ in range(asked.rounds + 1)
            ][1:]
            middle = {what: statistics.median(r[what][0] for r in rounds) * 1e3 for what in runs}
            floor = statistics.median(r["ours"][0] / r["codec"][0] for r in rounds)
            gain, cores = (
                statistics.median(r["pydicom"][kind] / r["ours"][kind] for r in rounds)
                for kind in (0, 1)
            )
            times = " | ".join(f"{middle[what]:.1f}" for what in runs)
            print(
                f"| {name} | {bits} | {times} | {floor:.2f} | {gain:.2f} | {cores:.2f} |",
                flush=True,
            )
            results.append(
                {
                    "syntax": name,
                    "bits": bits,
                    **middle,
                    "ours/codec": floor,
                    "pydicom/ours": gain,
                    "pydicom/ours, cores": cores,
                }
            )
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
