"""Every element of a DICOM header that the package looks at; of all others not a byte is kept.

Neither a name, a number, a date nor a description of a person or study is among them. The two
texts that a vendor writes freely, manufacturer and model, are only ever shown as `images.facts`
shows them: by a fixed vocabulary, or where many files share them.
"""

from __future__ import annotations

__all__ = ["ELEMENTS", "FACT_ELEMENTS", "PIXEL_ELEMENTS"]

PIXEL_ELEMENTS = {
    0x00080008: "ImageType",
    0x00080016: "SOPClassUID",
    0x00080068: "PresentationIntentType",
    0x00181164: "ImagerPixelSpacing",
    0x00182010: "NominalScannedPixelSpacing",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280006: "PlanarConfiguration",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00280034: "PixelAspectRatio",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit",
    0x00281041: "PixelIntensityRelationshipSign",
    0x00281050: "WindowCenter",
    0x00281051: "WindowWidth",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281056: "VOILUTFunction",
    0x00281101: "RedPaletteColorLookupTableDescriptor",
    0x00281102: "GreenPaletteColorLookupTableDescriptor",
    0x00281103: "BluePaletteColorLookupTableDescriptor",
    0x00281201: "RedPaletteColorLookupTableData",
    0x00281202: "GreenPaletteColorLookupTableData",
    0x00281203: "BluePaletteColorLookupTableData",
    0x00282110: "LossyImageCompression",
    0x00283000: "ModalityLUTSequence",
    0x00283002: "LUTDescriptor",
    0x00283006: "LUTData",
    0x00283010: "VOILUTSequence",
    0x20500020: "PresentationLUTShape",
}
"""What the pixels need to be shown: PS3.3 C.7.6.3, C.11 and C.8.11.3."""

FACT_ELEMENTS = {
    0x00080060: "Modality",
    0x00080070: "Manufacturer",
    0x00081090: "ManufacturerModelName",
    0x00180015: "BodyPartExamined",
    0x00180060: "KVP",
    0x00185101: "ViewPosition",
    0x00187032: "FieldOfViewRotation",
    0x00187034: "FieldOfViewHorizontalFlip",
    0x00200020: "PatientOrientation",
    0x00280301: "BurnedInAnnotation",
}
"""What guards and drift monitoring need; no pixel depends on them."""

ELEMENTS = {**PIXEL_ELEMENTS, **FACT_ELEMENTS}
