"""What may be known of a radiograph's header outside of it: `Facts`, and nothing else.

Codes are shown only if they are of the vocabularies below; any other value becomes "other", since
a name typed into the wrong field is still a name. There are no dates, numbers of studies, or texts.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from cxr_foundation.images.header import Header, read_header
from cxr_foundation.images.source import MAX_BYTES

__all__ = ["OTHER", "Facts", "read_facts"]

OTHER = "other"
"""Stands for a value that is there, but is none of a known vocabulary."""

# PS3.6 A, the transfer syntaxes of pictures.
_SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
# PS3.6 A, the storage classes that radiographs come in.
_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX for presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX for processing",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.12.2": "radiofluoroscopy",
}
_CODES = {
    "Modality": {
        "CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "PX", "RF", "RG", "SC", "US", "XA"
    },
    # PS3.16 annex L's code strings that come near a chest, and what is used in their place.
    "BodyPartExamined": {
        "ABDOMEN", "ANKLE", "CHEST", "CHESTABDOMEN", "CLAVICLE", "CSPINE", "ELBOW", "EXTREMITY",
        "FOOT", "HAND", "HEAD", "HIP", "KNEE", "LSPINE", "LUNG", "NECK", "PELVIS", "RIB", "RIBS",
        "SHOULDER", "SKULL", "SPINE", "STERNUM", "THORAX", "TSPINE", "WRIST",
    },
    # PS3.3 C.8.1.3.1.1 (CR) and CID 4010 (DX); LAT and LATERAL are common and not standard.
    "ViewPosition": {
        "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL", "LORDOTIC"
    },
    "PresentationIntentType": {"FOR PRESENTATION", "FOR PROCESSING"},
    "PhotometricInterpretation": {
        "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422",
        "YBR_ICT", "YBR_RCT",
    },
    "PresentationLUTShape": {"IDENTITY", "INVERSE"},
    "BurnedInAnnotation": {"YES", "NO"},
    "FieldOfViewHorizontalFlip": {"YES", "NO"},
}  # fmt: skip
# A word of a company's name in (0008,0070) -> how it is shown.
_MAKERS = {
    "AGFA": "Agfa", "CANON": "Canon", "CARESTREAM": "Carestream", "KODAK": "Carestream",
    "DEL MEDICAL": "Del Medical", "DRTECH": "DRTECH", "FUJI": "Fujifilm", "GE": "GE",
    "GENERAL ELECTRIC": "GE", "HOLOGIC": "Hologic", "KONICA": "Konica Minolta",
    "PHILIPS": "Philips", "RAYENCE": "Rayence", "SAMSUNG": "Samsung", "SHIMADZU": "Shimadzu",
    "SIEMENS": "Siemens", "SWISSRAY": "Swissray", "TOSHIBA": "Canon", "UNITED IMAGING":
    "United Imaging", "VAREX": "Varex", "VIEWORKS": "Vieworks",
}  # fmt: skip
_MODEL = re.compile(r"[A-Z0-9][A-Z0-9 ._/()+-]{0,31}")
# PS3.3 C.7.6.1.1.1: the letters of bipeds' directions, up to three each.
_DIRECTION = re.compile(r"[LRAPHF]{1,3}")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """The allow-listed part of a DICOM header, each value of a closed vocabulary or a number.

    Attributes:
        syntax: Transfer syntax by name.
        sop_class: Storage class, in short.
        modality: (0008,0060).
        intent: (0008,0068), FOR PRESENTATION or FOR PROCESSING.
        body_part: (0018,0015).
        view: (0018,5101).
        orientation: (0020,0020): where rows and columns lead, ("L", "F") for a frontal
            radiograph as it is viewed; empty if it is not stated.
        turned: (0018,7032), clockwise degrees that the device turned its field of view by.
        flipped: (0018,7034), whether it was flipped.
        burned_in: (0028,0301).
        photometric: (0028,0004).
        lut_shape: (2050,0020).
        rows: (0028,0010).
        columns: (0028,0011).
        bits: (0028,0101), bits stored.
        spacing: Row and column spacing in mm; None if it is not stated.
        spacing_of: The element that it is from: at the patient, the detector or the film.
        kvp: (0018,0060), peak kilovoltage.
        manufacturer: (0008,0070) by a known name.
        model: (0008,1090), a vendor's own text: show it only where many files share it.
    """

    syntax: str = ""
    sop_class: str = ""
    modality: str = ""
    intent: str = ""
    body_part: str = ""
    view: str = ""
    orientation: tuple[str, ...] = ()
    turned: float | None = None
    flipped: str = ""
    burned_in: str = ""
    photometric: str = ""
    lut_shape: str = ""
    rows: int | None = None
    columns: int | None = None
    bits: int | None = None
    spacing: tuple[float, float] | None = None
    spacing_of: str = ""
    kvp: float | None = None
    manufacturer: str = ""
    model: str = dataclasses.field(default="", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What is known, for JSON. The model is left out: alone it is a text like any other."""
        found = dataclasses.asdict(self)
        del found["model"]
        return {k: v for k, v in found.items() if v not in ("", None, ())}


def read_facts(path: str | os.PathLike[str], data: bytes) -> Facts:
    """The facts of a DICOM file's bytes; pixels are not decoded.

    Args:
        path: For messages.
        data: The whole file, for which `images.header.is_dicom` holds.

    Raises:
        UnreadableImage: Cut off, damaged, or inflating beyond the limit.
        UnsupportedPixels: No transfer syntax, or floating-point pixels.
    """
    header = read_header(path, data, limit=MAX_BYTES // 2)
    spacing, spacing_of = _spacing(header)
    return Facts(
        syntax=_SYNTAXES.get(header.syntax, OTHER),
        sop_class=_known(header.string("SOPClassUID"), _CLASSES),
        modality=_code(header, "Modality"),
        intent=_code(header, "PresentationIntentType"),
        body_part=_code(header, "BodyPartExamined"),
        view=_code(header, "ViewPosition"),
        orientation=_orientation(header),
        turned=_number(header, "FieldOfViewRotation"),
        flipped=_code(header, "FieldOfViewHorizontalFlip"),
        burned_in=_code(header, "BurnedInAnnotation"),
        photometric=_code(header, "PhotometricInterpretation"),
        lut_shape=_code(header, "PresentationLUTShape"),
        rows=header.integer("Rows"),
        columns=header.integer("Columns"),
        bits=header.integer("BitsStored"),
        spacing=spacing,
        spacing_of=spacing_of,
        kvp=_number(header, "KVP"),
        manufacturer=_manufacturer(header.string("Manufacturer")),
        model=_model(header.string("ManufacturerModelName")),
    )


def _known(value: str, names: dict[str, str]) -> str:
    return names.get(value, OTHER) if value else ""


def _code(header: Header, name: str) -> str:
    value = header.string(name)
    return value if value in _CODES[name] or not value else OTHER


def _number(header: Header, name: str) -> float | None:
    return next(iter(header.decimals(name)), None)


def _orientation(header: Header) -> tuple[str, ...]:
    pair = header.strings("PatientOrientation")
    return pair if len(pair) == 2 and all(_DIRECTION.fullmatch(p) for p in pair) else ()


def _spacing(header: Header) -> tuple[tuple[float, float] | None, str]:
    for name in _SPACINGS:
        pair = header.decimals(name)
        if len(pair) == 2 and pair[0] is not None and pair[1] is not None:
            return (pair[0], pair[1]), name
    return None, ""


def _manufacturer(text: str) -> str:
    words = f" {re.sub('[^A-Z0-9]+', ' ', text)} "
    for word, shown in _MAKERS.items():
        # «GE» and its like only as a word of their own; longer names also as a beginning.
        if f" {word} " in words or (len(word) > 3 and f" {word}" in words):
            return shown
    return OTHER if text else ""


def _model(text: str) -> str:
    return text if _MODEL.fullmatch(text) else OTHER if text else ""
