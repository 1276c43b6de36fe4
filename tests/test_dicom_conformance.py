"""The conformance suite of drawn DICOMs: ours gets all of it right, and a wrong reader does not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr_foundation.errors import CxrError
from cxr_foundation.images import read_image

SUITE = Path(__file__).resolve().parents[1] / "conformance"


@pytest.fixture(scope="module")
def suite():
    """(cases, score) as the scripts import them."""
    sys.path.insert(0, str(SUITE))
    try:
        import cases
        import score

        yield cases, score
    finally:
        sys.path.remove(str(SUITE))
        for path in SUITE.glob("*.py"):
            sys.modules.pop(path.stem, None)


@pytest.mark.filterwarnings("ignore::cxr_foundation.images.ImageWarning")
def test_every_case_is_right(suite, tmp_path):
    cases, score = suite
    swept, wrong = 0, []
    for case, path in zip(cases.CASES, score.write(tmp_path), strict=True):
        swept += 1
        try:
            pixels = read_image(path)
        except CxrError as error:
            pixels = None
            assert "DRAWN" not in str(error)
        if (pixels is None) != (case.shown is None):
            wrong.append(f"{case.group}: {case.name}: {'refused' if pixels is None else 'read'}")
        elif pixels is not None:
            inside = slice(case.inside, -case.inside or None)
            assert pixels.shape == case.shown.shape, case.name
            off = np.abs(pixels - case.shown)[inside, inside].max()
            if off > case.tolerance:
                wrong.append(f"{case.group}: {case.name}: off by {off:.2g}")
    assert wrong == []
    assert swept == len(list(tmp_path.glob("*.dcm"))) == 152


def test_no_two_cases_share_a_name(suite):
    cases, _ = suite
    names = [(case.group, case.name) for case in cases.CASES]
    assert len(set(names)) == len(names)


def test_most_cases_tell_the_usual_recipe_from_a_right_reader(suite, tmp_path):
    """A suite that cannot fail a reader proves nothing."""
    cases, score = suite
    from readers import READERS

    recipe = next(reader for reader in READERS if reader.name == "pydicom recipe")
    chosen = {"MONOCHROME1": "right", "palette that inverts": "wrong", "FOR PROCESSING": "wrong",
              "PixelSpacing 2:1": "wrong", "LINEAR": "right"}  # fmt: skip
    paths = dict(zip([case.name for case in cases.CASES], score.write(tmp_path), strict=True))
    found = {
        case.name: score.verdict(recipe, case, paths[case.name])
        for case in cases.CASES
        if case.name in chosen
    }
    assert found == chosen


@pytest.mark.usefixtures("suite")
def test_an_inverted_or_shifted_picture_is_off():
    from pictures import ramp
    from readers import error

    shown = ramp(12) / 4095
    assert error(shown * 3 - 1, shown, exact=False, inside=0) < 1e-9
    assert error(shown * 3 - 1, shown, exact=True, inside=0) > 0.9
    assert error(1 - shown, shown, exact=False, inside=0) == np.inf
    assert error(np.roll(shown, 1, 0), shown, exact=False, inside=0) > 0.1


_MUTANTS = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import cases
from cxr_foundation.errors import CxrError
from cxr_foundation.images.dicom import read_dicom
draw = np.random.default_rng(0)
coded = [c for c in cases.CASES if c.group.startswith("Transfer syntaxes") and c.shown is not None]
read = 0
for number in range(int(sys.argv[2])):
    data = bytearray(coded[number % len(coded)].data)
    first = data.find(bytes.fromhex("e07f1000")) + 20
    for _ in range(draw.integers(1, 6)):
        at = int(draw.integers(first, len(data) - 8)) if len(data) - 8 > first else 0
        data[at : at + 4] = draw.integers(0, 256, draw.integers(1, 5), dtype=np.uint8).tobytes()
    try:
        read_dicom("mutant.dcm", bytes(data))
        read += 1
    except CxrError:
        pass
print(read)
"""


def test_damaged_frames_are_read_or_refused_in_silence():
    """gdcm ended the process on such frames, pylibjpeg-rle panicked, pydicom walked for ever."""
    mutants = 1200
    done = subprocess.run(
        [sys.executable, "-c", _MUTANTS, str(SUITE), str(mutants)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < int(done.stdout) < mutants


def test_jp2_boxes_that_claim_no_length_do_not_hang(suite, tmp_path):
    cases, _ = suite
    case = next(c for c in cases.CASES if c.name == "lossless in JP2 boxes")
    at = case.data.index(b"jp2h")
    path = tmp_path / "a.dcm"
    path.write_bytes(case.data[: at - 4] + bytes(4) + case.data[at:])
    assert np.abs(read_image(path) - case.shown).max() <= 1e-6
