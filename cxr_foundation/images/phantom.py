"""A drawn chest: the same bytes on every machine, for golden checks, tests and the demo.

Integer arithmetic only. It is a picture of no patient and of no disease.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_foundation.files import atomic_write

__all__ = ["NAME", "draw", "draw_dicom"]

NAME = "cxr-phantom-v1"

_SIDE = 512
# Digital X-Ray Image Storage - For Presentation: PS3.4 B.5.
_DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"

Plane = npt.NDArray[np.int64]


def draw() -> npt.NDArray[np.uint8]:
    """The phantom, bone bright: uint8 (512, 512)."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.int64)
    chest = np.full((_SIDE, _SIDE), 12, dtype=np.int64)

    def inside(cy: int, cx: int, ry: int, rx: int) -> Plane:
        """1024 at the centre of an ellipse, 0 on its edge, negative outside."""
        depth: Plane = 1024 - (1024 * (y - cy) ** 2) // ry**2 - (1024 * (x - cx) ** 2) // rx**2
        return depth

    body = inside(330, 256, 380, 236)
    chest = np.where(body > 0, 96 + body // 16, chest)
    for cx in (158, 354):
        lung = (inside(240, cx, 176, 78) > 0) & (y < 352 + (x - cx) ** 2 // 110)
        # Vessels thin out from the hilum: darker further from the middle.
        chest = np.where(lung, 30 + np.abs(x - 256) // 16 + (y % 29 + x % 23) // 8, chest)
    chest += 34 * (inside(300, 286, 92, 76) > 0)
    chest += 26 * ((np.abs(x - 256) < 22) & (body > 0))
    chest += 10 * ((np.abs(x - 256) < 22) & (y % 34 < 26) & (body > 0))
    for rib in range(9):
        # Posterior ribs fall away from the spine on both sides.
        drop = (np.abs(x - 256) ** 2) // 420 + 84 + 33 * rib
        chest += 22 * ((np.abs(y - drop) < 6) & (body > 0) & (np.abs(x - 256) < 214))
    for side in (-1, 1):
        clavicle = 92 - side * (x - 256) // 5
        chest += 40 * (
            (np.abs(y - clavicle) < 8) & (side * (x - 256) > 18) & (side * (x - 256) < 170)
        )
    return np.clip(chest, 0, 255).astype(np.uint8)


def draw_dicom(
    path: str | os.PathLike[str], *, photometric: str = "MONOCHROME2", bits: int = 12
) -> None:
    """Write the phantom as a synthetic DICOM file, whose `read_image` is the drawing.

    Grey values go over the range of `bits`, rounded to the nearest; the window covers that range
    exactly (PS3.3 C.11.2.1.2.1). The file is the same at every call.

    Args:
        path: The file; it is replaced.
        photometric: MONOCHROME2, or MONOCHROME1 with the least value white.
        bits: BitsStored, 8 to 16.

    Raises:
        OutputFailed: The disk is full or not writable.
        ValueError: Another photometric interpretation or number of bits.
    """
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"{photometric!r} is neither MONOCHROME1 nor MONOCHROME2")
    if not 8 <= bits <= 16:
        raise ValueError(f"{bits} bits are not 8 to 16")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    top = 2**bits - 1
    stored = (draw().astype(np.int64) * top + 127) // 255
    inverted = photometric == "MONOCHROME1"
    stored = top - stored if inverted else stored
    study, series, instance = (
        generate_uid(entropy_srcs=[NAME, part, photometric, str(bits)])
        for part in ("study", "series", "instance")
    )
    # PS3.3 A.26.3: the modules of a DX image, with nobody in them.
    elements: dict[str, Any] = {
        "SOPClassUID": _DX_FOR_PRESENTATION,
        "SOPInstanceUID": instance,
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "",
        "ReferringPhysicianName": "",
        "PatientName": "PHANTOM^DRAWN",
        "PatientID": NAME,
        "PatientBirthDate": "",
        "PatientSex": "",
        "BodyPartExamined": "CHEST",
        "ImagerPixelSpacing": ["0.7", "0.7"],
        "ViewPosition": "PA",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "StudyID": "",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "PatientOrientation": ["L", "F"],
        "ImageLaterality": "U",
        "ImageType": ["DERIVED", "PRIMARY"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": photometric,
        "Rows": _SIDE,
        "Columns": _SIDE,
        "BitsAllocated": 8 if bits == 8 else 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverted else -1,
        "BurnedInAnnotation": "NO",
        "WindowCenter": str(2 ** (bits - 1)),
        "WindowWidth": str(2**bits),
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
    }
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PixelData = stored.astype("<u1" if bits == 8 else "<u2").tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    with atomic_write(path) as temporary:
        data.save_as(temporary, enforce_file_format=True)
