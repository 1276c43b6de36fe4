"""Data sets as published: Open-i, BRAX, CheXmask, a folder per class, the Hub."""

from pathlib import Path

import numpy as np
import pytest
from drawn_data_sets import BRAX, REPORT, brax, chexmask, grey, openi, text
from PIL import Image

from cxr_foundation.data.readers import chexmask as masks
from cxr_foundation.data.readers import hub
from cxr_foundation.data.reading import read, recognise
from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadIndex, MissingExtra

# Open-i.


def test_openi_from_its_reports(tmp_path):
    first, second = read(openi(tmp_path))
    assert first.labels == second.labels == {"cardiomegaly", "hernia"}
    assert first.path.name == "CXR7_IM-2263-1001.png"
    assert (first.frontal, first.view) == (None, "")
    assert first.patient == second.patient
    assert first.study == second.study != first.patient


@pytest.mark.parametrize(
    ("headings", "labels"),
    [
        ("<major>normal</major>", {"normal"}),
        ("<major>Opacity/lung/base/left \t\n</major>", {"opacity"}),
        ("<major>Pleural Effusion</major><major>No Indexing</major>", {"effusion"}),
        ("<major>No Indexing</major>", {"unlabelled"}),
        ("", {"unlabelled"}),
    ],
)
def test_openis_labels_are_the_indexers_headings(tmp_path, headings, labels):
    text(openi(tmp_path) / "ecgen-radiology/7.xml", REPORT.format(headings=headings))
    assert read(tmp_path)[0].labels == labels


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<eCitation>", '<!DOCTYPE x [<!ENTITY a "b">]><eCitation>', "declares a document type"),
        ("</eCitation>", "", "not well-formed"),
        ('id="CXR7_IM-2263-1001"', "", "line 1: a picture without a name"),
        ('id="CXR7_IM-2263-1001"', 'id="../secret"', "is not in the folder"),
    ],
)
def test_a_bad_report_is_refused(tmp_path, old, new, reason):
    file = openi(tmp_path) / "ecgen-radiology/7.xml"
    text(file, file.read_text().replace(old, new, 1))
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path)


def test_openi_from_the_tables_on_kaggle(tmp_path):
    reports = "uid,MeSH,Problems,findings\n1,normal,normal,ZZPHI clear\n2,Nodule/lung;Mass,x,y\n"
    text(tmp_path / "indiana_reports.csv", reports)
    projections = "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n"
    projections += "2,2_IM-0652-2001.dcm.png,Lateral\n"
    text(tmp_path / "indiana_projections.csv", projections)
    for name in ("1_IM-0001-4001", "2_IM-0652-2001"):
        grey(tmp_path / "images/images_normalized" / f"{name}.dcm.png")
    assert recognise(tmp_path) == ["openi"]
    frontal, lateral = read(tmp_path)
    assert (frontal.labels, frontal.frontal, frontal.view) == ({"normal"}, True, "")
    assert (lateral.labels, lateral.frontal, lateral.view) == ({"nodule", "mass"}, False, "LATERAL")
    assert "ZZPHI" not in repr([frontal, lateral])
    text(tmp_path / "indiana_projections.csv", projections + "3,a.png,Frontal\n")
    with pytest.raises(BadIndex, match=r"line 4: the report '3' is not in indiana_reports\.csv"):
        read(tmp_path)


# BRAX.


def test_brax(tmp_path):
    frontal, lateral = read(brax(tmp_path))
    assert frontal.labels == {"cardiomegaly", "support_devices"}
    assert (frontal.absent, frontal.uncertain) == ({"atelectasis"}, {"edema"})
    assert (frontal.view, frontal.frontal, frontal.sex, frontal.age) == ("PA", True, "F", 85)
    assert (lateral.view, lateral.frontal) == ("L", False)
    assert frontal.original_size == (1500, 2000)
    assert (frontal.patient, frontal.study) == (lateral.patient, lateral.study)
    assert frontal.patient != frontal.study
    assert frontal.split is None


def test_brax_with_ones_for_uncertain_labels_and_its_dicoms(tmp_path):
    studies = read(brax(tmp_path), uncertain="ones")
    assert studies[0].labels == {"cardiomegaly", "support_devices", "edema"}
    with pytest.raises(BadIndex, match=r"image-1\.dcm' is not in the folder"):
        read(tmp_path, pictures="dicom")
    with pytest.raises(BadIndex, match="neither 'png' nor 'dicom'"):
        read(tmp_path, pictures="jpg")


@pytest.mark.parametrize("age", ["85 or less", "-5", "131", "old"])
def test_an_age_that_is_no_group_is_refused(tmp_path, age):
    table = brax(tmp_path) / "master_spreadsheet_update.csv"
    text(table, table.read_text().replace("85 or more", age, 1))
    with pytest.raises(BadIndex, match="line 2: the age"):
        read(tmp_path)


def test_a_label_beyond_the_code_is_refused(tmp_path):
    table = brax(tmp_path) / "master_spreadsheet_update.csv"
    text(table, table.read_text().replace(",-1.0,", ",2,", 1))
    with pytest.raises(BadIndex, match="line 2: Edema is '2'"):
        read(tmp_path)
    assert BRAX.count(",") == 23


# CheXmask.


def study(path, source="nih", **facts):
    return Study(path=path, patient="p", group="p", source=source, **facts)


def test_masks_of_chexmask_are_runs_along_the_rows_from_one(tmp_path):
    good, bad, unknown = masks.attach(
        [study(tmp_path / f"0000000{i}_000.png") for i in (1, 2, 3)], chexmask(tmp_path)
    )
    left, right = good.masks
    assert (left.name, right.name) == ("left_lung", "right_lung")
    expected = np.zeros((6, 8), bool)
    # Pixels 2, 3, 4 and 10, 17 and 18, counted from 1, in rows of eight.
    expected[0, 1:4] = expected[1, 1] = True
    np.testing.assert_array_equal(left.array(), expected)
    expected[:] = False
    expected[2, :2] = True
    np.testing.assert_array_equal(right.array(), expected)
    assert bad.masks == unknown.masks == ()


def test_a_threshold_of_quality_can_be_chosen(tmp_path):
    one = study(tmp_path / "00000002_000.png")
    (found,) = masks.attach([one], chexmask(tmp_path), quality=0.5)
    assert [m.name for m in found.masks] == ["left_lung", "right_lung", "heart"]


def test_the_radiographs_that_chexmask_has_good_masks_of(tmp_path):
    table = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    )
    names = [f"0000000{i}_000.png" for i in (1, 2, 3)]
    for i, name in enumerate(names, start=1):
        grey(tmp_path / "nih" / "images" / name)
        table += f"{name},Nodule,0,{i},58,M,PA,8,6,0.1,0.1\n"
    text(tmp_path / "nih" / "Data_Entry_2017.csv", table)
    text(tmp_path / "nih" / "train_val_list.txt", "\n".join(names) + "\n")
    text(tmp_path / "nih" / "test_list.txt", "")
    root = chexmask(tmp_path / "chexmask")
    (found,) = read(root, pictures=tmp_path / "nih")
    assert (found.path.name, found.source, found.labels) == (names[0], "nih", {"nodule"})
    assert [m.array().shape for m in found.masks] == [found.pixels().shape] * 2


@pytest.mark.parametrize(
    ("source", "table", "column", "identifier", "path"),
    [
        (
            "chexpert",
            "CheXpert.csv",
            "Path",
            "train/patient00001/study1/view1_frontal.jpg",
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
        ),
        ("mimic_cxr", "MIMIC-CXR-JPG.csv", "dicom_id", "02aa-8d", "files/p10/s5/02aa-8d.jpg"),
        ("padchest", "Padchest.csv", "ImageID", "1_2.png", "0/1_2.png"),
        ("vindr_cxr", "VinDr-CXR.csv", "image_id", "00af", "train/00af.dicom"),
    ],
)
def test_every_data_sets_own_identifier_is_found(tmp_path, source, table, column, identifier, path):
    cells = "Dice RCA (Mean),Left Lung,Right Lung,Heart,Height,Width"
    rows = f"{column},{cells}\n{identifier},0.9,1 2,3 1,4 1,2,2\n"
    text(tmp_path / "OriginalResolution" / table, rows)
    (found,) = masks.attach([study(tmp_path / path, source)], tmp_path)
    assert [m.name for m in found.masks] == ["left_lung", "right_lung", "heart"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('00000001_000.png,1,1,"",1 1,1 1,1 1,6,8', "line 4: '00000001_000.png' is there twice"),
        ('00000003_000.png,1,1,"",1 1,1 1,1 1,0,8', "line 4: a mask without a usable height"),
        ('00000003_000.png,1,1,"",1 1,1 1,1 1,99999,8', "line 4: a mask without a usable height"),
        ('00000003_000.png,1,x,"",1 1,1 1,1 1,6,8', "line 4: Dice RCA"),
    ],
)
def test_a_bad_row_of_masks_is_refused(tmp_path, row, reason):
    table = chexmask(tmp_path) / "OriginalResolution/ChestX-Ray8.csv"
    text(table, table.read_text() + row + "\n")
    with pytest.raises(BadIndex, match=reason):
        masks.attach([study(tmp_path / f"0000000{i}_000.png") for i in (1, 3)], tmp_path)


def test_masks_without_pictures_or_of_another_data_set(tmp_path):
    chexmask(tmp_path)
    with pytest.raises(BadIndex, match="holds masks, not pictures"):
        read(tmp_path)
    with pytest.raises(BadIndex, match="has no masks of 'brax'"):
        masks.attach([study(tmp_path / "a.png", "brax")], tmp_path)
    with pytest.raises(BadIndex, match=r"holds no OriginalResolution/Padchest\.csv"):
        masks.attach([study(tmp_path / "a.png", "padchest")], tmp_path)


# A folder per class.


def test_a_folder_per_class(tmp_path):
    for name in ("normal/p1_a.png", "tb/p2_a.png", "tb/deep/p2_b.png"):
        grey(tmp_path / name)
    studies = read(tmp_path, "image_folder")
    assert [(sorted(s.labels), s.split) for s in studies] == [
        (["normal"], None), (["tb"], None), (["tb"], None),
    ]  # fmt: skip
    assert len({s.patient for s in studies}) == 3
    grouped = read(tmp_path, "image_folder", patient="(p[0-9]+)_")
    assert len({s.patient for s in grouped}) == 2
    assert recognise(tmp_path) == []


def test_a_folder_per_part_and_class(tmp_path):
    for name in ("train/normal/a.png", "valid/tb/b.jpg"):
        grey(tmp_path / name)
    studies = read(tmp_path, "image_folder")
    assert [(set(s.labels), s.split) for s in studies] == [({"normal"}, "train"), ({"tb"}, "valid")]


@pytest.mark.parametrize(
    ("patient", "name", "reason"),
    [
        ("", "a.png", "is in no class's folder"),
        ("p[0-9]", "tb/p1.png", "no group in parentheses"),
        ("(p", "tb/p1.png", "no regular expression"),
        ("(q[0-9])", "tb/p1.png", "its name has no patient"),
    ],
)
def test_a_folder_that_is_not_as_asked_is_refused(tmp_path, patient, name, reason):
    grey(tmp_path / name)
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path, "image_folder", patient=patient)


# The Hub.


@pytest.fixture
def library(tmp_path, monkeypatch):
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found.disable_progress_bars()
    yield found
    found.enable_progress_bars()


def hub_rows(library, folder, **columns):
    features = {"image": library.Image(), "label": library.ClassLabel(names=["normal", "tb"])}
    paths = [str(grey(folder / f"{i}.png", 50 * i)) for i in range(3)]
    facts = {"image": paths, "label": [0, 1, -1], **columns}
    features |= {name: library.Value("string") for name in columns}
    return library.Dataset.from_dict(facts, features=library.Features(features))


def test_a_saved_data_set_of_the_hub(library, tmp_path):
    rows = hub_rows(library, tmp_path / "files", patient=["ZZPHI1", "ZZPHI2", "ZZPHI2"])
    library.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "saved"))
    assert recognise(tmp_path / "saved") == ["hub"]
    into = tmp_path / "pictures"
    studies = read(tmp_path / "saved", into=into, patient="patient")
    assert [set(s.labels) for s in studies] == [{"normal"}, {"tb"}, {"unlabelled"}]
    assert {s.split for s in studies} == {"train"}
    assert [s.pixels()[0, 0] for s in studies] == pytest.approx([0, 50 / 255, 100 / 255])
    assert studies[1].patient == studies[2].patient != studies[0].patient
    assert "ZZPHI" not in repr(studies)
    before = {p: p.stat().st_mtime_ns for p in into.iterdir()}
    assert [s.path for s in read(tmp_path / "saved", into=into)] == [s.path for s in studies]
    assert {p: p.stat().st_mtime_ns for p in into.iterdir()} == before


def test_a_downloaded_repository_of_the_hub(library, tmp_path):
    rows = hub_rows(library, tmp_path / "files")
    rows = rows.cast_column("image", library.Image(decode=False)).map(
        lambda row: {"image": {"bytes": Path(row["image"]["path"]).read_bytes(), "path": None}}
    )
    (tmp_path / "repo" / "data").mkdir(parents=True)
    rows.to_parquet(str(tmp_path / "repo/data/train-00000-of-00001.parquet"))
    studies = read(tmp_path / "repo", "hub", into=tmp_path / "pictures")
    assert [set(s.labels) for s in studies] == [{"normal"}, {"tb"}, {"unlabelled"}]
    assert studies[2].pixels()[0, 0] == pytest.approx(100 / 255)


def test_pictures_are_written_nowhere_unasked_and_read_nowhere_else(library, tmp_path):
    rows = hub_rows(library, tmp_path / "files")
    (first, *_) = hub.studies_of(rows, folder=tmp_path / "files")
    assert first.path == tmp_path / "files" / "0.png"
    with pytest.raises(BadIndex, match="outside of the data set's folder"):
        hub.studies_of(rows, folder=tmp_path / "else")
    rows.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(BadIndex, match="Name a folder to write to"):
        read(tmp_path / "saved")
    with pytest.raises(BadIndex, match=r"is no name of a part"):
        hub.studies_of({"../../evil": rows}, folder=tmp_path / "files")


def test_columns_that_do_not_fit_are_refused(library, tmp_path):
    rows = hub_rows(library, tmp_path / "files", note=["a", "b", "c"])
    folder = tmp_path / "files"
    assert hub.studies_of(rows, folder=folder, label="note")[1].labels == {"b"}
    with pytest.raises(BadIndex, match="'scan': is not in the data set"):
        hub.studies_of(rows, folder=folder, image="scan")
    with pytest.raises(BadIndex, match="several or no columns of pictures: none"):
        hub.studies_of(rows.remove_columns("image"), folder=folder)
    plain = rows.cast_column("label", library.Value("int64"))
    with pytest.raises(BadIndex, match="neither class labels nor text"):
        hub.studies_of(plain, folder=folder)
    beyond = plain.map(lambda row: {"label": row["label"] + 5})
    beyond = beyond.cast_column("label", library.ClassLabel(num_classes=9))
    assert hub.studies_of(beyond, folder=folder)[0].labels == {"5"}
    with pytest.raises(BadIndex, match="no patient in column 'note'"):
        empty = hub_rows(library, tmp_path / "files", note=["a", None, "c"])
        hub.studies_of(empty, folder=folder, patient="note")


def test_a_damaged_data_set_is_refused(library, tmp_path):
    text(tmp_path / "dataset_dict.json", '{"splits": ["train"]}')
    with pytest.raises(BadIndex, match="`datasets` cannot read it"):
        read(tmp_path, into=tmp_path / "pictures")


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    text(tmp_path / "dataset_dict.json", "{}")
    with pytest.raises(MissingExtra, match=r"cxr-foundation-hub\[data\]"):
        read(tmp_path)


def test_a_16_bit_png_of_the_hub_stays_one(library, tmp_path):
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "deep.png")
    features = library.Features({"image": library.Image()})
    rows = library.Dataset.from_dict({"image": [str(tmp_path / "deep.png")]}, features=features)
    (found,) = hub.studies_of(rows, folder=tmp_path)
    assert found.labels == {"unlabelled"}
    assert found.pixels()[0, 0] == pytest.approx(30000 / 65535)
