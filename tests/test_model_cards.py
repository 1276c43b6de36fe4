"""Every shipped card: valid, honest about what was never held, with a body for its readers."""

import re
from pathlib import Path

import pytest

from cxr_foundation import catalog

FOLDER = Path(__file__).resolve().parent.parent / "model_cards"
CARDS = sorted(FOLDER.glob("*.md"))


@pytest.fixture(params=CARDS, ids=[c.stem for c in CARDS])
def card(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_the_catalogue_is_what_lies_on_disk() -> None:
    assert sorted(catalog.checkpoints()) == [c.stem for c in CARDS]
    assert catalog.cards_folder().resolve() == FOLDER
    assert {p.suffix for p in FOLDER.iterdir() if p.is_file()} == {".md", ".py"}


@pytest.mark.parametrize(
    "name",
    [
        "cxr_resnet50.chess",
        "cxr_vit_b14.rad_dino",
        "cxr_vit_b.medical_mae",
        "cxr_vit_b.biomedclip",
        "cxr_densenet121.chexnet",
        "cxr_densenet121.xrv_all",
    ],
)
def test_a_promised_checkpoint_has_a_card(name: str) -> None:
    assert catalog.checkpoint(name).name == name


def test_each_architecture_has_exactly_one_default() -> None:
    cards = catalog.checkpoints().values()
    defaults = [c.architecture for c in cards if c.default]
    assert sorted(defaults) == sorted({c.architecture for c in cards})
    assert catalog.checkpoint("cxr_vit_b").default


def test_thirty_weights_and_more_have_what_a_user_decides_by() -> None:
    cards = catalog.checkpoints().values()
    assert len(cards) >= 30
    for c in cards:
        assert c.citation
        assert c.licences.weights or c.unknown["licences.weights"]


def test_a_card_can_be_written_again_from_what_was_read(card: Path) -> None:
    record = catalog.read_record(card)
    body = catalog.body_of(card)
    # render_card reads its own text back and compares the records.
    text = catalog.render_card(record, body=body, hub_keys=catalog.hub_keys_of(card))
    assert text.endswith(body)


def test_the_hub_finds_the_same_keys(card: Path) -> None:
    hub = catalog.card(card.stem).data.to_dict()
    ours = catalog.hub_keys_of(card)
    # huggingface_hub leaves nulls out.
    assert {k: hub.get(k) for k in ours} == ours
    assert ours["library_name"] == "timm"
    assert ours["pipeline_tag"] == "image-feature-extraction"
    assert "chest-x-ray" in ours["tags"]


def test_a_contract_is_complete_so_that_a_processor_can_be_built(card: Path) -> None:
    assert catalog.read_record(card).contract.complete


def test_a_file_that_was_never_held_has_no_hash_and_its_card_says_so(card: Path) -> None:
    record = catalog.read_record(card)
    if record.conversion.ran_on_authors_file:
        assert record.source.sha256 is not None
        return
    assert record.source.sha256 is None
    assert record.golden is None
    assert not any(e.verified == "bytes" for e in record.evidence.values())
    assert "never run on the authors' file" in " ".join(catalog.body_of(card).lower().split())


def test_a_body_tells_its_reader_what_they_need(card: Path) -> None:
    body = catalog.body_of(card)
    assert body.startswith("# ")
    assert "not for clinical use" in " ".join(body.lower().split())
    for heading in ("Load it", "What it was fed", "Limits"):
        assert re.search(rf"^## {heading}", body, re.M), f"no section '{heading}'"


def test_every_file_has_a_converter(card: Path) -> None:
    from cxr_foundation.convert import layouts

    record = catalog.read_record(card)
    assert record.source.published or record.conversion.layout in layouts
