"""Which public data sets share radiographs, and that cards and readers agree with the table."""

from pathlib import Path

import pytest

from cxr_foundation.catalog import list_models
from cxr_foundation.data.overlaps import DATA_SETS, identify, relation, table
from cxr_foundation.data.reading import data_sets


def between(one, other):
    found = relation(identify(one), identify(other))
    return found.kind if found is not None else None


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("NIH-CXR", "ChestX-ray14", "same"),
        ("RSNA", "NIH-CXR", "within"),
        ("SIIM", "NIH-CXR", "within"),
        ("RSNA", "SIIM", "common"),
        ("COVIDx", "covid-chestxray-dataset", "shares"),
        ("COVIDx", "RSNA", "shares"),
        ("COVIDx", "NIH-CXR", "shares"),
        ("COVIDx", "SIIM", "common"),
        ("NODE21", "JSRT", "shares"),
        ("NODE21", "NIH-CXR", "shares"),
        ("NODE21", "PadChest", "shares"),
        ("NODE21", "RSNA", "common"),
        ("VinDr-RibCXR", "VinDr-CXR", "within"),
        ("TBX11K", "Montgomery", "shares"),
        ("TBX11K", "NLM Shenzhen", "shares"),
        ("MS-CXR", "MIMIC-CXR", "within"),
        ("JSRT", "NIH-CXR", None),
        ("CheXpert", "MIMIC-CXR", None),
        ("VinDr-PCXR", "VinDr-CXR", None),
        ("Kermany", "Shenzhen", None),
    ],
)
def test_how_two_sets_are_related(one, other, kind):
    assert between(one, other) == kind
    assert between(other, one) == kind


def test_the_reason_names_both_sets():
    found = relation(identify("siim"), identify("nih"))
    assert found.reason == (
        "all of SIIM-ACR pneumothorax segmentation's radiographs are taken from NIH ChestX-ray14"
    )


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NIH ChestX-ray14, Wang et al. 2017 (no restrictions on use)", "nih"),
        ("Kermany et al. 2018, paediatric chest X-rays (CC BY 4.0)", "kermany"),
        ("covid-chestxray-dataset, Cohen et al. 2020", "cohen"),
        ("nih_cxr", "nih"),
        ("BIMCV-COVID19+", "bimcv_covid"),
        ("bimcv", "bimcv_covid"),
    ],
)
def test_a_set_is_found_by_the_names_that_cards_give_it(name, short):
    assert identify(name).name == short


@pytest.mark.parametrize("name", ["", "our own hospital", "+"])
def test_an_unknown_set_is_not_guessed(name):
    assert identify(name) is None


def test_no_name_means_two_sets():
    named = {}
    for data_set in DATA_SETS:
        for name in (data_set.name, data_set.title, *data_set.aliases):
            assert identify(name) is data_set, name
            named.setdefault(name, data_set)


def test_every_source_is_a_set_and_every_fact_has_evidence():
    names = {data_set.name for data_set in DATA_SETS}
    assert len(names) == len(DATA_SETS)
    for data_set in DATA_SETS:
        for draw in data_set.draws:
            assert draw.source in names
            assert draw.evidence == "secondhand" or draw.evidence.startswith("https://")


def test_every_overlap_that_a_card_states_follows_from_the_table():
    stated = 0
    for card in list_models("*"):
        trained = [found for name in card.training.data if (found := identify(name))]
        for overlap in card.training.overlaps:
            stated += 1
            assert any(relation(identify(overlap), t) for t in trained), (card.name, overlap)
    assert stated > 100


def test_the_table_knows_every_set_that_can_be_read_under_its_name():
    # These two read a layout and no data set.
    named = set(data_sets()) - {"hub", "image_folder"}
    assert {
        name for name in named if identify(name) is None or identify(name).name != name
    } == set()


def test_the_table_can_be_read_by_anyone():
    lines = list(table())
    assert len(lines) == 2 + sum(len(data_set.draws) for data_set in DATA_SETS)
    assert "| VinDr-RibCXR | all | VinDr-CXR | https://vindr.ai/datasets/ribcxr |" in lines
    page = (Path(__file__).parent.parent / "docs" / "overlaps.md").read_text()
    assert "\n".join(lines) in page
