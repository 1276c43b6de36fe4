"""Planted leaks are found, all of them, and no others."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from cxr_foundation.catalog import checkpoint
from cxr_foundation.errors import NoImages, UnknownName
from cxr_foundation.evaluate.audit import audit, seen_by
from cxr_foundation.evaluate.shortcuts import shortcut_scores

CXR = str(Path(sys.executable).with_name("cxr"))


def drawn(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, size=(20, 20), dtype=np.uint8)
    return Image.fromarray(coarse).resize((160, 200), Image.Resampling.BICUBIC)


def write(folder, rows, *, prefix="", header=("file", "patient", "labels", "split")):
    """A data set of drawn pictures: rows are (seed or picture, patient, labels, split)."""
    (folder / "images").mkdir(parents=True)
    table = []
    for i, (picture, *facts) in enumerate(rows):
        name = f"images/{prefix}{i:03d}.png"
        (drawn(picture) if isinstance(picture, int) else picture).save(folder / name)
        table.append([name, *facts])
    with open(folder / "index.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *table])
    return folder


def clean(start=0, count=12, patients="p"):
    split = ("pretrain", "dev", "test")
    return [(start + i, f"{patients}{start + i}", "", split[i % 3]) for i in range(count)]


def found(result, kind):
    return [[p.file for p in leak.places] for leak in result.leaks if leak.kind == kind]


def look(*folders, **options):
    return audit(folders, score_shortcuts=False, workers=2, **options)


def test_nothing_is_found_in_a_clean_data_set(tmp_path):
    result = look(write(tmp_path / "a", clean()))
    assert (result.leaks, result.copies_within, result.unread) == ((), 0, ())
    assert result.status == "clean"
    (summary,) = result.data
    assert (summary.name, summary.images, summary.patients) == ("a", 12, 12)
    assert summary.splits == {"dev": 4, "pretrain": 4, "test": 4}


def test_a_patient_on_two_sides_of_a_split_is_found(tmp_path):
    rows = clean()
    rows[0] = (0, "P5 ", "", "pretrain")  # the sixth patient, in other letters
    result = look(write(tmp_path / "a", rows))
    assert found(result, "patient") == [["images/000.png", "images/005.png"]]
    assert found(result, "picture") == []
    assert result.status == "leaks"


def test_a_group_on_two_sides_is_found_though_its_patients_are_not(tmp_path):
    header = ("file", "patient", "split_group", "labels", "split")
    rows = [(seed, name, name, *rest) for seed, name, *rest in clean()]
    rows[3] = (3, "p3", "family", "", "pretrain")
    rows[7] = (7, "p7", "family", "", "dev")
    result = look(write(tmp_path / "a", rows, header=header))
    assert found(result, "patient") == [["images/003.png", "images/007.png"]]


def test_altered_copies_across_a_split_are_found_and_those_within_are_counted(tmp_path):
    rows = clean()
    rows[4] = (drawn(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "p4", "", "dev")
    rows[8] = (drawn(2).point(lambda grey: 255 - grey).resize((90, 90)), "p8", "", "test")
    result = look(write(tmp_path / "a", rows))
    # 0 is for pretraining and its copy 4 for development; 2 and 8 are both of the test part.
    assert found(result, "picture") == [["images/000.png", "images/004.png"]]
    assert result.copies_within == 1


def test_copies_in_two_data_sets_are_found_whatever_their_split(tmp_path):
    rows = clean(start=100)
    rows[0] = (drawn(9).resize((70, 80)), "other", "", "pretrain")
    result = look(write(tmp_path / "a", clean()), write(tmp_path / "b", rows))
    assert found(result, "picture") == [["images/009.png", "images/000.png"]]
    assert [p.data for p in result.leaks[0].places] == ["a", "b"]
    assert found(result, "patient") == []


def test_copies_without_any_split_are_no_leak_inside_one_data_set(tmp_path):
    rows = [(1, "p1", "", ""), (1, "p2", "", ""), (2, "p3", "", "")]
    result = look(write(tmp_path / "a", rows))
    assert (result.leaks, result.copies_within) == ((), 1)


@pytest.mark.parametrize(
    ("first", "second", "patients"),
    [
        ("", "", 1),  # nobody says whose they are: one site's two tables
        ("nih_", "nih_", 1),
        ("nih_", "jsrt_", 0),  # numbers of unrelated hospitals
    ],
)
def test_equal_identifiers_of_two_data_sets_mean_a_patient_only_in_one_place(
    tmp_path, first, second, patients
):
    one = write(tmp_path / "a", clean(), prefix=first)
    other = write(tmp_path / "b", [(200, "p3", "", "")], prefix=second)
    assert len(found(look(one, other), "patient")) == patients


def test_file_names_are_no_patients(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        drawn(seed).save(tmp_path / name / "0001.png")
    assert look(tmp_path / "a", tmp_path / "b").status == "clean"


def test_a_data_set_that_holds_another_is_never_external_to_it(tmp_path):
    one = write(tmp_path / "a", clean(), prefix="nih_")
    other = write(tmp_path / "b", clean(start=50), prefix="rsna_")
    result = look(one, other)
    assert result.related == (
        (
            "a and b",
            "all of RSNA pneumonia detection challenge's radiographs are taken from "
            "NIH ChestX-ray14",
        ),
    )
    assert result.status == "leaks"


def test_pictures_that_cannot_be_read_are_listed_and_the_rest_is_compared(tmp_path):
    folder = write(tmp_path / "a", clean())
    (folder / "images" / "002.png").write_bytes(b"no picture")
    Image.new("L", (64, 64), 90).save(folder / "images" / "003.png")
    result = look(folder)
    assert [place.file for place, _ in result.unread] == ["images/002.png"]
    assert result.uniform == 1
    assert result.status == "incomplete"


@pytest.mark.parametrize(
    ("card", "source", "verdict"),
    [
        ("cxr_densenet121.xrv_nih", "nih", "seen"),
        ("cxr_densenet121.xrv_nih", "rsna", "seen"),  # taken from it
        ("cxr_densenet121.xrv_rsna", "siim", "maybe"),  # both taken from NIH
        ("cxr_densenet121.xrv_nih", "jsrt", "none"),
        ("cxr_densenet121.xrv_nih", "", "unknown"),
        ("cxr_densenet121.xrv_nih", "my hospital", "unknown"),
        ("cxr_resnet50.chess", "nih", "unknown"),  # private radiographs
        ("cxr_vit_s.spcxr", "nih", "unknown"),  # not stated
        ("cxr_resnet18.moco_open", "shenzhen", "seen"),
    ],
)
def test_what_a_checkpoint_has_seen_by_its_card(card, source, verdict):
    assert [s.verdict for s in seen_by(checkpoint(card), {source})] == [verdict]


def test_an_overlap_of_an_overlap_is_not_made_up():
    # NODE21 is stated for a set of ChestX-ray14; that says nothing of its pictures from JSRT.
    card = checkpoint("cxr_densenet121.xrv_nih")
    assert "NODE21" in card.training.overlaps
    assert [s.verdict for s in seen_by(card, {"jsrt"})] == ["none"]


def test_the_status_says_that_nothing_is_known(tmp_path):
    result = look(write(tmp_path / "a", clean()), against=["cxr_vit_s.spcxr"])
    assert result.status == "unknown"


def test_unknown_checkpoints_and_empty_data_are_refused(tmp_path):
    with pytest.raises(UnknownName):
        look(tmp_path, against=["cxr_none.such"])
    with pytest.raises(NoImages):
        look(tmp_path)
    with pytest.raises(NoImages):
        audit([])


def test_a_label_that_is_written_in_the_frame_is_told_from_the_border(tmp_path):
    rows = []
    for i in range(60):
        pixels = np.array(drawn(i)) // 2
        if i % 2:
            pixels[:15] += 120
        label = "tb" if i % 2 else "normal"
        rows.append((Image.fromarray(pixels), f"p{i}", label, "dev"))
    rows += [(drawn(99), "unlabelled one", "unlabelled", "dev")]
    result = audit([write(tmp_path / "a", rows)], workers=1)
    assert [(s.label, s.positive, s.negative) for s in result.shortcuts] == [
        ("normal", 30, 30),
        ("tb", 30, 30),
    ]
    assert all(s.border > 0.95 for s in result.shortcuts)
    assert all(s.metadata == 0.5 for s in result.shortcuts)


def test_labels_of_the_test_part_are_not_scored(tmp_path):
    rows = [(i, f"p{i}", ("tb", "normal")[i % 2], "test") for i in range(50)]
    assert audit([write(tmp_path / "a", rows)]).shortcuts == ()


def test_shortcuts_need_twenty_patients_of_each_class():
    labels = np.array([True] * 19 + [False] * 40)
    features = {"metadata": np.zeros((59, 2))}
    assert shortcut_scores(labels, [f"p{i}" for i in range(59)], features) is None
    # One patient with many pictures is one.
    labels = np.array([True] * 40 + [False] * 40)
    patients = ["one"] * 40 + [f"p{i}" for i in range(40)]
    assert shortcut_scores(labels, patients, {"metadata": np.zeros((80, 2))}) is None


# On real radiographs


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The bundled radiographs, with 20 altered copies of development ones in the test part."""
    from conftest import ROOT

    folder = tmp_path_factory.mktemp("planted") / "radiographs"
    shutil.copytree(ROOT / "cxr_foundation" / "demo" / "radiographs", folder)
    with open(folder / "index.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    with open(folder / "splits.csv", newline="") as file:
        split = dict(list(csv.reader(file))[1:])
    group, file_column, patient = (header.index(c) for c in ("split_group", "file", "patient"))
    originals = [row for row in rows if split[row[group]] == "dev"][:20]
    expected, extra = [], []
    for i, row in enumerate(originals):
        source = folder / row[file_column]
        name = f"images/{source.name.partition('_')[0]}_planted{i}.jpg"
        picture = Image.open(source)
        if i % 4 == 1:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if i % 4 == 2:
            picture = picture.resize((224, 224), Image.Resampling.BILINEAR)
        if i % 4 == 3:
            picture = picture.point(lambda grey: 255 - grey)
        picture.save(folder / name, quality=60)
        copy = list(row)
        copy[file_column], copy[patient], copy[group] = name, f"new-{i}", f"new-{i}"
        extra.append(copy)
        expected.append([row[file_column], name])
    with open(folder / "index.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows, *extra])
    with open(folder / "splits.csv", "a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([f"new-{i}", "test"] for i in range(20))
    return folder, sorted(expected)


def test_twenty_planted_copies_of_real_radiographs_are_found_and_no_others(planted):
    folder, expected = planted
    result = look(folder)
    assert sorted(found(result, "picture")) == expected
    assert found(result, "patient") == []


def test_the_bundled_radiographs_leak_nothing(bundled):
    result = look(bundled)
    assert (result.status, result.copies_within) == ("clean", 0)


@pytest.mark.skipif(
    not (SHARED / "data" / "cxr_small").exists(), reason="the larger set is not here"
)
def test_every_bundled_radiograph_is_found_in_the_set_it_was_copied_from(bundled, radiographs):
    result = look(radiographs, bundled)
    pictures = [leak for leak in result.leaks if leak.kind == "picture"]
    assert len(pictures) == 150
    for leak in pictures:
        assert len({Path(place.file).stem for place in leak.places}) == 1


# The command


def cxr(*arguments):
    return subprocess.run([CXR, "audit", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_prints_leaks_and_leaves_with_1(tmp_path):
    rows = clean()
    rows[4] = (drawn(0).resize((90, 90)), "p0", "", "dev")
    result = cxr(write(tmp_path / "a", rows), "--no-shortcuts", "--workers", 1)
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines() == [
        "a: 12 images of 11 patients (dev 4, pretrain 4, test 4)",
        "patients on more than one side: 1",
        "  a/images/000.png [pretrain] = a/images/004.png [dev]",
        "pictures on more than one side: 1",
        "  a/images/000.png [pretrain] = a/images/004.png [dev]",
        "status: leaks",
    ]


def test_the_command_leaves_with_0_or_3_and_names_no_patient(tmp_path):
    folder = write(tmp_path / "a", [(s, f"SECRET{s}", "", side) for s, _, _, side in clean()])
    assert cxr(folder, "--no-shortcuts").returncode == 0
    result = cxr(folder, "--no-shortcuts", "--json", "--against", "cxr_vit_s.spcxr")
    assert result.returncode == 3
    report = json.loads(result.stdout)
    assert report["schema"] == "cxr_foundation.audit/1"
    assert report["status"] == "unknown"
    assert "SECRET" not in result.stdout + result.stderr


def test_a_long_list_is_cut_for_people_and_whole_for_programs(tmp_path):
    rows = [(i % 25, f"p{i}", "", ("pretrain", "dev")[i // 25]) for i in range(50)]
    result = look(write(tmp_path / "a", rows))
    assert len(result.to_dict()["leaks"]) == 25
    lines = list(result.lines())
    assert "  and 5 more, all in the output of --json" in lines
