"""What a card may not say: each rule is seen to fail, with its file, key and reason."""

from pathlib import Path

import pytest
from cards import BYTES, PAGE, make_card, make_checkpoint

from cxr_foundation import catalog
from cxr_foundation.catalog import Golden
from cxr_foundation.errors import CardError

NAME = "cxr_resnet18.made_up"
HOW = "CONTRIBUTING.md lists the keys of a card."


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


YAML = [
    ("# no front matter\n", "", "has no front matter between two lines of '---' at its top"),
    ("---\nlicense: mit\n", "", "has no front matter between two lines of '---' at its top"),
    ("---\n---\n", "", "its front matter is empty"),
    ("---\n- a\n---\n", "", "its front matter is not a mapping of keys"),
    ("---\nmit\n---\n", "", "its front matter is not a mapping of keys"),
    ("---\na: 1\n--- b\n---\n", "", "its front matter holds more than one document"),
    ("---\na: [1\n---\n", ": line 3", "is not YAML: did not find expected ',' or ']'"),
    ("---\na: b: c\n---\n", ": line 2", "is not YAML: mapping values are not allowed in this"),
    ("---\na: 1\na: 2\n---\n", ": a", "appears twice"),
    ("---\na: {b: 1, b: 2}\n---\n", ": a.b", "appears twice"),
    ("---\na: &x 1\n---\n", ": a", "anchors and aliases are not allowed in a card"),
    ("---\na: *x\n---\n", ": a", "anchors and aliases are not allowed in a card"),
    ("---\na: !!python/name:os.system\n---\n", ": a", "the tag 'tag:yaml.org,2002:python/name"),
    ("---\na: !!str 1\n---\n", ": a", "the tag 'tag:yaml.org,2002:str' is not allowed in a card"),
    ("---\nlicense: no\n---\n", ": license", "'no' is a word that YAML readers disagree about"),
    ("---\n1: a\n---\n", "", "the key 1 is not text; put it in quotes"),
    ("---\na: " + "9" * 64 + "\n---\n", ": a", "99999999999999999999… is no number; a hash goes"),
    ("---\na: " + "[" * 100_000 + "\n---\n", ": a" + "[]" * 15, "is nested more than 16 deep"),
    ("---\na: \x1b\n---\n", "", "its front matter is not YAML: unacceptable character #x001b"),
]


@pytest.mark.parametrize(("text", "where", "reason"), YAML, ids=range(len(YAML)))
def test_yaml_outside_the_safe_part_is_refused(
    text: str, where: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "card.md"
    path.write_text(text)
    with pytest.raises(CardError) as error:
        catalog.read_card(path)
    assert str(error.value).startswith(f"{path}{where}: {reason}".replace("\x1b", "?"))
    assert str(error.value).endswith(f". {HOW}")


def test_a_card_is_a_small_text_file(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    with pytest.raises(CardError, match="there is no such file"):
        catalog.read_card(path)
    path.write_bytes(b"---\na: \xff\n---\n")
    with pytest.raises(CardError, match="is not UTF-8 at byte 7"):
        catalog.read_card(path)
    path.write_bytes(b"---\na: b\n---\n" + b"x" * (1 << 20))
    with pytest.raises(CardError, match="is larger than 1,048,576 bytes"):
        catalog.read_card(path)


RULES = [
    # the text in the card, what it becomes, key, reason
    ("license: apache-2.0\n", "", "license", "missing"),
    ("license: apache-2.0\n", "license: null\n", "license", "None is not 'apache-2.0', the"),
    (
        "license: apache-2.0\n",
        "license: mit\n",
        "license",
        "'mit' is not 'apache-2.0', the licence",
    ),
    ("license: apache-2.0\n", "license: other\n", "license_name", "missing: license is 'other'"),
    ("license: apache-2.0\n", "license: 2\n", "license", "2 is not text; put it in quotes"),
    (
        "license: apache-2.0\n",
        "license: apache-2.0\nlicence: mit\n",
        "licence",
        "unknown key",
    ),
    ("  title:", "  titel:", "cxr_foundation.titel", "unknown key"),
    ("  title: A made-up encoder\n", "", "cxr_foundation.title", "missing"),
    ("title: A made-up encoder", "title: ''", "cxr_foundation.title", "is empty"),
    (
        "title: A made-up encoder",
        r'title: "\e[2J"',
        "cxr_foundation.title",
        "holds control characters",
    ),
    (
        f"name: {NAME}",
        "name: cxr_resnet18.made-up",
        "cxr_foundation.name",
        "'cxr_resnet18.made-up' is not <architecture>.<weights> in lower case",
    ),
    (
        f"name: {NAME}",
        "name: cxr_resnet18.other",
        "cxr_foundation.name",
        "'cxr_resnet18.other' is not the name of the file",
    ),
    (
        "architecture: cxr_resnet18\n",
        "architecture: cxr_resnet50\n",
        "cxr_foundation.name",
        "'cxr_resnet18.made_up' does not begin with 'cxr_resnet50.'",
    ),
    (
        "architecture: cxr_resnet18\n",
        "architecture: ResNet-18\n",
        "cxr_foundation.architecture",
        "'ResNet-18' is not an architecture such as cxr_resnet50",
    ),
    (
        "default: true",
        "default: 'true'",
        "cxr_foundation.default",
        "'true' is neither true nor false",
    ),
    (
        "num_features: 512",
        "num_features: 0",
        "cxr_foundation.num_features",
        "0 is not a whole number above 0",
    ),
    (
        "num_features: 512",
        "num_features: true",
        "cxr_foundation.num_features",
        "True is not a whole number above 0",
    ),
    (
        "kind: bundled",
        "kind: torrent",
        "cxr_foundation.source.kind",
        "'torrent' is not one of bundled, hub, url, google_drive, ask",
    ),
    ("    path: cxr_resnet18.made_up\n", "", "cxr_foundation.source.path", "missing"),
    (
        "path: cxr_resnet18.made_up",
        "path: null",
        "cxr_foundation.source.path",
        "a source of kind 'bundled' needs it",
    ),
    (
        "path: cxr_resnet18.made_up",
        "path: a..b",
        "cxr_foundation.source.path",
        "'a..b' is not a folder of the package's weights",
    ),
    (
        "    size_bytes: 9\n",
        "    size_bytes: 9\n    repo: org/name\n",
        "cxr_foundation.source.repo",
        "a source of kind 'bundled' does not use it",
    ),
    (
        f"sha256: '{'0' * 64}'",
        f"sha256: '{'0' * 63}'",
        "cxr_foundation.source.sha256",
        f"'{'0' * 63}' is not a sha256 of 64 lower-case hex digits",
    ),
    (
        f"sha256: '{'0' * 64}'",
        "sha256: 12345678",
        "cxr_foundation.source.sha256",
        "12345678 is not text; put it in quotes",
    ),
    (
        "source: bytes 2026-11-21 tests",
        "source: page 2026-11-21 tests",
        "cxr_foundation.source.sha256",
        "a hash needs evidence 'bytes': the file was held",
    ),
    (
        f"sha256: '{'0' * 64}'",
        "sha256: null",
        "cxr_foundation.source.sha256",
        "is null without a reason; say why under 'unknown'",
    ),
    (
        "{layout: null, takes: null, ran_on_authors_file: true}",
        "{layout: null}",
        "cxr_foundation.conversion.ran_on_authors_file",
        "missing",
    ),
    ("    aspect: squash\n", "", "cxr_foundation.contract.aspect", "missing"),
    ("    intensity: voi\n", "", "cxr_foundation.contract.intensity", "missing"),
    (
        "intensity: voi",
        "intensity: unknown",
        "cxr_foundation.contract.intensity",
        "is null without a reason; say why under 'unknown'",
    ),
    (
        "channels: 1",
        "channels: 2",
        "cxr_foundation.contract.channels",
        "2 is neither 1 nor 3",
    ),
    ("mean: [0.5]", "mean: [a]", "cxr_foundation.contract.mean", "'a' is not a number"),
    ("mean: [0.5]", "mean: 0.5", "cxr_foundation.contract.mean", "0.5 is not a list of numbers"),
    (
        "mean: [0.5]",
        "mean: [0.5, 0.5]",
        "cxr_foundation.contract.mean",
        "2 values for 1 channels",
    ),
    (
        "normalise_first: false",
        "normalise_first: 'no'",
        "cxr_foundation.contract.normalise_first",
        "'no' is neither true nor false",
    ),
    (
        "data: cc-by-4.0}",
        "data: null}",
        "cxr_foundation.licences.data",
        "is null without a reason; say why under 'unknown'",
    ),
    (
        "data: [phantoms]",
        "data: []",
        "cxr_foundation.training.data",
        "is null without a reason; say why under 'unknown'",
    ),
    (
        "data: [phantoms]",
        "data: phantoms",
        "cxr_foundation.training.data",
        "'phantoms' is not a list of texts",
    ),
    (
        "    conversion: page 2026-11-21 https://example.org/model\n",
        "",
        "cxr_foundation.conversion.ran_on_authors_file",
        "has no evidence; say where it comes from",
    ),
    (
        "    contract: page",
        "    contract.mean: page",
        "cxr_foundation.contract.channels",
        "has no evidence; say where it comes from",
    ),
    (
        "  unknown: {}",
        "    citation: page 2026-11-21 nowhere\n    contracts: page 2026-11-21 nowhere\n",
        "cxr_foundation.evidence.contracts",
        "is evidence for nothing in this card",
    ),
    (
        "  unknown: {}",
        "    golden: bytes 2026-11-21 nowhere\n",
        "cxr_foundation.evidence.golden",
        "is evidence for nothing in this card",
    ),
    (
        "source: bytes 2026-11-21 tests",
        "source: rumour 2026-11-21 tests",
        "cxr_foundation.evidence.source",
        "'rumour 2026-11-21 tests' is not '(bytes|page|secondhand) YYYY-MM-DD where'",
    ),
    (
        "source: bytes 2026-11-21 tests",
        "source: bytes 2026-13-21 tests",
        "cxr_foundation.evidence.source",
        "'2026-13-21' is not a date",
    ),
    (
        "unknown: {}",
        "unknown: {training.images: lost}",
        "cxr_foundation.unknown.training.images",
        "the card states it: 100",
    ),
    (
        "unknown: {}",
        "unknown: {training.image: lost}",
        "cxr_foundation.unknown.training.image",
        "is no fact of this card",
    ),
    (
        "unknown: {}",
        "unknown: {source.repo: none}",
        "cxr_foundation.unknown.source.repo",
        "is no fact of this card",
    ),
    (
        "unknown: {}",
        "unknown: {source: ''}",
        "cxr_foundation.unknown.source",
        "is empty",
    ),
    (
        "results: []",
        "results: [{task: a, dataset: b, setting: c, metric: d, command: e}]",
        "cxr_foundation.results[0].value",
        "missing",
    ),
    (
        "golden: null",
        "golden: {phantom: a, embedding: AACAPwAA}",
        "cxr_foundation.golden.embedding",
        "is not base64 of float32 (bytes length not a multiple of item size)",
    ),
    (
        "golden: null",
        "golden: {phantom: a, embedding: AACAPw==}",
        "cxr_foundation.golden",
        "an embedding needs evidence 'bytes': the weights were run",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "reason"), RULES, ids=range(len(RULES)))
def test_a_broken_rule_is_named_by_file_key_and_reason(
    old: str, new: str, key: str, reason: str, card: Path
) -> None:
    edit(card, old, new)
    with pytest.raises(CardError) as error:
        catalog.read_card(card)
    assert error.value.subject == f"{card}: {key}"
    assert error.value.reason.startswith(reason)
    assert str(error.value).startswith(f"{card}: {key}: {error.value.reason}. ")
    assert str(error.value).endswith(HOW)


def test_a_misspelt_key_is_answered_by_the_closest(card: Path) -> None:
    edit(card, "  title:", "  titel:")
    with pytest.raises(CardError) as error:
        catalog.read_card(card)
    assert str(error.value) == (
        f"{card}: cxr_foundation.titel: unknown key. Did you mean 'title'? {HOW}"
    )


def test_an_embedding_has_as_many_values_as_the_encoder_has_features() -> None:
    with pytest.raises(CardError, match="embedding: has 1 values for 512 features"):
        make_card(
            golden=Golden(phantom="a", embedding=(1.0,)),
            evidence={**make_checkpoint().evidence, "golden": BYTES},
        )


def test_the_nearer_evidence_decides(tmp_path: Path) -> None:
    evidence = {**make_checkpoint().evidence, "source": PAGE, "source.sha256": BYTES}
    assert "source.sha256: bytes" in make_card(evidence=evidence)
    evidence = {**make_checkpoint().evidence, "source.sha256": PAGE}
    with pytest.raises(CardError, match="a hash needs evidence 'bytes'"):
        make_card(evidence=evidence)


def test_evidence_that_nearer_evidence_covers_whole_is_for_nothing() -> None:
    nearer = {f"licences.{part}": PAGE for part in ("code", "weights", "data")}
    with pytest.raises(CardError, match=r"evidence\.licences: is evidence for nothing"):
        make_card(evidence={**make_checkpoint().evidence, **nearer})


def test_that_nothing_is_asked_of_the_user_may_have_evidence() -> None:
    assert make_checkpoint().gating is None
    assert "gating: page" in make_card(evidence={**make_checkpoint().evidence, "gating": PAGE})
