"""Indices, folders and splits: what is read, and what is refused by file and line."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cxr_foundation import data
from cxr_foundation.data import Study
from cxr_foundation.errors import (
    BadIndex,
    NoImages,
    PatientLeak,
    UnreadableImage,
)
from cxr_foundation.images import phantom

LONG = "file,patient,split_group,labels,view,licence,sex,age,original_size\n"


@pytest.fixture
def folder(tmp_path):
    """Six pictures in images/, and no table yet."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    for i in range(6):
        Image.new("L", (8, 8), i).save(root / "images" / f"nih_{i}.png")
    return root


def write(folder, text, name="index.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def row(i, *, patient=None, group="", rest="normal,PA,CC BY 4.0,F,54,2500x2048"):
    return f"images/nih_{i}.png,{patient or f'p{i}'},{group},{rest}\n"


def wide(*rows):
    return "path,patient_id,split,effusion,nodule\n" + "".join(f"{r}\n" for r in rows)


# What is read.


def test_a_row_becomes_a_study(folder):
    write(folder, LONG + row(0, group="g7", rest="tb|nodule,AP,CC BY 4.0,M,61.5,2500x2048"))
    write(folder, "split_group,split\ng7,dev\n", "splits.csv")
    assert data.read_index(folder) == [
        Study(
            path=folder / "images" / "nih_0.png",
            labels=frozenset({"tb", "nodule"}),
            patient="p0",
            group="g7",
            split="dev",
            source="nih",
            licence="CC BY 4.0",
            view="AP",
            sex="M",
            age=61.5,
            original_size=(2500, 2048),
        )
    ]


def test_empty_cells_are_unknown_and_the_group_is_the_patient(folder):
    (study,) = data.read_index(write(folder, LONG + row(0, rest=",,,,,")))
    assert (study.group, study.split, study.age, study.original_size) == ("p0", None, None, None)
    assert study.labels == frozenset()


def test_splits_may_lie_one_folder_above_and_the_index_may_be_named_itself(folder):
    write(folder, LONG + row(0))
    write(folder.parent, "split_group,split\np0,test\n", "splits.csv")
    assert [s.split for s in data.read_index(folder / "index.csv")] == ["test"]


def test_a_table_with_a_column_per_finding_is_read(folder):
    write(folder, wide("images/nih_0.png,7,train,1,0", "images/nih_1.png,007,valid,,1.0"))
    first, second = data.read_index(folder)
    assert (first.labels, first.absent) == ({"effusion"}, {"nodule"})
    assert (second.labels, second.absent) == ({"nodule"}, frozenset())
    assert (first.split, second.split) == ("pretrain", "dev")
    assert (first.patient, second.patient) == ("7", "007")


def test_byte_order_mark_and_windows_line_ends_are_no_content(folder):
    text = (LONG + row(0) + row(1)).replace("\n", "\r\n")
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [s.original_size for s in data.read_index(folder)] == [(2500, 2048)] * 2


def test_pixels_are_those_of_read_image(folder):
    (study,) = data.read_index(write(folder, LONG + row(5)))
    assert study.pixels().shape == (8, 8)
    assert study.pixels()[0, 0] == pytest.approx(5 / 255)


def test_the_shared_radiographs_read_completely(radiographs):
    studies = data.read_index(radiographs)
    with open(radiographs / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [s.path for s in studies] == [radiographs / r["file"] for r in rows]
    assert [sorted(s.labels) for s in studies] == [sorted(r["labels"].split("|")) for r in rows]
    assert {s.source for s in studies} <= {
        "cohen", "jsrt", "kermany", "nih", "shenzhen", "tbx11k",
    }  # fmt: skip


# What is refused.


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (LONG.replace("file,", "path,") + row(0), 1, "'patient_id' is missing"),
        (LONG.replace("patient,", "") + "x\n", 1, "'patient' is missing"),
        (LONG.replace("view", "labels") + row(0), 1, "'labels' is there twice"),
        (LONG + row(0) + "images/nih_1.png,p1\n", 3, "2 fields where the header has 9"),
        (LONG + row(9), 2, "'images/nih_9.png': no such file"),
        (LONG + row(0).replace("images/", "../images/"), 2, "climbs with '..'"),
        (LONG + row(0).replace("images/", "/images/"), 2, "not relative"),
        (LONG + row(0).replace("images/", "file:///images/"), 2, "not relative"),
        (LONG + row(0).replace("images/", "images\\"), 2, "not relative"),
        (LONG + row(0).replace("images/nih_0.png", "images"), 2, "not a regular file"),
        (LONG + row(0, patient=" "), 2, "no patient"),
        (LONG + row(0) + row(0), 3, "nih_0.png is already in line 2"),
        (LONG + row(0, rest=",,,,old,"), 2, "the age 'old' is not"),
        (LONG + row(0, rest=",,,,nan,"), 2, "the age 'nan' is not"),
        (LONG + row(0, rest=",,,,,0x5"), 2, "the size '0x5' is not"),
        (LONG + row(0, patient="=1+1"), 2, "formula"),
        (LONG + row(0, patient="p\x00"), 2, "control characters"),
        (LONG + row(0, patient='"p\n0"'), 3, "control characters or a line break"),
        (LONG + row(0, patient='"p0') + row(1), 3, "unexpected end of data"),
        (LONG + row(0, patient="p" * 70_000), 2, "longer than 65,536 bytes"),
        (wide("images/nih_0.png,p0,train,yes,0"), 2, "'effusion' is 'yes', not 0, 1 or empty"),
        (wide("images/nih_0.png,p0,trian,1,0"), 2, "the split 'trian' is not one of"),
    ],
)
def test_a_bad_table_is_refused_by_file_and_line(folder, text, line, reason):
    with pytest.raises(BadIndex) as caught:
        data.read_index(write(folder, text))
    assert caught.value.subject == f"{folder / 'index.csv'}: line {line}"
    assert reason in caught.value.reason


def test_bytes_that_are_not_utf8_are_refused_by_line(folder):
    (folder / "index.csv").write_bytes((LONG + row(0)).encode() + b"images/nih_1.png,Jos\xe9,,,,\n")
    with pytest.raises(BadIndex, match=r"line 3: not UTF-8\. Save the table as UTF-8\."):
        data.read_index(folder)


@pytest.mark.parametrize("text", ["", LONG])
def test_a_table_without_rows_holds_no_images(folder, text):
    with pytest.raises(NoImages, match="has no rows"):
        data.read_index(write(folder, text))


def test_a_link_out_of_the_folder_is_refused(folder):
    Image.new("L", (8, 8)).save(folder.parent / "secret.png")
    (folder / "images" / "nih_7.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(BadIndex, match="leaves the folder through a link"):
        data.read_index(write(folder, LONG + row(7)))


def test_a_folder_that_is_a_link_out_is_refused(folder):
    (folder.parent / "else").mkdir()
    Image.new("L", (8, 8)).save(folder.parent / "else" / "nih_0.png")
    (folder / "linked").symlink_to(folder.parent / "else")
    with pytest.raises(BadIndex, match="leaves the folder through a link"):
        data.read_index(write(folder, LONG + row(0).replace("images/", "linked/")))


def test_one_file_under_two_names_is_a_duplicate(folder):
    (folder / "images" / "nih_7.png").symlink_to(folder / "images" / "nih_0.png")
    with pytest.raises(BadIndex, match="already in line 2"):
        data.read_index(write(folder, LONG + row(0) + row(7)))


# Splits.


def test_a_patient_on_two_sides_is_a_leak(folder):
    write(folder, wide("images/nih_0.png,p0,train,1,0", "images/nih_1.png,P0 ,test,1,0"))
    with pytest.raises(PatientLeak, match="patient is in 'test', and in 'pretrain' with nih_0"):
        data.read_index(folder)


def test_a_patient_in_two_groups_on_two_sides_is_a_leak(folder):
    write(folder, LONG + row(0, patient="p", group="a") + row(1, patient="p", group="b"))
    write(folder, "split_group,split\na,dev\nb,test\n", "splits.csv")
    with pytest.raises(PatientLeak, match="patient"):
        data.read_index(folder)


def test_a_group_twice_in_splits_is_a_leak(folder):
    write(folder, LONG + row(0, group="a"))
    write(folder, "split_group,split\na,dev\nA,test\n", "splits.csv")
    with pytest.raises(PatientLeak, match=r"splits\.csv: line 3"):
        data.read_index(folder)


def test_a_group_without_a_side_is_refused(folder):
    write(folder, LONG + row(0, group="a"))
    write(folder, "split_group,split\nb,dev\n", "splits.csv")
    with pytest.raises(BadIndex, match=r"line 2: the group 'a' is not in splits\.csv"):
        data.read_index(folder)


def test_check_disjoint_also_guards_lists_made_elsewhere():
    def study(name, side):
        return Study(path=Path(name), patient="p", group="p", split=side)

    data.check_disjoint([study("a.png", "dev"), study("b.png", "dev")])
    with pytest.raises(PatientLeak):
        data.check_disjoint([study("a.png", "dev"), study("b.png", "test")])


def test_by_split_takes_one_part_and_names_what_there_is(folder):
    write(folder, wide("images/nih_0.png,a,train,1,0", "images/nih_1.png,b,test,1,0"))
    studies = data.read_index(folder)
    assert [s.patient for s in data.by_split(studies, "test")] == ["b"]
    with pytest.raises(BadIndex, match="only of pretrain, test"):
        data.by_split(studies, "dev")
    with pytest.raises(BadIndex, match="Splits are pretrain, dev and test"):
        data.by_split(studies, "train")


@pytest.mark.parametrize(
    ("source", "licence", "may"),
    [
        ("kermany", "CC BY 4.0", True),
        ("cohen", "CC BY 3.0", True),
        ("cohen", "CC BY 4.0", True),
        ("cohen", "CC BY", False),
        ("cohen", "CC BY-SA", False),
        ("cohen", "CC BY-NC-SA 4.0", False),
        ("nih", "NIH CC: no restrictions on use, cite Wang et al. 2017", True),
        ("nih", "CC BY 4.0", False),
        ("jsrt", "CC BY 4.0", False),
        ("", "", False),
    ],
)
def test_only_known_terms_of_known_sources_may_ship(source, licence, may):
    study = Study(path=Path("a.png"), patient="p", group="p", source=source, licence=licence)
    assert data.may_ship(study) is may


# Plain folders.


def test_a_plain_folder_is_searched_through_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "b" / "2.PNG")
    Image.new("L", (8, 8)).save(tmp_path / "1.jpg")
    phantom.draw_dicom(tmp_path / "3.dcm")
    phantom.draw_dicom(tmp_path / "b" / "no_suffix")
    for other in ("notes.txt", "._1.jpg", "b/.hidden.png", "empty"):
        (tmp_path / other).write_bytes(b"no picture")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [s.path.relative_to(tmp_path).as_posix() for s in data.read_index(tmp_path)]
    assert found == ["1.jpg", "3.dcm", "b/2.PNG", "b/no_suffix"]


def test_a_dicoms_patient_is_a_hash_that_groups_and_says_nothing(tmp_path):
    import pydicom

    for name, patient in (("a", "ZZPHIID0001"), ("b", "ZZPHIID0001"), ("c", "ZZPHIID0002")):
        phantom.draw_dicom(tmp_path / f"{name}.dcm")
        header = pydicom.dcmread(tmp_path / f"{name}.dcm")
        header.PatientID = patient
        header.save_as(tmp_path / f"{name}.dcm")
    a, b, c = data.read_index(tmp_path)
    assert a.patient == b.patient != c.patient
    assert a.group == a.patient
    assert "ZZPHI" not in repr([a, b, c])
    child = "import sys; from cxr_foundation import data; print(data.read_index(sys.argv[1])[0])"
    other = subprocess.run(
        [sys.executable, "-c", child, tmp_path], capture_output=True, text=True, check=True
    )
    assert a.patient not in other.stdout


def test_a_broken_dicom_is_refused_by_name(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"not a DICOM file")
    with pytest.raises(UnreadableImage, match=r"a\.dcm"):
        data.read_index(tmp_path)


@pytest.mark.parametrize("name", ["", "absent"])
def test_nothing_to_read_is_an_error(tmp_path, name):
    with pytest.raises(NoImages):
        data.read_index(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadIndex, match="not a regular file"):
        data.read_index(tmp_path)


def test_reading_an_index_imports_neither_torch_nor_numpy(folder):
    write(folder, LONG + row(0))
    child = (
        "import sys; from cxr_foundation import data; data.read_index(sys.argv[1]);"
        "print(sorted({'torch', 'timm', 'transformers', 'numpy', 'pydicom'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", child, folder], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
