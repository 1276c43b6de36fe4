"""The catalogue: a card is read strictly, written back equal, and found by name."""

import dataclasses
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards import BYTES, PAGE, make_card, make_checkpoint

from cxr_foundation import catalog
from cxr_foundation.catalog import (
    Checkpoint,
    Conversion,
    Evidence,
    Golden,
    HubCard,
    Licences,
    Result,
    Source,
    Training,
)
from cxr_foundation.contract import InputContract
from cxr_foundation.errors import CardError, UnknownName

NAME = "cxr_resnet18.made_up"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME}.md"
    path.write_text(make_card())
    return path


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    path.write_text(text.replace(old, new))
    return path


# --- Round trip ---------------------------------------------------------------------------------

FOREIGN = {
    "conversion": Conversion(layout="moco", takes="encoder_q", ran_on_authors_file=False),
    "evidence": {**make_checkpoint().evidence, "source": PAGE},
    "unknown": {"source.sha256": "never held", "source.size_bytes": "not said"},
}
CASES = {
    "bundled": {},
    "hub": FOREIGN
    | {"source": Source(kind="hub", repo="org/name", revision=REVISION, filename="a/model.bin")},
    "published on the Hub": {
        "source": Source(
            kind="hub", repo="org/name", revision=REVISION, sha256="f" * 64, size_bytes=7
        ),
    },
    "url": FOREIGN
    | {"source": Source(kind="url", url="https://example.org/m.pt", filename="m.pt", how="slow")},
    "drive": FOREIGN | {"source": Source(kind="google_drive", file_id="1C_Gis2qcZ", filename="m")},
    "ask": FOREIGN
    | {
        "source": Source(kind="ask", how="Write to them."),
        "gating": "a form",
        "evidence": {**make_checkpoint().evidence, "source": PAGE, "gating": PAGE},
        "unknown": {},
    },
    "unknowns": {
        "licences": Licences(code=None, weights=None, data=None),
        "training": Training(
            method="MAE",
            recipe=None,
            images=None,
            data=(),
            overlaps=(),
            labels_used_for_selection=None,
        ),
        "contract": InputContract(
            channels=3, size=(224, 288), intensity="unknown", mean=None, std=None
        ),
        "evidence": {
            k: v for k, v in make_checkpoint().evidence.items() if not k.startswith("licences")
        },
        "unknown": {
            key: "nobody says"
            for key in (
                *("licences.code", "licences.weights", "licences.data"),
                *("training.images", "training.data", "training.overlaps"),
                *("training.labels_used_for_selection",),
                *("contract.intensity", "contract.mean", "contract.std"),
            )
        },
    },
    "all of the contract": {
        "contract": InputContract(
            channels=3,
            size=(224, 224),
            resize=256,
            aspect="crop",
            intensity="percentile",
            percentile=(0.5, 99.5),
            interpolation="bicubic",
            mean=(0.5056, 0.5056, 0.1),
            std=(0.00048828125, 1e-05, 1.0),
            normalise_first=True,
        )
    },
    "awkward text": {
        "title": "null: 'no' \"quotes\" # and 100 % émigré, 0123",
        "citation": "@article{a,\n  title={B: c},\n}\n---x",
        "evidence": {**make_checkpoint().evidence, "citation": PAGE},
    },
    "results": {
        "results": (
            Result(
                task="Shenzhen TB",
                dataset="cxr_small, test",
                setting="20 labels per class, probe",
                metric="AUROC",
                value=0.8125,
                interval=(0.75, 0.875),
                command="cxr transfer classify DATA",
            ),
            Result(
                task="a", dataset="b", setting="c", metric="d", value=1, interval=None, command="e"
            ),
        )
    },
    "golden": {
        "golden": Golden(phantom="cxr-phantom-v1", embedding=tuple(i / 8 for i in range(512))),
        "evidence": {**make_checkpoint().evidence, "golden": BYTES},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_card_reads_back_as_it_was_written(case: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(**CASES[case])
    path = tmp_path / f"{NAME}.md"
    path.write_text(make_card(**CASES[case]))

    again = catalog.read_card(path)

    assert again == checkpoint
    assert isinstance(again, Checkpoint)
    assert again.path == path


def test_an_embedding_is_base64_of_little_endian_float32(tmp_path: Path) -> None:
    embedding = (0.1, -2.0, 3.5)
    path = tmp_path / f"{NAME}.md"
    stored = struct.unpack("<3f", struct.pack("<3f", *embedding))
    text = make_card(
        num_features=3,
        golden=Golden(phantom="cxr-phantom-v1", embedding=stored),
        evidence={**make_checkpoint().evidence, "golden": BYTES},
    )
    path.write_text(text)

    assert "embedding: zczMPQAAAMAAAGBA" in text
    golden = catalog.read_record(path).golden
    assert golden is not None
    assert golden.embedding == stored


def test_the_hubs_keys_and_the_body_are_kept(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.md"
    keys = {
        "license": "other",
        "license_name": "house",
        "license_link": "https://example.org/licence",
        "library_name": "timm",
        "tags": ["chest-x-ray"],
        "model-index": [{"name": "a", "results": []}],
    }
    checkpoint = make_checkpoint(
        licences=Licences(code="apache-2.0", weights="house", data="cc-by-4.0")
    )
    path.write_text(catalog.render_card(checkpoint, body="\n# Title\n\ntext\n\n", hub_keys=keys))

    assert catalog.hub_keys_of(path) == keys
    assert catalog.body_of(path) == "# Title\n\ntext\n"
    assert catalog.read_card(path) == checkpoint


def test_a_body_is_printed_without_what_drives_a_terminal(card: Path) -> None:
    edit(card, "# Made up\n", "# Made\tup \x1b[2J\u202e\r\nAsunción\n")
    assert catalog.body_of(card) == "# Made    up ?[2J?\nAsunción\n"


def test_a_published_folder_is_read_by_its_readme_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "any-name"
    folder.mkdir()
    (folder / "README.md").write_text(make_card())
    assert catalog.read_card(folder) == catalog.read_card(folder / "README.md") == make_checkpoint()


def test_rendering_refuses_what_reading_would_refuse() -> None:
    with pytest.raises(CardError, match=r"made_up\.md: cxr_foundation\.training\.images: is null"):
        training = dataclasses.replace(make_checkpoint().training, images=None)
        make_card(training=training)


def test_rendering_refuses_an_embedding_that_is_not_float32() -> None:
    with pytest.raises(CardError, match="golden: does not read back as it was written"):
        make_card(
            num_features=1,
            golden=Golden(phantom="cxr-phantom-v1", embedding=(0.1,)),
            evidence={**make_checkpoint().evidence, "golden": BYTES},
        )


def test_records_are_hashable_picklable_and_plain_json() -> None:
    checkpoint = make_checkpoint()
    assert hash(checkpoint) == hash(make_checkpoint())
    assert pickle.loads(pickle.dumps(checkpoint)) == checkpoint
    described = catalog.describe(checkpoint)
    assert json.loads(json.dumps(described)) == described
    assert described["contract"]["size"] == [112, 112]
    assert described["evidence"]["source"] == "bytes 2026-11-21 tests"


# --- Cards of others ----------------------------------------------------------------------------


def test_a_card_of_the_hub_is_read_by_the_hubs_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        "---\nlicense: other\nlicense_name: msrla\nlanguage: en\ntags:\n- a\nwidget:\n- src: b\n"
        "---\n# x\n"
    )
    assert catalog.read_card(path) == HubCard(
        license="other", license_name="msrla", license_link=None, tags=("a",), path=path
    )


def test_a_card_of_the_hub_states_no_facts_for_loading(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: mit\n---\n# x\n")
    with pytest.raises(CardError, match="cxr_foundation: missing: this card states no facts"):
        catalog.read_record(path)


@pytest.mark.parametrize("front", ["tags: [a]", "license: null", "license: ''"])
def test_a_card_without_a_licence_is_refused(front: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"---\n{front}\n---\n# x\n")
    with pytest.raises(CardError, match="license: missing: a card without a licence allows"):
        catalog.read_card(path)


# --- Finding ------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A catalogue of three cards in place of the shipped ones."""
    asked = CASES["ask"]
    for name, overrides in {
        "cxr_resnet18.made_up": {},
        "cxr_resnet18.other": {"default": False},
        "cxr_vit_b.asked": asked,
    }.items():
        text = make_card(**overrides, name=name, architecture=name.partition(".")[0])
        (tmp_path / f"{name}.md").write_text(text)
    monkeypatch.setattr(catalog, "cards_folder", lambda: tmp_path)
    catalog.checkpoints.cache_clear()
    yield tmp_path
    catalog.checkpoints.cache_clear()


def test_a_name_means_its_card_and_a_bare_architecture_its_default(shelf: Path) -> None:
    assert catalog.checkpoint("cxr_resnet18.other").name == "cxr_resnet18.other"
    assert catalog.checkpoint("cxr_resnet18").name == "cxr_resnet18.made_up"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "cxr_resnet18.made_upp",
            "cxr_resnet18.made_upp: cxr_resnet18 has no weights of this name. "
            "Did you mean 'cxr_resnet18.made_up'",
        ),
        (
            "cxr_vit_b.zzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            "cxr_vit_b.zzzzzzzzzzzzzzzzzzzzzzzzzzzz: cxr_vit_b has no weights of this name. "
            "It has cxr_vit_b.asked. See cxr_foundation.list_models() or `cxr list`.",
        ),
        (
            "cxr_resnet.other",
            "cxr_resnet.other: no model card has this name. Did you mean 'cxr_resnet18.other'",
        ),
        ("cxr_vit_c", "cxr_vit_c: no model card has this name. Did you mean 'cxr_vit_b'"),
        (
            "xxxxxxxx",
            "xxxxxxxx: no model card has this name. "
            "See cxr_foundation.list_models() or `cxr list`.",
        ),
    ],
)
def test_an_unknown_name_is_answered_by_the_closest(name: str, sentence: str, shelf: Path) -> None:
    with pytest.raises(UnknownName) as error:
        catalog.checkpoint(name)
    assert str(error.value).startswith(sentence)


def test_models_are_listed_by_wildcard_and_whether_they_can_be_fetched(shelf: Path) -> None:
    def names(*args: str, **kwargs: bool) -> list[str]:
        return [c.name for c in catalog.list_models(*args, **kwargs)]

    everything = ["cxr_resnet18.made_up", "cxr_resnet18.other", "cxr_vit_b.asked"]
    assert names() == everything
    assert names("*vit*") == ["cxr_vit_b.asked"]
    assert names("cxr_resnet18") == everything[:2]
    assert names(pretrained=True) == everything[:2]
    assert names("nothing*") == []


def test_a_card_is_a_model_card_of_huggingface_hub(shelf: Path) -> None:
    card = catalog.card("cxr_resnet18")
    assert card.data.license == "apache-2.0"
    assert card.data.to_dict()["cxr_foundation"]["name"] == "cxr_resnet18.made_up"
    assert card.text.strip() == "# Made up"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cxr_resnet18.made_up", "cxr_resnet18 has 'default: true', but none has"),
        (
            "cxr_resnet18.other",
            "cxr_resnet18 has 'default: true', "
            "but 2 of its cards (cxr_resnet18.made_up, cxr_resnet18.other) has",
        ),
    ],
)
def test_an_architecture_has_exactly_one_default(name: str, reason: str, shelf: Path) -> None:
    path = shelf / f"{name}.md"
    was = catalog.read_record(path)
    path.write_text(make_card(name=name, default=not was.default))
    with pytest.raises(CardError) as error:
        catalog.checkpoints()
    assert error.value.reason == f"exactly one card of {reason}"


def test_a_card_of_the_catalogue_is_of_a_network_of_ours(shelf: Path) -> None:
    text = make_card(name="resnet18.made_up", architecture="resnet18")
    (shelf / "resnet18.made_up.md").write_text(text)
    with pytest.raises(CardError) as error:
        catalog.checkpoints()
    assert error.value.reason == "'resnet18' is not one of ours, such as cxr_resnet50"


def test_the_shipped_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        catalog.checkpoints()["cxr_x.y"] = make_checkpoint()  # type: ignore[index]


def test_the_cards_of_a_checkout_are_found_where_the_package_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert catalog.cards_folder() == Path(__file__).resolve().parent.parent / "model_cards"


def test_the_summary_names_licences_input_and_source() -> None:
    licences = Licences(code="mit", weights=None, data=None)
    lines = catalog.summary(make_checkpoint(licences=licences)).splitlines()
    assert "licences   code mit, weights unknown, data unknown" in lines
    assert "source     bundled: cxr_resnet18.made_up" in lines
    assert "input      one channel, 112 x 112, squash, voi, mean (0.5,), std (0.25,)" in lines


# --- Costs --------------------------------------------------------------------------------------

HEAVY = ("torch", "timm", "transformers", "numpy", "huggingface_hub")


def imported_by(code: str) -> set[str]:
    script = f"import sys; {code}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_catalogue_costs_no_torch() -> None:
    loaded = imported_by("import cxr_foundation; cxr_foundation.list_models()")
    assert "yaml" in loaded
    assert not loaded & set(HEAVY)


def test_the_check_of_imports_can_fail() -> None:
    assert "numpy" in imported_by("import numpy")


def test_evidence_says_how_when_and_where() -> None:
    assert PAGE == Evidence(verified="page", source="https://example.org/model", date="2026-11-21")
