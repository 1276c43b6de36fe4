"""The drawn chest: the same everywhere, and a valid DICOM of nobody."""

import hashlib

import numpy as np
import pydicom
import pytest

from cxr_foundation.images import phantom, read_image


def test_the_drawing_is_pinned():
    drawn = phantom.draw()
    assert drawn.shape == (512, 512)
    assert drawn.dtype == np.uint8
    # A change here changes every golden embedding: give the phantom a new name instead.
    assert phantom.NAME == "cxr-phantom-v1"
    assert (
        hashlib.sha256(drawn.tobytes()).hexdigest()
        == "50fba1463c541c323896cb8f7d3ffe06dfd376719f422e1e8104cfb81e4fa249"
    )


def test_it_looks_like_a_chest():
    drawn = phantom.draw().astype(int)
    air, lung, spine, heart, abdomen = (
        drawn[10, 10], drawn[190, 158], drawn[320, 256], drawn[330, 310], drawn[450, 180]
    )  # fmt: skip
    assert air < lung < heart < spine
    assert lung < abdomen


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_its_dicom_reads_as_the_drawing(tmp_path, photometric, bits):
    path = tmp_path / "phantom.dcm"
    phantom.draw_dicom(path, photometric=photometric, bits=bits)
    half_a_step = 0.5 / (2**bits - 1)
    for voi in (True, False):
        difference = np.abs(read_image(path, voi=voi) - phantom.draw() / 255)
        assert difference.max() <= half_a_step + 1e-7


def test_its_dicom_is_the_same_at_every_call_and_names_nobody(tmp_path):
    for name in "ab":
        phantom.draw_dicom(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    header = pydicom.dcmread(tmp_path / "a")
    assert header.PatientName == "PHANTOM^DRAWN"
    assert header.PatientBirthDate == header.StudyDate == ""
    assert header.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
    assert header.preamble == bytes(128)


def test_stored_values_are_upside_down_in_monochrome1(tmp_path):
    phantom.draw_dicom(tmp_path / "a", photometric="MONOCHROME1", bits=8)
    stored = pydicom.dcmread(tmp_path / "a").pixel_array
    assert np.array_equal(stored, 255 - phantom.draw())


@pytest.mark.parametrize("options", [{"photometric": "RGB"}, {"bits": 7}, {"bits": 17}])
def test_other_kinds_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=r"neither|not 8 to 16"):
        phantom.draw_dicom(tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []
