"""What a header may say outside of its file, and what guards say of a radiograph."""

import numpy as np
import pytest
from drawn_dicom import draw
from PIL import Image, ImageDraw, ImageFont

from cxr_foundation.data import read_index
from cxr_foundation.images import guard, read_pixels
from cxr_foundation.images.allowlist import ELEMENTS, FACT_ELEMENTS, PIXEL_ELEMENTS
from cxr_foundation.images.facts import OTHER, Facts, read_facts
from cxr_foundation.images.lettering import lettering
from cxr_foundation.images.thumbnail import ranks, thumbnail


def facts_of(path, **elements):
    drawn = draw(path / "drawn.dcm", np.zeros((4, 4), np.uint16), **elements)
    return read_facts(drawn, drawn.read_bytes())


@pytest.fixture(scope="module")
def pictures(bundled):
    """Bundled radiographs of three data sets: no network was trained on one of them."""
    studies = sorted(read_index(bundled)[::4], key=lambda s: s.source != "shenzhen")
    assert len({s.source for s in studies}) >= 3
    assert len(studies) >= 35
    return [s.pixels() for s in studies]


def kinds(values, facts=None):
    return {n.kind for n in guard.examine(values, facts)}


# The header


def test_no_element_that_names_somebody_or_a_day_is_on_the_allow_list():
    # PS3.6: groups 0010 and 0032 hold patients and requests; VRs PN, DA, DT, TM and UI of
    # instances are identifying. The rest of the list is counted, so that it does not grow unseen.
    from pydicom.datadict import dictionary_VR

    assert {t >> 16 for t in ELEMENTS} == {0x0008, 0x0018, 0x0020, 0x0028, 0x2050}
    assert {dictionary_VR(t) for t in ELEMENTS}.isdisjoint({"PN", "DA", "DT", "TM", "LT", "UT"})
    texts = {ELEMENTS[t] for t in ELEMENTS if dictionary_VR(t) in ("LO", "SH", "ST")}
    assert texts == {"Manufacturer", "ManufacturerModelName"}
    assert {ELEMENTS[t] for t in ELEMENTS if dictionary_VR(t) == "UI"} == {"SOPClassUID"}
    assert PIXEL_ELEMENTS.keys().isdisjoint(FACT_ELEMENTS)


def test_facts_are_read_by_name(tmp_path):
    found = facts_of(
        tmp_path,
        Manufacturer="GE Healthcare",
        ManufacturerModelName="Definium 5000",
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        PatientOrientation=["L", "F"],
        KVP="120",
        ImagerPixelSpacing=["0.143", "0.143"],
        PresentationIntentType="FOR PRESENTATION",
        BurnedInAnnotation="NO",
        BitsStored=14,
    )
    assert found.to_dict() == {
        "syntax": "Explicit VR Little Endian",
        "sop_class": "DX for presentation",
        "modality": "DX",
        "intent": "FOR PRESENTATION",
        "body_part": "CHEST",
        "view": "PA",
        "orientation": ("L", "F"),
        "burned_in": "NO",
        "photometric": "MONOCHROME2",
        "rows": 4,
        "columns": 4,
        "bits": 14,
        "spacing": (0.143, 0.143),
        "spacing_of": "ImagerPixelSpacing",
        "kvp": 120.0,
        "manufacturer": "GE",
    }
    assert found.model == "DEFINIUM 5000"


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ("BodyPartExamined", "body_part"),
        ("ViewPosition", "view"),
        ("Modality", "modality"),
        ("BurnedInAnnotation", "burned_in"),
        ("Manufacturer", "manufacturer"),
    ],
)
def test_a_name_in_the_wrong_field_becomes_other(tmp_path, element, name):
    found = facts_of(tmp_path, **{element: "SECRETNAME"})
    assert getattr(found, name) == OTHER
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ("SIEMENS HEALTHINEERS", "Siemens"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("Philips Medical Systems", "Philips"),
        # A word that only ends or begins like a short name is another one.
        ("GERMAN IMAGE WORKS", OTHER),
        ("", ""),
    ],
)
def test_manufacturers_have_one_name_each(tmp_path, text, shown):
    assert facts_of(tmp_path, Manufacturer=text).manufacturer == shown


def test_a_model_that_could_be_a_sentence_is_other(tmp_path):
    assert facts_of(tmp_path, ManufacturerModelName="Room 3, ask for Dr Secret").model == OTHER


def test_an_orientation_of_other_letters_is_none(tmp_path):
    assert facts_of(tmp_path, PatientOrientation=["LE", "X"]).orientation == ()


# What the header gives rise to. PS3.3 C.7.6.1.1.1: where rows and columns lead.


def noticed(pictures, **facts):
    return {(n.kind, n.by) for n in guard.examine(pictures[0], Facts(**facts))}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"view": "LL"}, "(0018,5101) ViewPosition is LL"),
        ({"view": "RLO"}, "(0018,5101) ViewPosition is RLO"),
        ({"orientation": ("A", "F")}, "(0020,0020) PatientOrientation is A and F"),
        ({"body_part": "KNEE"}, "(0018,0015) BodyPartExamined is KNEE"),
        ({"modality": "CT"}, "(0008,0060) Modality is CT"),
    ],
)
def test_what_is_not_frontal_by_the_header(pictures, facts, said):
    notices = [n for n in guard.examine(pictures[0], Facts(**facts)) if n.kind == "non_frontal"]
    assert [(n.by, n.text.startswith(said), n.fixable) for n in notices] == [
        ("header", True, False)
    ]


@pytest.mark.parametrize("view", ["", "AP", "PA", "LLD", OTHER])
def test_frontal_and_unknown_views_are_not_spoken_of(pictures, view):
    assert noticed(pictures, view=view, orientation=("L", "F")) == set()


def test_a_picture_seen_from_behind_is_reported_and_never_changed(pictures):
    notices = guard.examine(pictures[0], Facts(orientation=("R", "F")))
    assert [(n.kind, n.by, n.fixable) for n in notices] == [("mirrored", "header", False)]
    assert guard.corrected(pictures[0], notices) is pictures[0]


def test_burned_in_annotation_is_a_warning(pictures):
    assert noticed(pictures, burned_in="YES") == {("burned_in", "header")}
    assert noticed(pictures, burned_in="NO") == set()


@pytest.mark.parametrize(
    ("turns", "orientation"), [(1, ("F", "R")), (2, ("R", "H")), (3, ("H", "L"))]
)
def test_a_turn_that_header_and_pixels_agree_upon_is_set_right(pictures, turns, orientation):
    lying = np.ascontiguousarray(np.rot90(pictures[0], turns))
    notices = guard.examine(lying, Facts(orientation=orientation))
    assert [(n.kind, n.by, n.turns, n.fixable) for n in notices] == [
        ("turned", "header", turns, True)
    ]
    np.testing.assert_array_equal(guard.corrected(lying, notices), pictures[0])


def test_a_turn_that_the_header_denies_is_a_contradiction_and_stays(pictures):
    lying = np.ascontiguousarray(np.rot90(pictures[0]))
    notices = guard.examine(lying, Facts(orientation=("L", "F")))
    assert [(n.kind, n.fixable) for n in notices] == [("contradiction", False)]
    assert guard.corrected(lying, notices) is lying


def test_a_turn_that_only_the_header_claims_is_a_contradiction(pictures):
    notices = guard.examine(pictures[0], Facts(orientation=("R", "H")))
    assert [(n.kind, n.by, n.fixable) for n in notices] == [("contradiction", "pixels", False)]


# The pixels


@pytest.mark.parametrize("state", range(8))
def test_radiographs_in_every_state_are_set_right(pictures, state):
    right = 0
    for values in pictures:
        lying = np.ascontiguousarray(guard.in_state(values, state))
        back = guard.corrected(lying, guard.examine(lying))
        right += back.shape == values.shape and bool(np.allclose(back, values, atol=1e-6))
    # The benchmark measures the rate on all that is held; here a broken network is to be seen.
    assert right >= 0.85 * len(pictures)


def test_upright_radiographs_are_returned_as_they_are(pictures):
    changed = [p for p in pictures if guard.corrected(p, guard.examine(p)) is not p]
    assert changed == []


def test_a_state_is_turns_counter_clockwise_and_then_an_inversion():
    upright = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(guard.in_state(upright, 2), [[0.25, 1.0], [0.0, 0.5]])
    np.testing.assert_array_equal(guard.in_state(upright, 1), [[1.0, 0.75], [0.5, 0.0]])


def test_notices_do_not_depend_on_contrast(pictures):
    for values in pictures[:5]:
        darker = values**2 * np.float32(0.5)
        assert kinds(values) - {"burned_in"} == kinds(darker) - {"burned_in"}


def test_what_is_no_radiograph_is_not_turned(pictures):
    rng = np.random.default_rng(0)
    checkers = np.kron(rng.integers(0, 2, (16, 16)), np.ones((16, 16))).astype(np.float32)
    notices = guard.examine(checkers)
    assert "non_frontal" in {n.kind for n in notices}
    assert guard.corrected(checkers, notices) is checkers


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 300), (64, 64)])
def test_a_blank_picture_of_any_shape_is_said_not_to_be_one(shape):
    blank = np.full(shape, 0.5, np.float32)
    assert {n.kind for n in guard.examine(blank)} >= {"non_frontal"}


def test_measures_are_the_networks_shares(pictures):
    seen = guard.measure(pictures[0])
    assert sum(seen.states) == pytest.approx(1)
    assert (seen.state, len(seen.states)) == (0, 8)
    assert all(0 <= m <= 1 for m in (seen.unlike, seen.cropped, seen.mirrored))


def test_ranks_share_their_mean_and_turn_with_the_polarity():
    values = np.array([[3.0, 1.0], [1.0, 7.0]], np.float32)
    np.testing.assert_array_equal(ranks(values), [[0.25, -0.5], [-0.5, 0.75]])
    np.testing.assert_array_equal(ranks(-values), -ranks(values))


def test_a_thumbnail_does_not_depend_on_size_or_a_change_of_contrast():
    ramp = np.add.outer(np.arange(40.0), np.arange(40.0) * 2).astype(np.float32)
    twice = np.kron(ramp, np.ones((2, 2), np.float32))
    np.testing.assert_allclose(thumbnail(twice), thumbnail(ramp), atol=1e-6)
    np.testing.assert_allclose(thumbnail(np.exp(ramp / 40)), thumbnail(ramp), atol=0.02)


# Letters


def written(values, text, size):
    picture = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    ImageDraw.Draw(picture).text((6, 6), text, fill=255, font=ImageFont.load_default(size))
    return np.asarray(picture, np.float32) / 255


@pytest.mark.parametrize("size", [12, 16, 24])
@pytest.mark.parametrize("scale", [1, 4])
def test_a_line_of_text_is_seen_at_any_resolution(size, scale):
    grey = np.tile(np.linspace(0.1, 0.4, 512, dtype=np.float32), (400, 1))
    text = written(grey, "DOE^JANE 1970 ID 123456", size)
    large = np.kron(text, np.ones((scale, scale), np.float32)) if scale == 4 else text
    assert lettering(grey) == 0
    assert "burned_in" in kinds(large if scale == 1 else large[:1600])


def test_a_wire_and_a_side_marker_are_no_text():
    grey = np.full((300, 300), 0.3, np.float32)
    grey[:, 150] = 1.0
    grey[20:50, 20:26] = 1.0
    assert lettering(grey) <= 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 3)])
def test_lettering_of_small_pictures_is_a_number(shape):
    checkers = (np.indices(shape).sum(axis=0) % 2).astype(np.float32)
    assert 0 <= lettering(checkers) <= 80


def test_letters_are_reported_although_the_header_denies_them(pictures):
    notices = guard.examine(written(pictures[0] * 0.5, "DOE^JANE 1970", 16), Facts(burned_in="NO"))
    text = next(n.text for n in notices if n.kind == "burned_in")
    assert text.endswith("though (0028,0301) BurnedInAnnotation is NO")


def test_a_dicom_file_and_its_facts_go_through_together(tmp_path, pictures):
    values = np.rint((1 - pictures[0]) * 4095).astype(np.uint16)
    path = draw(tmp_path / "a.dcm", values, BitsStored=12, ViewPosition="PA")
    facts = read_facts(path, path.read_bytes())
    assert kinds(read_pixels(path).values, facts) == {"inverted"}
