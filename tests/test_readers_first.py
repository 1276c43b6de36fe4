"""Data sets as published, drawn in their own layouts: NIH to BIMCV."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from drawn_first_sets import (
    CHEXPERT,
    LAYOUTS,
    bimcv_covid,
    chexpert,
    cohen,
    covidx,
    grey,
    mimic_cxr,
    nih,
    packed,
    padchest,
    rsna,
    rsna_mapping,
    siim,
    text,
    vindr_cxr,
    vindr_kaggle,
    vindr_pcxr,
)

from cxr_foundation import data
from cxr_foundation.data import findings, splits
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import recognise
from cxr_foundation.data.study import Box
from cxr_foundation.errors import BadIndex, NoImages, PatientLeak, UnknownName


def by_name(studies):
    return {s.path.name: s for s in studies}


# Every one.


def test_all_of_the_first_half_are_registered_and_drawn_here():
    assert len(LAYOUTS) == 11
    assert set(data.data_sets()) >= set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_no_identifier_gets_out(tmp_path, name):
    LAYOUTS[name](tmp_path)
    assert recognise(tmp_path) == [name]
    studies = data.read(tmp_path)
    assert studies == data.read(tmp_path, name)
    assert {s.source for s in studies} == {name}
    assert len({s.path for s in studies}) == len(studies)
    for study in studies:
        assert study.path.is_relative_to(tmp_path)
        assert study.pixels().shape == (6, 8)
        assert "ZZPHI" not in repr(study).replace(str(study.path), "")
        assert len(study.patient) == 32
        assert study.group == study.patient
        assert not study.labels & study.absent
        assert not study.uncertain & (study.labels | study.absent)
    data.check_disjoint(studies)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_pictures_of_a_patient_share_a_keyed_hash(tmp_path, name, monkeypatch):
    LAYOUTS[name](tmp_path)
    monkeypatch.setenv("CXR_PATIENT_KEY", "one")
    first = [(s.patient, s.study) for s in data.read(tmp_path)]
    assert first == [(s.patient, s.study) for s in data.read(tmp_path)]
    monkeypatch.setenv("CXR_PATIENT_KEY", "two")
    second = [(s.patient, s.study) for s in data.read(tmp_path)]
    assert not {p for p, _ in first} & {p for p, _ in second}
    # Another key, the same partition into patients.
    assert [[a == b for b, _ in first] for a, _ in first] == [
        [a == b for b, _ in second] for a, _ in second
    ]


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"bimcv_covid"}))
def test_a_missing_picture_is_refused_by_line_or_skipped_if_asked(tmp_path, name):
    LAYOUTS[name](tmp_path)
    whole = data.read(tmp_path)
    gone = whole[-1].path
    gone.unlink()
    with pytest.raises(BadIndex, match=r"line \d+: .* is not in the folder\. Complete"):
        data.read(tmp_path)
    assert data.read(tmp_path, missing="skip") == whole[:-1]
    with pytest.raises(BadIndex, match="missing='maybe': is neither"):
        data.read(tmp_path, missing="maybe")


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"bimcv_covid"}))
def test_no_picture_at_all_is_refused_even_when_skipping(tmp_path, name):
    LAYOUTS[name](tmp_path)
    for study in data.read(tmp_path):
        study.path.unlink()
    with pytest.raises(NoImages, match="holds no picture of"):
        data.read(tmp_path, name, missing="skip")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_picture_that_lies_outside_through_a_link_is_refused(tmp_path, name):
    root = LAYOUTS[name](tmp_path / "set")
    victim = data.read(root)[0].path
    outside = tmp_path / "outside"
    shutil.move(victim, outside)
    victim.symlink_to(outside)
    for missing in ("refuse", "skip"):
        with pytest.raises(BadIndex, match="leaves the folder through a link"):
            data.read(root, missing=missing)


def test_a_folder_that_is_no_data_set_or_two_is_refused(tmp_path):
    with pytest.raises(BadIndex, match="no known data set has its files here"):
        data.read(tmp_path)
    with pytest.raises(NoImages, match="does not exist"):
        data.read(tmp_path / "nowhere")
    with pytest.raises(UnknownName, match=r"no data set of this name\. Did you mean 'nih'"):
        data.read(tmp_path, "nhi")
    nih(tmp_path)
    cohen(tmp_path)
    with pytest.raises(BadIndex, match="looks like cohen and like nih"):
        data.read(tmp_path)
    assert len(data.read(tmp_path, "nih")) == 4


def test_an_unknown_option_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BadIndex, match=r"has no option 'polcy'\. Its options: uncertain, blank"):
        data.read(chexpert(tmp_path), polcy="ones")


# NIH ChestX-ray14.


def test_nih_has_labels_boxes_ages_and_sizes(tmp_path):
    studies = by_name(data.read(nih(tmp_path)))
    first = studies["00000001_000.png"]
    assert first.labels == {"cardiomegaly", "effusion"}
    assert first.absent == findings.findings_of("nih") - first.labels
    assert len(first.absent) == 12
    assert (first.view, first.frontal, first.sex, first.age) == ("PA", True, "M", 58)
    assert first.original_size == (2682, 2749)
    assert first.boxes == (
        Box(finding="cardiomegaly", x=225.08, y=547.01, width=86.77, height=79.18),
        Box(finding="infiltration", x=1.5, y=2.5, width=3.5, height=4.5),
    )
    assert data.may_ship(first)
    assert studies["00000001_001.png"].labels == {"no_finding"}
    assert len(studies["00000001_001.png"].absent) == 14
    assert studies["00000001_001.png"].patient == first.patient
    assert studies["00000002_000.png"].age is None  # "414Y"
    assert studies["00000003_000.png"].age == 0.75  # "009M"


def test_nih_official_and_chexnet_splits_have_different_names(tmp_path):
    nih(tmp_path)
    official = [s.split for s in data.read(tmp_path)]
    chexnet = [s.split for s in data.read(tmp_path, split="chexnet")]
    assert official == ["train_val", "train_val", "train_val", "test"]
    assert chexnet == ["chexnet_test", "chexnet_test", "chexnet_val", "chexnet_train"]
    assert {s.split for s in data.read(tmp_path, split=None)} == {None}
    assert len(data.by_split(data.read(tmp_path), "train_val")) == 3


def test_published_parts_can_be_put_under_our_names(tmp_path):
    studies = data.read(nih(tmp_path), split="chexnet")
    ours = [s.split for s in splits.in_our_parts(studies)]
    assert ours == ["test", "test", "dev", "pretrain"]
    assert splits.in_our_parts(data.read(tmp_path, split=None))[0].split is None
    with pytest.raises(BadIndex, match="fold3: no split of this name"):
        splits.in_our_parts([dataclasses.replace(studies[0], split="fold3")])


def test_nih_lists_of_the_two_splits_are_never_mixed(tmp_path):
    nih(tmp_path)
    (tmp_path / "labels" / "test_list.txt").unlink()
    # The official list of the same name is what is left.
    with pytest.raises(BadIndex, match=r"1 words where a list of the chexnet split has 15"):
        data.read(tmp_path, split="chexnet")
    text(tmp_path / "test_list.txt", "00000003_000.png 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
    with pytest.raises(BadIndex, match=r"line 1: 15 words where a list of the official"):
        data.read(tmp_path)


def test_nih_a_picture_in_no_list_or_in_two_is_refused(tmp_path):
    nih(tmp_path)
    text(tmp_path / "test_list.txt", "")
    with pytest.raises(BadIndex, match=r"line 5: '00000003_000.png' is in no list"):
        data.read(tmp_path)
    text(tmp_path / "test_list.txt", "00000003_000.png\n00000001_000.png\n")
    with pytest.raises(BadIndex, match=r"test_list.txt: line 2: .* is already in train_val"):
        data.read(tmp_path)
    (tmp_path / "test_list.txt").unlink()
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(BadIndex, match="the official split needs this list"):
        data.read(tmp_path)


def test_nih_a_picture_that_is_there_twice_is_refused(tmp_path):
    nih(tmp_path)
    grey(tmp_path / "images" / "00000002_000.png")
    with pytest.raises(BadIndex, match=r"'00000002_000.png' is there twice"):
        data.read(tmp_path)


# CheXpert.


def test_chexpert_keeps_what_is_uncertain_apart(tmp_path):
    studies = by_name(data.read(chexpert(tmp_path)))
    lateral = studies["view2_lateral.jpg"]
    assert lateral.labels == {"lung_opacity", "fracture"}
    assert lateral.uncertain == {"cardiomegaly", "edema"}
    assert lateral.absent == {"effusion"}
    assert (lateral.view, lateral.frontal, lateral.sex, lateral.age) == (
        "LATERAL", False, "M", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "labels", "absent", "uncertain"),
    [
        ("ones", {"lung_opacity", "fracture", "cardiomegaly", "edema"}, {"effusion"}, set()),
        ("zeros", {"lung_opacity", "fracture"}, {"effusion", "cardiomegaly", "edema"}, set()),
        ("ignore", {"lung_opacity", "fracture"}, {"effusion"}, set()),
    ],
)
def test_chexpert_policies_for_uncertain_labels(tmp_path, policy, labels, absent, uncertain):
    study = by_name(data.read(chexpert(tmp_path), uncertain=policy))["view2_lateral.jpg"]
    assert (study.labels, study.absent, study.uncertain) == (labels, absent, uncertain)


def test_chexpert_blank_cells_are_absent_only_if_asked(tmp_path):
    study = by_name(data.read(chexpert(tmp_path), blank="absent"))["view2_lateral.jpg"]
    assert len(study.absent) == 13 - 4  # 13 findings, two present and two uncertain
    with pytest.raises(BadIndex, match="blank='0': is neither"):
        data.read(tmp_path, blank="0")
    with pytest.raises(BadIndex, match="uncertain='u-ones': is not one of keep, ones"):
        data.read(tmp_path, uncertain="u-ones")


def test_chexpert_views_of_a_study_share_it_and_splits_are_the_official_ones(tmp_path):
    one, two, three, valid = data.read(chexpert(tmp_path))
    assert two.study == three.study != one.study
    assert two.patient == three.patient != one.patient
    assert [s.split for s in (one, two, three, valid)] == ["train", "train", "train", "valid"]
    assert (one.view, two.view) == ("AP", "PA")


def test_chexpert_below_its_published_folder_name_is_found_too(tmp_path):
    chexpert(tmp_path / "CheXpert-v1.0-small")
    for table in ("train.csv", "valid.csv"):
        shutil.move(tmp_path / "CheXpert-v1.0-small" / table, tmp_path / table)
    assert len(data.read(tmp_path)) == 4


def test_chexpert_a_cell_that_is_no_label_is_refused(tmp_path):
    chexpert(tmp_path)
    line = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.5"
    text(tmp_path / "valid.csv", CHEXPERT + line + "," * 13 + "\n")
    with pytest.raises(BadIndex, match=r"valid.csv: line 2: No Finding is '0.5', not 1, 0"):
        data.read(tmp_path)


# MIMIC-CXR-JPG.


def test_mimic_joins_its_three_tables(tmp_path):
    one, two, three, four = data.read(mimic_cxr(tmp_path))
    assert one.labels == two.labels == {"edema"}
    assert one.uncertain == {"pneumonia"}
    assert (one.view, one.frontal, two.frontal, four.frontal) == ("PA", True, False, None)
    assert (one.study == two.study, one.patient == two.patient) == (True, True)
    assert one.original_size == (2544, 3056)
    assert [s.split for s in (one, three, four)] == ["train", "validate", "test"]
    assert three.labels == {"no_finding"}
    assert four.labels == {"unlabelled"}
    assert (one.sex, one.age) == ("", None)


def test_mimic_takes_the_labeler_that_is_asked_for(tmp_path):
    one, *_ = data.read(mimic_cxr(tmp_path), labeler="negbio")
    assert (one.absent, one.uncertain) == ({"pneumonia"}, frozenset())
    with pytest.raises(BadIndex, match="labeler='radiologist'"):
        data.read(tmp_path, labeler="radiologist")


# PadChest.


def test_padchest_reads_terms_views_and_ages_and_leaves_the_excluded_out(tmp_path):
    studies = by_name(data.read(padchest(tmp_path)))
    assert set(studies) == {"1_a.png", "2_a.png", "3_a.png", "5_a.png"}
    one, two = studies["1_a.png"], studies["2_a.png"]
    assert (one.labels, one.view, one.frontal) == ({"normal"}, "PA", True)
    assert (one.sex, one.age, one.original_size) == ("F", 84, (2251, 2092))
    assert two.labels == {"fibrosis", "kyphosis", "effusion"}
    assert (two.view, two.frontal) == ("L", False)
    assert "pneumonia" in two.absent
    assert "effusion" not in two.absent
    assert studies["3_a.png"].labels == studies["5_a.png"].labels == {"unlabelled"}
    assert (studies["3_a.png"].absent, studies["3_a.png"].sex) == (frozenset(), "")
    assert studies["3_a.png"].patient == two.patient
    assert studies["3_a.png"].age is None
    assert one.pixels()[0, 0] == pytest.approx(40_000 / 65_535)


def test_padchest_can_be_limited_to_physicians(tmp_path):
    assert len(data.read(padchest(tmp_path), labelled_by="physician")) == 3


def test_padchest_lists_are_never_evaluated(tmp_path):
    padchest(tmp_path)
    table = tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    table.write_text(table.read_text().replace("['normal']", "[__import__('os').getcwd()]"))
    assert by_name(data.read(tmp_path))["1_a.png"].labels == {"os"}


# VinDr.


def test_vindr_cxr_counts_three_radiologists(tmp_path):
    aa, bb, cc = data.read(vindr_cxr(tmp_path))
    assert (aa.labels, aa.uncertain) == ({"cardiomegaly"}, {"interstitial_lung_disease"})
    assert aa.absent == {"nodule_or_mass", "pneumonia"}
    assert aa.boxes == (Box(finding="cardiomegaly", x=691, y=1375, width=962, height=456),)
    assert (bb.labels, bb.boxes) == ({"no_finding"}, ())
    assert (cc.labels, cc.split, aa.split) == ({"nodule_or_mass"}, "test", "train")
    any_, *_ = data.read(tmp_path, votes="any")
    assert any_.labels == {"cardiomegaly", "interstitial_lung_disease"}


def test_vindr_cxr_of_kaggle_is_read_too(tmp_path):
    aa, bb = data.read(vindr_kaggle(tmp_path))
    assert (aa.labels, aa.uncertain) == ({"no_finding"}, {"cardiomegaly"})
    assert (bb.labels, bb.uncertain) == ({"cardiomegaly"}, {"interstitial_lung_disease"})
    assert (len(aa.boxes), len(bb.boxes)) == (1, 3)


def test_vindr_a_column_outside_the_vocabulary_is_refused(tmp_path):
    vindr_cxr(tmp_path)
    table = tmp_path / "annotations" / "image_labels_train.csv"
    table.write_text(table.read_text().replace("ILD", "Illusion"))
    with pytest.raises(BadIndex, match="line 1: 'Illusion': no finding of vindr_cxr has this name"):
        data.read(tmp_path)


def test_vindr_pcxr_has_diseases_and_boxes(tmp_path):
    aa, bb, cc = data.read(vindr_pcxr(tmp_path))
    assert (aa.labels, bb.labels) == ({"bronchopneumonia"}, {"no_finding"})
    assert cc.labels == {"bronchitis", "cpam"}
    assert aa.boxes == (Box(finding="reticulonodular_opacity", x=10.5, y=20, width=20, height=40),)
    assert (aa.split, cc.split, aa.frontal) == ("train", "test", None)


# RSNA, SIIM.


def test_rsna_has_three_classes_and_boxes(tmp_path):
    aa, bb, cc = data.read(rsna(tmp_path))
    assert aa.labels == {"other_abnormality"}
    assert bb.labels == {"pneumonia", "lung_opacity"}
    assert cc.labels == {"normal"}
    assert aa.absent == cc.absent == {"pneumonia", "lung_opacity"}
    assert bb.boxes[1] == Box(finding="lung_opacity", x=562, y=152, width=256, height=453)
    assert len({s.patient for s in (aa, bb, cc)}) == 3


def test_rsna_with_its_mapping_knows_the_patients_of_chestxray14(tmp_path):
    nih_patients = {s.patient for s in data.read(nih(tmp_path / "nih"))}
    root = rsna_mapping(rsna(tmp_path / "rsna"))
    aa, bb, cc = data.read(root)
    assert aa.patient == bb.patient != cc.patient
    assert aa.patient == pseudonym("nih", "12")
    assert not {aa.patient, cc.patient} & nih_patients
    mapping = root / "pneumonia-challenge-dataset-mappings_2018.json"
    mapping.write_text(json.dumps([{"subset_img_id": "cc", "img_id": "00000002_000.png"}]))
    assert data.read(root)[2].patient in nih_patients
    for damaged in ('{"a": 1}', "[" * 100_000, '[{"subset_img_id": "a", "img_id": "x_1"}]'):
        mapping.write_text(damaged)
        with pytest.raises(BadIndex, match="not RSNA's list"):
            data.read(root)


def test_rsna_a_target_against_its_class_is_refused(tmp_path):
    rsna(tmp_path)
    classes = tmp_path / "stage_2_detailed_class_info.csv"
    classes.write_text(classes.read_text().replace("cc,Normal", "cc,Lung Opacity"))
    with pytest.raises(BadIndex, match="the target is 0, but the class is 'lung_opacity'"):
        data.read(tmp_path)


def test_siim_masks_are_relative_runs_down_the_columns(tmp_path):
    sick, well = data.read(siim(tmp_path))
    assert (sick.labels, well.absent) == ({"pneumothorax"}, {"pneumothorax"})
    assert (well.labels, well.masks) == (frozenset(), ())
    first, second = (mask.array() for mask in sick.masks)
    assert first.shape == (1024, 1024)
    # Columns first: rows 3 and 4 of column 0, then 1,021 pixels on: row 2 of column 1.
    assert sorted(map(tuple, np.argwhere(first).tolist())) == [(2, 1), (3, 0), (4, 0)]
    assert np.argwhere(second).tolist() == [[1023, 1023]]


def test_siim_a_picture_with_a_mask_and_none_is_refused(tmp_path):
    siim(tmp_path)
    with open(tmp_path / "stage_2_train.csv", "a") as file:
        file.write("1.2.4,1 1\n")
    with pytest.raises(BadIndex, match=r"line 5: '1.2.4' has a mask and -1"):
        data.read(tmp_path)


# COVID-19.


def test_covidx_says_where_its_pictures_are_from(tmp_path):
    a, c, v, t = data.read(covidx(tmp_path))
    assert (a.labels, a.absent, a.origin) == ({"covid"}, frozenset(), "cohen")
    assert (c.labels, c.absent, c.origin) == (frozenset(), {"covid"}, "rsna")
    assert [s.split for s in (a, c, v, t)] == ["train", "train", "val", "test"]
    assert a.path.name == "a b (1).png"
    # The number 379 is one patient at one origin and somebody else at another.
    assert a.patient != v.patient


def test_covidx_patients_of_rsna_and_cohen_are_those_sets_patients(tmp_path):
    a, c, _, _ = data.read(covidx(tmp_path))
    assert a.patient == pseudonym("cohen", "379")
    assert c.patient == pseudonym("rsna", "12")


def test_covidx_with_lists_of_both_variants_asks_for_one(tmp_path):
    covidx(tmp_path)
    (tmp_path / "train.txt").unlink()
    text(tmp_path / "train_COVIDx_CXR-3A.txt", "12 c.png pneumonia rsna\n")
    text(tmp_path / "train_COVIDx_CXR-3B.txt", "12 c.png negative rsna\n")
    with pytest.raises(BadIndex, match="2 lists of the part 'train'"):
        data.read(tmp_path)
    studies = data.read(tmp_path, variant="3A")
    assert (studies[0].labels, studies[0].absent) == ({"pneumonia"}, {"covid"})


def test_cohen_reads_radiographs_with_their_own_terms(tmp_path):
    studies = by_name(data.read(cohen(tmp_path)))
    assert set(studies) == {"a.jpg", "b.jpg", "c.jpg", "e.jpg"}
    a, b, c = studies["a.jpg"], studies["b.jpg"], studies["c.jpg"]
    assert a.labels == {"pneumonia", "viral", "covid"}
    assert (a.licence, data.may_ship(a), data.may_ship(b)) == ("CC BY-NC-SA 4.0", False, True)
    assert (a.patient == b.patient, a.frontal, b.frontal) == (True, True, False)
    assert (c.labels, c.view, c.age) == ({"unlabelled"}, "AP Supine", None)
    assert a.masks[0].name == "lungs"
    assert a.masks[0].array().all()
    assert b.masks == ()


def test_bimcv_labels_are_a_sessions(tmp_path):
    a, lateral, b, normal, unknown = data.read(bimcv_covid(tmp_path))
    assert (a.labels, a.view, a.age, a.sex) == ({"covid", "pneumonia"}, "AP", 71, "M")
    assert (b.labels, b.uncertain) == ({"kyphosis"}, {"covid"})
    assert (lateral.frontal, b.frontal) == (False, True)
    assert (b.study == lateral.study, b.study == normal.study) == (True, False)
    assert (normal.labels, normal.age) == ({"normal"}, 48)
    assert (unknown.labels, unknown.sex) == ({"unlabelled"}, "")
    assert {s.origin for s in (a, b)} == {"positive"}


def test_bimcv_the_negative_arm_has_no_covid_and_patients_of_its_own(tmp_path):
    positive = data.read(bimcv_covid(tmp_path / "covid19_posi"))
    folder = bimcv_covid(tmp_path / "covid19_neg")
    labels = folder / "derivatives" / "labels"
    (labels / "labels_covid_posi.tsv").rename(labels / "Labels_covid_NEG_JAN21.tsv")
    negative = data.read(folder)
    assert {s.origin for s in negative} == {"negative"}
    assert negative[3].absent == {"covid"}
    assert not {s.patient for s in positive} & {s.patient for s in negative}


# Hostile and careless tables.


def test_a_path_that_climbs_out_is_refused_though_missing_ones_are_skipped(tmp_path):
    chexpert(tmp_path / "set")
    line = "x/../../../../secret/study1/view1_frontal.jpg,Male,73,Frontal,AP" + "," * 14
    text(tmp_path / "set" / "valid.csv", CHEXPERT + line + "\n")
    with pytest.raises(BadIndex, match="climbs with"):
        data.read(tmp_path / "set", missing="skip")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: t.replace("Patient ID", "Patient"),
            "line 1: the column 'Patient ID' is missing",
        ),
        (lambda t: t.replace("Follow-up #", "Patient ID"), "line 1: .* is there twice"),
        (lambda t: t.replace("Hernia", "Hernja"), "line 5: 'Hernja': no finding of nih"),
        (lambda t: t.replace("Hernia", "Her\x1bnia"), "line 5: .* holds control characters"),
        (lambda t: t.replace("Hernia,", ""), "line 5: 11 fields where the header has 11"),
        (lambda t: t.replace("009M", "old"), "line 5: the age 'old' is not a number"),
        (lambda t: t.replace("Hernia", "x" * (1 << 20)), "line 5: longer than 1,048,576 bytes"),
        (lambda t: t.replace("Hernia", '"Hernia'), "line 5: not a table"),
        (lambda t: t.split("\n")[0] + "\n", "has no rows"),
    ],
)
def test_a_damaged_table_is_refused_by_line(tmp_path, change, reason):
    nih(tmp_path)
    table = tmp_path / "Data_Entry_2017.csv"
    table.write_text(change(table.read_text()))
    with pytest.raises((BadIndex, NoImages), match=reason):
        data.read(tmp_path)


def test_a_cut_gzip_and_a_table_that_is_a_pipe_are_refused(tmp_path):
    mimic_cxr(tmp_path)
    table = tmp_path / "mimic-cxr-2.0.0-split.csv.gz"
    table.write_bytes(table.read_bytes()[:-12])
    with pytest.raises(BadIndex, match="cannot be read to its end"):
        data.read(tmp_path)
    packed(table, "dicom_id,study_id\n")
    with pytest.raises(BadIndex, match="'subject_id' is missing"):
        data.read(tmp_path)


def test_a_patient_on_two_sides_of_a_published_split_is_left_to_check_disjoint(tmp_path):
    nih(tmp_path)
    text(tmp_path / "train_val_list.txt", "00000001_000.png\n00000002_000.png\n")
    text(tmp_path / "test_list.txt", "00000003_000.png\n00000001_001.png\n")
    studies = data.read(tmp_path)
    with pytest.raises(PatientLeak):
        data.check_disjoint(studies)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"covidx"}))
def test_a_folder_whose_tables_are_pipes_is_not_recognised_and_never_waited_for(tmp_path, name):
    LAYOUTS[name](tmp_path)
    for table in tmp_path.rglob("*"):
        if table.suffix in (".csv", ".gz", ".tsv") and table.is_file():
            table.unlink()
            os.mkfifo(table)
    if recognise(tmp_path):
        # Known by a file's name alone; then the reader refuses it.
        with pytest.raises(BadIndex, match="not a regular file"):
            data.read(tmp_path)
