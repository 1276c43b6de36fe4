"""Data sets as published, drawn in their own layouts: Kermany to NODE21."""

import collections
import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_data_sets import (
    LAYOUTS,
    grey,
    kermany,
    montgomery,
    node21,
    shenzhen,
    tbx11k,
    text,
    vindr_ribcxr,
)
from drawn_data_sets import jsrt as draw_jsrt
from PIL import Image

from cxr_foundation.data import check_disjoint
from cxr_foundation.data.readers import jsrt
from cxr_foundation.data.reading import data_sets, read, recognise
from cxr_foundation.data.study import Box
from cxr_foundation.errors import (
    BadIndex,
    CxrError,
    NoImages,
    PatientLeak,
    UnknownName,
    UnsupportedPixels,
)

SECOND = {
    "brax", "chexmask", "hub", "image_folder", "jsrt", "kermany", "montgomery", "node21", "openi",
    "shenzhen", "tbx11k", "vindr_ribcxr",
}  # fmt: skip


def by_name(studies):
    return {s.path.name: s for s in studies}


JUNK = (
    b"",
    b"\x00",
    b"\xff",
    b"\n",
    b",",
    b'"',
    b"{",
    b"[",
    b"-1",
    b"1e999",
    b"null",
    b"../",
    b"<!",
)

# Every one.


def test_all_of_the_second_half_are_registered_and_drawn_here():
    assert set(data_sets()) >= SECOND
    assert SECOND == {*LAYOUTS, "hub", "image_folder"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_no_identifier_gets_out(tmp_path, name):
    LAYOUTS[name](tmp_path)
    assert recognise(tmp_path) == [name]
    if name != "chexmask":
        studies = read(tmp_path)
        assert {s.source for s in studies} == {name}
        assert all(s.path.is_relative_to(tmp_path) and s.path.is_file() for s in studies)
        for study in studies:
            assert "ZZPHI" not in repr(study).replace(str(study.path), "")
            assert study.pixels().ndim == 2
            for mask in study.masks:
                assert mask.array().dtype == bool
        assert {len(s.patient) for s in studies} == {32}
        check_disjoint(studies)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"chexmask"}))
def test_a_picture_that_leaves_the_folder_is_refused(tmp_path, name):
    root = LAYOUTS[name](tmp_path / "set")
    study = read(root)[0]
    outside = tmp_path / f"secret{study.path.suffix}"
    shutil.move(study.path, outside)
    study.path.symlink_to(outside)
    with pytest.raises(BadIndex, match="leaves the folder through a link"):
        read(root)


@pytest.mark.parametrize("name", ["brax", "node21", "openi", "tbx11k", "vindr_ribcxr"])
def test_a_picture_that_a_table_names_and_that_is_missing(tmp_path, name):
    LAYOUTS[name](tmp_path)
    studies = read(tmp_path)
    studies[0].path.unlink()
    with pytest.raises(BadIndex, match="is not in the folder"):
        read(tmp_path)
    assert [s.path for s in read(tmp_path, missing="skip")] == [s.path for s in studies[1:]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_tables_give_studies_or_an_error_of_ours(tmp_path, name):
    root = LAYOUTS[name](tmp_path)
    generator = random.Random(7)
    files = [f for f in root.rglob("*") if f.suffix.lower() in {".csv", ".json", ".xml", ".txt"}]
    outcomes = collections.Counter()
    for file in sorted(files):
        whole = file.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(generator.randint(1, 4)):
                at = generator.randrange(len(damaged))
                damaged[at : at + generator.choice((0, 1, 1, 9))] = generator.choice(JUNK)
            file.write_bytes(damaged)
            try:
                read(root, name)
                outcomes["studies"] += 1
            except CxrError:
                outcomes["error"] += 1
        file.write_bytes(whole)
    assert outcomes.total() == 40 * len(files)


# Kermany.


def test_kermany(tmp_path):
    studies = by_name(read(kermany(tmp_path)))
    bacterial = studies["BACTERIA-1008087-0001.jpeg"]
    assert bacterial.labels == {"pneumonia", "bacterial"}
    assert (bacterial.split, bacterial.view, bacterial.licence) == ("train", "AP", "CC BY 4.0")
    assert bacterial.patient == studies["BACTERIA-1008087-0002.jpeg"].patient
    assert studies["VIRUS-1008470-0001.jpeg"].labels == {"pneumonia", "viral"}
    assert studies["NORMAL-1003234-0001.jpeg"].labels == {"normal"}
    assert len({s.patient for s in studies.values()}) == 5


def test_the_copy_of_kermany_on_kaggle_shares_numbers_between_train_and_test(tmp_path):
    for name in (
        "train/PNEUMONIA/person1_bacteria_1",
        "train/NORMAL/IM-0115-0001",
        "train/NORMAL/NORMAL2-IM-0927-0001",
        "val/PNEUMONIA/person1946_bacteria_4874",
        "test/PNEUMONIA/person1_virus_6",
        "test/NORMAL/IM-0001-0001",
    ):
        grey(tmp_path / f"{name}.jpeg")
    studies = by_name(read(tmp_path))
    assert studies["person1946_bacteria_4874.jpeg"].split == "val"
    assert studies["NORMAL2-IM-0927-0001.jpeg"].labels == {"normal"}
    with pytest.raises(PatientLeak):
        check_disjoint(studies.values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train/NORMAL/BACTERIA-1-0001", "its name says bacteria, its folder NORMAL"),
        ("train/PNEUMONIA/scan7", "is not called as the pictures"),
    ],
)
def test_a_picture_of_kermany_in_the_wrong_folder_is_refused(tmp_path, name, reason):
    grey(kermany(tmp_path) / "chest_xray" / f"{name}.jpeg")
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path)


# Montgomery and Shenzhen.


def test_montgomery(tmp_path):
    healthy, ill = read(montgomery(tmp_path))
    assert (healthy.labels, healthy.absent) == ({"normal"}, {"tb"})
    assert (healthy.sex, healthy.age, healthy.view) == ("F", 27, "PA")
    assert (ill.labels, ill.absent, ill.sex, ill.age) == ({"tb"}, frozenset(), "M", 0.5)
    assert {m.name: bool(m.array().all()) for m in ill.masks} == {
        "left_lung": True,
        "right_lung": False,
    }


def test_shenzhen(tmp_path):
    healthy, ill, unread = read(shenzhen(tmp_path))
    assert (healthy.labels, healthy.sex, healthy.age) == ({"normal"}, "M", 45)
    assert (ill.labels, ill.sex, ill.age) == ({"tb"}, "F", 16 / 12)
    assert (unread.sex, unread.age) == ("", None)
    assert [[m.name for m in s.masks] for s in (healthy, ill)] == [["lungs"], []]


@pytest.mark.parametrize(
    ("name", "place", "words"),
    [
        ("shenzhen", "CXR_png", {"tb": {"tb"}}),
        ("jsrt", "JSRT", {"normal": set()}),
        ("kermany", "", {}),
    ],
)
def test_real_radiographs_in_their_data_sets_layout(radiographs, tmp_path, name, place, words):
    with open(radiographs / "index.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["file"].startswith(f"images/{name}_")]
    rows = rows[:3] + rows[-3:]
    if not rows:
        pytest.skip(f"no radiographs of {name} here")
    wanted = {}
    for row in rows:
        labels = set(row["labels"].split("|"))
        stem = Path(row["file"]).stem.removeprefix(f"{name}_")
        inside = place or f"train/{'NORMAL' if labels == {'normal'} else 'PNEUMONIA'}"
        (tmp_path / inside).mkdir(parents=True, exist_ok=True)
        suffix = ".png" if place else ".jpeg"
        with Image.open(radiographs / row["file"]) as picture:
            picture.save(tmp_path / inside / f"{stem}{suffix}")
        wanted[stem] = words.get("|".join(sorted(labels)), labels)
    studies = read(tmp_path, name)
    assert {s.path.stem: set(s.labels) for s in studies} == wanted
    assert all(0.1 < s.pixels().mean() < 0.9 for s in studies)


# TBX11K.


def test_tbx11k(tmp_path):
    studies = by_name(read(tbx11k(tmp_path)))
    assert [s.split for s in studies.values()] == ["train"] * 3 + ["val"] * 2 + ["test"]
    kinds = {"active_tb", "latent_tb"}
    assert (studies["h0001.png"].labels, studies["h0001.png"].absent) == (
        {"normal"},
        {*kinds, "tb"},
    )
    assert studies["s0001.png"].labels == {"other_abnormality"}
    active = studies["tb0005.png"]
    assert active.labels == {"tb", "active_tb"}
    assert active.boxes == (Box(finding="active_tb", x=10.5, y=20, width=30, height=40),)
    assert active.original_size == (512, 512)
    assert studies["tb0006.png"].labels == {"tb", *kinds}
    assert (studies["tb1199.png"].labels, studies["tb1199.png"].uncertain) == ({"tb"}, kinds)
    assert studies["t0001.png"].labels == {"unlabelled"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{", "", "not JSON"),
        ('"categories"', '"c"', "the key 'categories' is missing"),
        ("ActiveTuberculosis", "Tumour", "not annotations in COCO's form"),
        ("[10.5", "[NaN", "not JSON"),
        ("[10.5", "[1e999", "not JSON"),
        ("[10.5, 20, 30, 40]", "7", "not annotations in COCO's form"),
        ("health/h0001", "../../secret", "climbs|in no known folder|not in the folder"),
        ('"bbox": [', '"bbox": ' + "[" * 100_000, "not JSON"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, old, new, reason):
    file = tbx11k(tmp_path) / "TBX11K/annotations/json/TBX11K_train.json"
    text(file, file.read_text().replace(old, new, 1))
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path)


# JSRT.


def test_jsrt(tmp_path):
    first, second, third = read(draw_jsrt(tmp_path))
    assert first.labels == {"nodule", "malignant_nodule"}
    assert (first.sex, first.age, first.original_size) == ("M", 53, (2048, 2048))
    # 14 mm at 0.175 mm a pixel are 80 pixels around (1634, 692).
    assert first.boxes == (Box(finding="nodule", x=1594, y=652, width=80, height=80),)
    assert second.labels == {"nodule", "benign_nodule"}
    assert (second.age, second.sex) == (None, "F")
    assert second.boxes == (Box(finding="nodule", x=1614, y=1090, width=0, height=0),)
    assert (third.labels, third.absent) == (frozenset(), {"nodule"})
    assert (third.sex, third.age, third.boxes) == ("F", 21, ())
    assert [s.split for s in (first, second, third)] == ["fold1", "fold2", None]
    assert {m.name: m.array().shape for m in first.masks} == {
        "heart": (1024, 1024),
        "left_lung": (1024, 1024),
    }
    assert first.pixels()[0, 2047] == np.float32((4095 - 1000) / 4095)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1634\t692", "1634", "the entry of JPCLN001 is not as the release has it"),
        ("malignant", "unclear", "the entry of JPCLN001 is not as the release has it"),
        ("JPCLN002", "JPCLN001", "names JPCLN001 twice"),
    ],
)
def test_a_nodule_is_never_lost_in_a_damaged_table(tmp_path, old, new, reason):
    table = draw_jsrt(tmp_path) / "Clinical_Information/CLNDAT_EN.txt"
    text(table, table.read_text("latin-1").replace(old, new, 1), "latin-1")
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path)


def test_a_film_goes_before_its_copy(tmp_path):
    grey(draw_jsrt(tmp_path) / "JSRT" / "JPCLN001.png")
    assert read(tmp_path)[0].path.suffix == ".IMG"
    grey(tmp_path / "again" / "JPCLN001.png")
    with pytest.raises(BadIndex, match="is there twice"):
        read(tmp_path)


def test_pairs_with_suppressed_bones(tmp_path):
    (pair,) = jsrt.pairs(draw_jsrt(tmp_path))
    film, suppressed = pair.pixels()
    assert (film.shape, suppressed.shape) == ((2048, 2048), (64, 64))
    assert suppressed[0, 63] > suppressed[0, 0]


def test_an_inverted_partner_is_refused(tmp_path):
    (pair,) = jsrt.pairs(draw_jsrt(tmp_path))
    with Image.open(pair.suppressed) as picture:
        inverted = Image.eval(picture, lambda value: 255 - value)
    inverted.save(pair.suppressed)
    with pytest.raises(UnsupportedPixels, match=r"is inverted against JPCLN001\.IMG"):
        pair.pixels()


def test_no_pairs_is_an_error(tmp_path):
    shutil.rmtree(draw_jsrt(tmp_path) / "BSE_JSRT")
    with pytest.raises(NoImages, match="with and without bones"):
        jsrt.pairs(tmp_path)


# VinDr-RibCXR and NODE21.


def test_vindr_ribcxr(tmp_path):
    train, val = read(vindr_ribcxr(tmp_path))
    assert (train.split, val.split) == ("train", "val")
    (rib,) = train.masks
    assert rib.name == "right_rib_1"
    expected = np.zeros((6, 8), bool)
    expected[1:5, 1:4] = True
    np.testing.assert_array_equal(rib.array(), expected)


def test_the_outlines_of_a_copy_may_lie_beside_the_pictures(tmp_path):
    vindr_ribcxr(tmp_path)
    for split in ("train", "val"):
        (tmp_path / "Annotations" / split).mkdir(parents=True)
        file = tmp_path / "data" / split / f"Vindr_RibCXR_{split}_mask.json"
        file.rename(tmp_path / "Annotations" / split / file.name)
    assert recognise(tmp_path) == ["vindr_ribcxr"]
    assert [len(s.masks) for s in read(tmp_path)] == [1, 1]


def test_an_outline_without_coordinates_is_refused(tmp_path):
    file = vindr_ribcxr(tmp_path) / "data/train/Vindr_RibCXR_train_mask.json"
    text(file, file.read_text().replace('"y"', '"z"'))
    with pytest.raises(BadIndex, match="not a list of points"):
        read(tmp_path)


def test_node21(tmp_path):
    nodules, none = read(node21(tmp_path))
    assert (nodules.labels, nodules.absent) == ({"nodule"}, frozenset())
    assert nodules.boxes == (
        Box(finding="nodule", x=100, y=200, width=20, height=10),
        Box(finding="nodule", x=300, y=400, width=40, height=30),
    )
    assert (none.labels, none.absent, none.boxes) == (frozenset(), {"nodule"}, ())
    with pytest.raises(BadIndex, match=r"no metadata\.csv"):
        read(tmp_path, original=True)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("3,1,n0001.mha,0,1,1,1", r"line 5: 'n0001\.mha' is already in line 2"),
        ("3,1,c0002.mha,0,1,1,1", r"line 5: 'c0002\.mha' is already in line 4"),
        ("3,1,x.mha,2,1,1,1", "line 5: the label is '2', not 0 or 1"),
        ("3,0,x.mha,1,1,1,1", "line 5: a nodule without"),
        ("3,inf,x.mha,1,1,1,1", "line 5: height is 'inf', not a number"),
        ("3,1,../x.mha,1,1,1,1", "line 5.*climbs"),
    ],
)
def test_a_bad_row_of_node21_is_refused_by_its_line(tmp_path, row, reason):
    table = node21(tmp_path) / "cxr_images/proccessed_data/metadata.csv"
    text(table, table.read_text() + row + "\n")
    with pytest.raises(BadIndex, match=reason):
        read(tmp_path)


@pytest.mark.parametrize("name", ["NLM Montgomery", "Montgomery", "montgomery"])
def test_a_data_set_is_read_by_any_of_its_names(tmp_path, name):
    montgomery(tmp_path)
    assert read(tmp_path, name) == read(tmp_path)


def test_a_name_that_means_a_set_without_a_reader_is_unknown(tmp_path):
    with pytest.raises(UnknownName):
        read(tmp_path, "CheXlocalize")
