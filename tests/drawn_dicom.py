"""Small DICOM files drawn by the tests, written by pydicom."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from cxr_foundation.images import read_image

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
FOUR = np.array([[0, 1024], [2048, 4095]], np.uint16)


def draw(
    path, pixels, *, syntax=ExplicitVRLittleEndian, frame=None, meta=True, drop=(), **elements
):
    """Write `pixels` (8, 16 or 32 bits) as a one-frame file; `elements` add or replace."""
    pixels = np.asarray(pixels)
    bits = pixels.dtype.itemsize * 8
    header = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": generate_uid(entropy_srcs=["drawn"]),
        "Modality": "DX",
        "PatientName": "SECRET^NAME",
        "PatientID": "SECRETID",
        "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        header["PlanarConfiguration"] = 0
    header.update(elements)
    header.setdefault("HighBit", header["BitsStored"] - 1)
    data = Dataset()
    for keyword, value in header.items():
        if keyword not in drop:
            setattr(data, keyword, value)
    if "PixelData" not in drop:
        order = "<" if syntax.is_little_endian else ">"
        native = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data.PixelData = encapsulate([frame]) if frame else native + b"\0" * (len(native) % 2)
        data["PixelData"].VR = "OB" if bits == 8 else "OW"
        data["PixelData"].is_undefined_length = frame is not None
    if meta:
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True)
    else:
        data.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return path


def table(entries, *, first, bits, vr="US", count=None):
    """One item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) if count is None else count, first, bits])
    item.add_new(0x00283006, "OW", np.asarray(entries, "<u2").tobytes())
    return [item]


def shown(path, **options):
    """What the reader makes of a file: the values as a list, row by row."""
    pixels = read_image(path, **options)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    return pixels.ravel().tolist()


def close(*values):
    """These, within what float32 in [0, 1] rounds."""
    return pytest.approx(list(values), abs=2e-7)
