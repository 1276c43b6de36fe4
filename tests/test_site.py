"""`cxr check`: the report of a site's own export, and what must not be in it."""

import json
import subprocess
import sys
from pathlib import Path

import evil_doors
import numpy as np
import pytest
from drawn_dicom import draw
from PIL import Image, ImageDraw, ImageFont

from cxr_foundation.data import read_index
from cxr_foundation.data.site import SHARED_BY, check_file, survey
from cxr_foundation.errors import NoImages, OutputExists
from cxr_foundation.images import read_image

CXR = str(Path(sys.executable).with_name("cxr"))


@pytest.fixture(scope="module")
def chests(bundled):
    """Three bundled radiographs of one data set about which nothing is to be said."""
    studies = [s for s in read_index(bundled) if s.source == "shenzhen"]
    quiet = [s.pixels() for s in studies if check_file(s.path).lines() == ["nothing to say"]]
    assert len(quiet) > 10
    return quiet[:3]


def dicom(path, values, **elements):
    stored = np.rint(values * 4095).astype(np.uint16)
    elements = {"BitsStored": 12, "BodyPartExamined": "CHEST", **elements}
    path.parent.mkdir(parents=True, exist_ok=True)
    return draw(path, stored, **elements)


def lines_of(report):
    return [json.loads(line) for line in (report / "files.jsonl").read_text().splitlines()]


@pytest.fixture
def export(tmp_path, chests):
    """Nine files of a PACS export and a text; every kind of thing that is looked for, once."""
    root = tmp_path / "export"
    upright, other, third = chests
    dicom(root / "a/1.2.840.1", upright, ViewPosition="PA", KVP="120", Manufacturer="Agfa")
    dicom(root / "a/2.dcm", np.rot90(other), ViewPosition="AP")
    dicom(root / "a/3.dcm", third, PhotometricInterpretation="MONOCHROME1")
    dicom(root / "b/4.dcm", upright, PresentationIntentType="FOR PROCESSING")
    dicom(root / "b/5.dcm", other, ViewPosition="LL", BurnedInAnnotation="YES")
    Image.fromarray(np.rint(upright * 255).astype(np.uint8)).save(root / "b/6.png")
    dicom(root / "b/7.dcm", upright)
    (root / "b/8.dcm").write_bytes((root / "b/7.dcm").read_bytes()[:-700])
    (root / "b/9.png").write_bytes(b"no picture")
    (root / "b/notes.txt").write_text("not a radiograph")
    (root / "b/.hidden.png").write_bytes(b"")
    return root


def test_a_report_counts_what_an_export_holds(export, tmp_path):
    found = survey(export, tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "report.json").read_text())
    assert summary == found.summary
    assert summary["files"] == {
        "seen": 9, "read": 6, "refused": 3, "passed_over": 1, "lossy": 0
    }  # fmt: skip
    assert summary["notices"] == {
        "turned, by the pixels": 1,
        "inverted, by the pixels": 1,
        "burned_in, by the header": 1,
        "non_frontal, by the header": 1,
    }
    assert summary["examples"]["turned, by the pixels"] == [2]
    assert summary["duplicates"] == {"files": 1, "examples": [[1, 7]]}
    assert summary["format"] == {"DICOM": 7, "picture": 2}
    assert summary["facts"]["view"] == {"not stated": 3, "PA": 1, "AP": 1, "LL": 1}
    assert summary["facts"]["photometric"] == {"MONOCHROME2": 5, "MONOCHROME1": 1}
    assert summary["facts"]["intent"] == {"not stated": 5, "FOR PROCESSING": 1}
    assert summary["kvp"]["median"] == 120
    assert sum(summary["refused"].values()) == 3
    assert any("FOR PROCESSING" in reason for reason in summary["refused"])


def test_the_same_radiograph_in_other_pixels_is_a_near_duplicate(export, tmp_path):
    pairs = survey(export, tmp_path / "report").summary["near_duplicates"]
    # The 8-bit picture of the first file, and a picture that was turned is another one.
    assert [1, 6] in pairs["examples"]


def test_files_are_named_in_one_place_only(export, tmp_path):
    survey(export, tmp_path / "report")
    entries = lines_of(tmp_path / "report")
    assert [e["file"] for e in entries] == sorted(e["file"] for e in entries)
    assert [e["number"] for e in entries] == list(range(1, 10))
    assert {e["file"]: e["duplicate_of"] for e in entries}["b/7.dcm"] == 1
    for name in ("report.html", "report.json"):
        text = (tmp_path / "report" / name).read_text()
        assert not any(e["file"].split("/")[-1] in text for e in entries)
        assert str(export) not in text


def test_the_page_needs_nothing_from_elsewhere(export, tmp_path):
    survey(export, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in page
    assert "<script" not in page and "http:" not in page and "https:" not in page
    assert "9 files: 6 read, 3 refused; 1 others passed over" in page


def test_fix_writes_upright_bone_bright_copies_and_leaves_the_export(export, tmp_path, chests):
    before = {p: p.read_bytes() for p in export.rglob("*") if p.is_file()}
    survey(export, tmp_path / "report", fix=True)
    assert {p: p.read_bytes() for p in export.rglob("*") if p.is_file()} == before
    fixed = sorted(p.name for p in (tmp_path / "report" / "fixed").iterdir())
    assert fixed == ["000002.png", "000003.png"]
    for name, upright in zip(fixed, chests[1:], strict=True):
        copy = read_image(tmp_path / "report" / "fixed" / name)
        np.testing.assert_allclose(copy, upright, atol=1.01 * (1 / 8190 + 1 / 131070))


def test_without_fix_no_picture_is_written(export, tmp_path):
    survey(export, tmp_path / "report")
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "files.jsonl", "report.html", "report.json"
    ]  # fmt: skip


def test_a_picture_with_letters_is_never_copied(tmp_path, chests):
    picture = Image.fromarray(np.rint(chests[0] * 128).astype(np.uint8))
    font = ImageFont.load_default(16)
    ImageDraw.Draw(picture).text((4, 4), "DOE^JANE 19700101", fill=255, font=font)
    (tmp_path / "in").mkdir()
    picture.rotate(180).save(tmp_path / "in" / "a.png")
    survey(tmp_path / "in", tmp_path / "report", fix=True)
    (entry,) = lines_of(tmp_path / "report")
    assert {"turned", "burned_in"} <= {n["kind"] for n in entry["notices"]}
    assert entry["fixed"] is None
    assert not (tmp_path / "report" / "fixed").exists()


def test_a_dark_copy_keeps_its_values(tmp_path, chests):
    dark = np.rint(np.rot90(chests[0], 2) * 3000).astype(np.uint16)
    (tmp_path / "in").mkdir()
    draw(tmp_path / "in" / "a.dcm", dark)
    survey(tmp_path / "in", tmp_path / "report", fix=True)
    copy = read_image(tmp_path / "report" / "fixed" / "000001.png")
    np.testing.assert_allclose(copy, np.rot90(dark, 2) / 65535, atol=1 / 4095)
    assert copy.max() < 0.05


def test_a_model_is_named_only_if_many_files_share_it(tmp_path, chests):
    tiny = chests[0][::8, ::8]
    for number in range(SHARED_BY):
        dicom(tmp_path / "in" / f"{number}.dcm", tiny, ManufacturerModelName="DR 600")
    dicom(tmp_path / "in" / "last.dcm", tiny, ManufacturerModelName="SECRET JANE")
    summary = survey(tmp_path / "in", tmp_path / "report").summary
    assert summary["facts"]["model"] == {"DR 600": SHARED_BY, "other": 1}
    for path in (tmp_path / "report").iterdir():
        assert "SECRET" not in path.read_text().upper()


def test_a_link_that_leaves_the_export_is_refused(tmp_path, chests):
    (tmp_path / "in").mkdir()
    dicom(tmp_path / "outside.dcm", chests[0])
    (tmp_path / "in" / "a.dcm").symlink_to(tmp_path / "outside.dcm")
    survey(tmp_path / "in", tmp_path / "report")
    (entry,) = lines_of(tmp_path / "report")
    assert entry["refused"] == "the path leaves the folder through a link"


def test_an_empty_folder_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(NoImages, match="holds no DICOM, PNG, JPEG or TIFF file"):
        survey(tmp_path / "in", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_report_is_never_overwritten(export, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "precious").touch()
    with pytest.raises(OutputExists):
        survey(export, tmp_path / "report")


# The command


def cxr(*arguments, cwd):
    return subprocess.run(
        [CXR, "check", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def test_check_of_a_file_says_what_is_wrong_and_writes_nothing(tmp_path, chests):
    path = dicom(tmp_path / "a.dcm", 1 - chests[0])
    result = cxr(path, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("inverted: is inverted: bone is dark, by the pixels (")
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]
    assert json.loads(cxr(path, "--json", cwd=tmp_path).stdout)["notices"][0]["kind"] == "inverted"


def test_check_of_a_folder_leaves_with_3_if_a_file_was_refused(export, tmp_path):
    result = cxr(export, cwd=tmp_path)
    assert result.returncode == 3
    assert "9 files: 6 read, 3 refused" in result.stdout
    assert (tmp_path / "cxr-check" / "report.html").exists()
    assert (
        json.loads(cxr(export, "--out", "b", "--json", cwd=tmp_path).stdout)["files"]["read"] == 6
    )


def test_check_trusts_what_it_is_told_to(tmp_path, chests):
    path = dicom(tmp_path / "a.dcm", chests[0], PresentationLUTShape="INVERSE")
    assert cxr(path, cwd=tmp_path).returncode == 1
    trusted = cxr(path, "--trust", "photometric", cwd=tmp_path)
    assert (trusted.returncode, trusted.stdout) == (0, "nothing to say\n")


def test_check_imports_no_framework(tmp_path, chests):
    path = dicom(tmp_path / "a.dcm", chests[0])
    code = (
        "import sys\nfrom cxr_foundation.data.site import survey\n"
        f"survey({str(path)!r}, 'report', fix=True)\n"
        "print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert out.stdout == "[]\n"


# Hostile files, and identifiers that were planted


@pytest.mark.skipif(not evil_doors.MAKER.exists(), reason="the generator is not here")
def test_hostile_files_are_all_reported_and_no_planted_identifier_gets_out(tmp_path):
    corpus = tmp_path / "corpus"
    evil_doors.make(corpus, evil_doors.IMAGES)
    rows = {r["file"]: r for r in json.loads((corpus / "manifest.json").read_text())}
    planted = sorted({mark for row in rows.values() for mark in row.get("phi", [])})
    assert {"ZZPHI", "19700101"} <= set(planted)
    try:
        result = cxr(corpus, "--out", tmp_path / "report", "--fix", cwd=tmp_path)
        again = cxr(corpus / "dicom" / "phi_broken.dcm", cwd=tmp_path)
    finally:
        (corpus / "image" / "unreadable").chmod(0o700)
    assert result.returncode == 3, result.stderr
    entries = {e["file"]: e for e in lines_of(tmp_path / "report")}
    for file, row in rows.items():
        if row["expect"] == "clear error" and (corpus / file).is_file() and file in entries:
            assert entries[file]["refused"] or row.get("also_ok"), file
    said = (result.stdout + result.stderr + again.stdout + again.stderr).encode()
    for path in (tmp_path / "report").rglob("*"):
        said += str(path.relative_to(tmp_path)).encode()
        if path.is_file():
            said += path.read_bytes()
    for mark in planted:
        for form in (mark.encode(), mark.encode("utf-16-le"), json.dumps(mark)[1:-1].encode()):
            assert form not in said, mark
    assert "Traceback" not in result.stderr
