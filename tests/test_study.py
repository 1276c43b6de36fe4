"""What is known about a radiograph: masks, findings in one vocabulary, tables, pseudonyms."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_data_sets import grey, text

from cxr_foundation.data import Study, findings
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.study import Mask, MaskFile, Polygon, RunLengths
from cxr_foundation.data.tables import columns_of, number, rows
from cxr_foundation.errors import BadIndex

# Masks.


def runs(text, **how):
    settings = {"size": (3, 2), "columns": False, "relative": False, **how}
    return Mask(name="lung", shape=RunLengths(text=text, **settings)).array().astype(int).tolist()


def test_runs_along_the_rows_start_at_the_first_pixel():
    assert runs("0 2 5 1") == [[1, 1, 0], [0, 0, 1]]


def test_runs_may_number_pixels_from_one():
    assert runs("1 2 6 1", first=1) == [[1, 1, 0], [0, 0, 1]]


def test_runs_may_go_down_the_columns():
    assert runs("0 2 5 1", columns=True) == [[1, 0, 0], [1, 0, 1]]


def test_relative_runs_start_at_the_end_of_the_run_before():
    assert runs("1 1 1 2", relative=True) == [[0, 1, 0], [1, 1, 0]]


def test_no_runs_are_an_empty_mask():
    assert runs("") == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("relative", [False, True])
def test_runs_equal_a_pixel_by_pixel_loop(relative):
    generator = np.random.default_rng(3)
    pairs = [(int(generator.integers(1, 9)), int(generator.integers(1, 5))) for _ in range(20)]
    expected, at = [0] * 300, 0
    absolute = []
    for gap, length in pairs:
        at += gap
        absolute.append((at, length))
        for _ in range(length):
            expected[at] = 1
            at += 1
    chosen = pairs if relative else absolute
    text = " ".join(f"{a} {b}" for a, b in chosen)
    drawn = runs(text, size=(20, 15), columns=True, relative=relative)
    assert drawn == np.array(expected).reshape(20, 15).T.tolist()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3", "not pairs"),
        ("1 x", "not integers"),
        ("1 99999999999999999999", "not integers"),
        ("0 7", "leaves the picture of 3 x 2"),
        ("5 2", "leaves the picture"),
        ("-1 2", "leaves the picture"),
        ("1 -1", "leaves the picture"),
        ("9223372036854775807 9223372036854775807", "leaves the picture"),
    ],
)
def test_runs_that_are_no_mask_are_refused(text, reason):
    with pytest.raises(BadIndex, match=reason):
        runs(text)


def test_a_polygon_holds_its_own_line():
    square = Polygon(points=((1, 1), (3, 1), (3, 2), (1, 2)), size=(5, 4))
    assert Mask(name="lung", shape=square).array().astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    with pytest.raises(BadIndex, match="a polygon of 2 points encloses nothing"):
        Polygon(points=((1, 1), (3, 1)), size=(5, 4)).array()


def test_a_mask_file_is_what_is_brighter_than_half(tmp_path):
    low, high = grey(tmp_path / "a.png", 127), grey(tmp_path / "b.png", 128)
    assert not MaskFile(path=low).array().any()
    assert MaskFile(path=high).array().shape == (6, 8)
    assert MaskFile(path=high).array().all()
    assert MaskFile(path=low, above=0).array().all()


# Findings.


@pytest.mark.parametrize(
    ("name", "data_set", "finding"),
    [
        ("Effusion", "nih", "effusion"),
        (" pleural  Effusion ", "chexpert", "effusion"),
        ("loculated pleural effusion", "padchest", "effusion"),
        ("No Finding", "nih", "no_finding"),
        ("Normal", "rsna", "normal"),
        ("Nodule/Mass", "vindr_cxr", "nodule_or_mass"),
        ("COVID 19", "bimcv_covid", "covid"),
        ("Positive", "covidx", "covid"),
        ("NSG tube", "padchest", "nsg_tube"),
        ("Klebsiella", "cohen", "klebsiella"),
    ],
)
def test_a_finding_has_one_word_in_all_data_sets(name, data_set, finding):
    assert findings.harmonise(name, data_set) == finding


def test_a_name_outside_a_closed_list_is_refused_with_the_closest():
    with pytest.raises(BadIndex, match=r"'Efusion': no finding of nih .* Did you mean 'Effusion'"):
        findings.harmonise("Efusion", "nih")
    with pytest.raises(BadIndex, match=r"has no rows in findings\.csv"):
        findings.harmonise("Effusion", "nowhere")
    with pytest.raises(BadIndex, match="no finding of padchest"):
        findings.harmonise("--", "padchest")


def test_normal_and_no_finding_are_no_findings():
    assert len(findings.findings_of("nih")) == 14
    assert len(findings.findings_of("chexpert")) == 13
    assert "normal" not in findings.findings_of("padchest")


def test_the_table_says_each_name_once_and_in_snake_case():
    seen = set()
    for owner, name, finding in findings._rows():
        assert (owner, name.casefold()) not in seen
        seen.add((owner, name.casefold()))
        assert finding == "*" or finding.replace("_", "").isalnum()
        assert finding == finding.lower()


def test_the_table_that_people_read_is_the_one_that_is_used():
    page = Path(__file__).resolve().parent.parent / "docs" / "findings.md"
    assert page.read_text(encoding="utf-8") == findings.markdown(), (
        "python -m cxr_foundation.data.findings > docs/findings.md"
    )


def test_what_is_not_stated_is_nan():
    study = Study(
        path=Path("a.png"),
        patient="p",
        group="p",
        labels=frozenset({"mass"}),
        absent=frozenset({"nodule"}),
        uncertain=frozenset({"edema"}),
    )
    stated = findings.truth([study], ["mass", "nodule", "edema", "hernia"])
    assert stated.dtype == np.float32
    np.testing.assert_array_equal(stated, [[1, 0, np.nan, np.nan]])


# Tables.


def test_only_the_columns_that_are_asked_for_are_seen(tmp_path):
    table = text(tmp_path / "t.csv", 'id,report,age\n1,a\x1bb,NaN\n2,"x\ny", 3.5 \n')
    read = list(rows(table, ("id", "age"), optional=("sex",)))
    assert [dict(r.cells) for r in read] == [
        {"id": "1", "age": "NaN", "sex": ""},
        {"id": "2", "age": "3.5", "sex": ""},
    ]
    assert [r.line for r in read] == [2, 4]
    assert [number(r, "age") for r in read] == [None, 3.5]


def test_a_number_that_is_none_is_refused(tmp_path):
    (row,) = rows(text(tmp_path / "t.csv", "age\ninf\n"), ("age",))
    with pytest.raises(BadIndex, match=r"t\.csv: line 2: age is 'inf', not a number"):
        number(row, "age")


@pytest.mark.parametrize("content", ["", "\x00", "\xff", '"'])
def test_a_file_that_is_no_table_has_no_columns(tmp_path, content):
    table = tmp_path / "t.csv"
    table.write_bytes(content.encode("latin-1"))
    assert columns_of(table) in ([], ["\x00"])
    assert columns_of(tmp_path) == columns_of(tmp_path / "nothing") == []


def test_a_pipe_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert columns_of(tmp_path / "t.csv") == []
    with pytest.raises(BadIndex, match="not a regular file"):
        list(rows(tmp_path / "t.csv", ("a",)))


# Pseudonyms.


def test_equal_identifiers_of_one_data_set_are_one_pseudonym():
    assert pseudonym("nih", "12") == pseudonym("nih", " 12 ")
    assert len({pseudonym("nih", "12"), pseudonym("nih", "012"), pseudonym("rsna", "12")}) == 3


@pytest.mark.parametrize(("key", "equal"), [("", False), ("a long secret" * 9, True)])
def test_processes_agree_on_pseudonyms_only_with_a_common_key(key, equal):
    code = "from cxr_foundation.data.pseudonym import pseudonym as p; print(p('nih', '12'))"
    environment = {**os.environ, "CXR_PATIENT_KEY": key}
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert (len(seen) == 1) is equal
