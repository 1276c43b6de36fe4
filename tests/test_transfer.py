"""Few-label classification: who is labelled, who is scored, and what a run leaves behind."""

import csv
import dataclasses
import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cxr_foundation.transfer
from cxr_foundation.data import Study
from cxr_foundation.errors import (
    BadIndex,
    BadLabels,
    CxrError,
    KeyMismatch,
    NoImages,
    OutputExists,
    PatientLeak,
    PictureLeak,
    RecipeError,
    UnknownName,
)
from cxr_foundation.evaluate.protocol import (
    Task,
    check_patients,
    label_draws,
    parse_counts,
    read_tasks,
    select,
    single_task,
    standing_tasks,
)
from cxr_foundation.evaluate.score import mean_over_tasks, plan_task, score_task
from cxr_foundation.files import sha256_of
from cxr_foundation.transfer.classify import run

TASK = Task(name="toy", title="Toy", source=None, positive="blob", negative="normal")


def study(name, *labels, patient=None, split="pretrain", source="", absent=()):
    patient = patient or name
    return Study(
        path=Path(f"{name}.png"),
        labels=frozenset(labels),
        absent=frozenset(absent),
        patient=patient,
        group=patient,
        split=split,
        source=source,
    )


def many(count, *, split="pretrain", images=1):
    """`count` patients of each class with `images` images each."""
    return [
        study(f"{split}-{label}-{i}-{j}", label, patient=f"{split}-{label}-{i}", split=split)
        for label in ("blob", "normal")
        for i in range(count)
        for j in range(images)
    ]


# Tasks


def test_the_standing_tasks_are_three_that_are_averaged_and_one_that_is_shown():
    averaged = [(t.source, t.positive, t.negative) for t in standing_tasks() if t.averaged]
    assert averaged == [
        ("kermany", "viral", "bacterial"),
        ("shenzhen", "tb", "normal"),
        ("nih", "pneumonia", "normal"),
    ]
    shown = [(t.source, t.positive, t.negative) for t in standing_tasks() if not t.averaged]
    assert shown == [("kermany", "pneumonia", "normal")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tasks: [", "cannot be read as YAML"),
        ("tasks: []", "names no task"),
        ("- a", "one key 'tasks'"),
        ("tasks: [3]", "3 is not a task"),
        ("tasks: [{name: a}]", "missing in a task"),
        ("tasks: [{name: a, colour: b}]", "unknown key of a task"),
        (
            "tasks: [{name: a, title: b, source: null, positive: c, negative: c}]",
            "both classes are 'c'",
        ),
        (
            "tasks: [{name: a, title: b, source: null, positive: c, negative: unlabelled}]",
            "unlabelled rows are no class",
        ),
        (
            "tasks: [{name: a, title: b, source: 3, positive: c, negative: d}]",
            "3 is not a word",
        ),
        (
            "tasks: [&t {name: a, title: b, source: x, positive: c, negative: d}, *t]",
            "two tasks have one name",
        ),
    ],
)
def test_a_wrong_task_file_says_what_is_wrong(tmp_path, text, reason):
    (tmp_path / "tasks.yaml").write_text(text)
    with pytest.raises(RecipeError, match=reason):
        read_tasks(tmp_path / "tasks.yaml")


def test_a_task_file_that_is_not_there_is_a_recipe_error(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        read_tasks(tmp_path / "none.yaml")


def test_one_task_of_a_users_own_labels():
    (task,) = single_task("tb", "normal", "shenzhen")
    assert (task.name, task.title) == ("shenzhen-tb-normal", "shenzhen: tb or normal")
    with pytest.raises(RecipeError, match="no label is given"):
        single_task(None, "normal")


def test_counts_are_parsed_from_one_text():
    assert parse_counts("5, 10,all") == (5, 10, "all")
    with pytest.raises(RecipeError, match="'x' is neither a number nor 'all'"):
        parse_counts("5,x")


# Sides


def test_a_side_holds_the_images_of_one_split_and_source_with_exactly_one_label():
    studies = [
        study("a", "blob", "edema", source="x"),
        study("b", "normal", source="x"),
        study("c", "blob", "normal", source="x"),
        study("d", "unlabelled", "normal", source="x"),
        study("e", "edema", source="x"),
        study("f", "blob", source="y"),
        study("g", "blob", source="x", split="dev"),
    ]
    side = select(dataclasses.replace(TASK, source="x"), studies, split="pretrain")
    assert side.rows.tolist() == [0, 1]
    assert side.labels.tolist() == [True, False]
    assert side.ambiguous == 1


def test_without_a_negative_label_the_negatives_are_stated_absences():
    studies = [study("a", "blob"), study("b", absent=["blob"]), study("c"), study("d", "normal")]
    side = select(dataclasses.replace(TASK, negative=None), studies, split="pretrain")
    assert side.rows.tolist() == [0, 1]


def test_one_class_only_names_the_missing_label_and_those_that_are_there():
    with pytest.raises(BadLabels) as caught:
        select(TASK, [study("a", "normal"), study("b", "edema")], split="pretrain")
    assert str(caught.value) == (
        "task 'toy': no image in split 'pretrain' is labelled 'blob'. Labels there: edema, normal."
    )


def test_a_data_set_without_that_split_is_refused():
    with pytest.raises(BadIndex):
        select(TASK, many(2), split="dev")


def test_a_patient_on_both_sides_is_refused():
    studies = [
        study("a", "blob", patient="p"),
        study("b", "normal"),
        # The same patient, as another hand wrote it.
        study("c", "blob", patient="P ", split="dev"),
        study("d", "normal", split="dev"),
    ]
    sides = [select(TASK, studies, split=split) for split in ("pretrain", "dev")]
    with pytest.raises(PatientLeak, match="patient 'p' would be both trained and scored on"):
        check_patients(TASK, *sides)


# Draws


def drawn_patients(side, positions):
    return [side.patients[p] for p in positions]


def test_draws_are_nested_balanced_and_hold_each_patient_once():
    side = select(TASK, many(30, images=3), split="pretrain")
    draws = label_draws(TASK, side, counts=(5, 10, 20, "all"), draws=20)
    assert [len(draws[c]) for c in (5, 10, 20, "all")] == [20, 20, 20, 1]
    for draw in range(20):
        for count in (5, 10, 20):
            positions = draws[count][draw]
            assert side.labels[positions].tolist() == [True] * count + [False] * count
            assert len(set(drawn_patients(side, positions))) == 2 * count
        assert set(draws[5][draw]) < set(draws[10][draw]) < set(draws[20][draw])
    assert draws["all"][0].tolist() == list(range(180))


def test_draws_differ_from_one_another_and_from_task_to_task():
    side = select(TASK, many(30), split="pretrain")
    draws = label_draws(TASK, side, counts=(10,))[10]
    assert len({tuple(sorted(d)) for d in draws}) == 20
    other = label_draws(dataclasses.replace(TASK, name="other"), side, counts=(10,))[10]
    assert all(set(a) != set(b) for a, b in zip(draws, other, strict=True))


def test_the_draws_are_these_on_every_machine():
    side = select(TASK, many(6), split="pretrain")
    (draw,) = label_draws(TASK, side, counts=(3,), draws=1)[3]
    # First three of six by SHA-256 of "toy", "0" and the patient, joined by zero bytes.
    assert drawn_patients(side, draw) == [
        "pretrain-blob-2",
        "pretrain-blob-5",
        "pretrain-blob-0",
        "pretrain-normal-2",
        "pretrain-normal-0",
        "pretrain-normal-1",
    ]


def test_draws_do_not_depend_on_the_order_of_the_index():
    studies = many(12, images=2)
    names = []
    for order in (studies, studies[::-1]):
        side = select(TASK, order, split="pretrain")
        names.append([side.files[p] for p in label_draws(TASK, side, counts=(4,), draws=1)[4][0]])
    assert names[0] == names[1]


def test_a_new_patient_moves_no_other():
    def order(studies):
        side = select(TASK, studies, split="pretrain")
        return drawn_patients(side, label_draws(TASK, side, counts=(8,), draws=1)[8][0])

    before = order(many(8))
    after = [p for p in order([*many(9)]) if not p.endswith("-8")]
    kept = [p for p in before if p in after]
    assert after == kept


def test_a_patient_with_both_classes_stands_for_one_of_them():
    both = [
        study(f"both-{j}-{c}", c, patient=f"p{j}") for j in range(8) for c in ("blob", "normal")
    ]
    side = select(TASK, [*many(8), *both], split="pretrain")
    for positions in label_draws(TASK, side, counts=(8,), draws=20)[8]:
        patients = drawn_patients(side, positions)
        assert len(set(patients)) == 16


def test_too_few_patients_for_a_draw_says_how_many_there_are():
    side = select(TASK, [*many(4, images=9), study("x", "normal")], split="pretrain")
    with pytest.raises(BadLabels) as caught:
        label_draws(TASK, side, counts=(2, 5, "all"))
    assert str(caught.value) == (
        "task 'toy': 5 labelled patients per class are asked for, 'blob' has 4. "
        "Ask for at most 4 labelled patients per class, or for all."
    )


# Scores


def plan(count=30, **settings):
    studies = [*many(count), *many(20, split="dev")]
    made = plan_task(
        TASK, studies, split_train="pretrain", split_test="dev",
        **{"counts": (5, 20, "all"), "draws": 20, **settings},
    )  # fmt: skip
    return made, studies


def features_of(studies, *, gap, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1, len(studies), 8))
    features[0, :, 0] += gap * np.array(["blob" in s.labels for s in studies])
    return features


@pytest.mark.parametrize("mode", ["probe", "knn"])
def test_a_separable_row_scores_high_and_noise_scores_one_half(mode):
    made, studies = plan()
    features = {"model": features_of(studies, gap=6), "untrained": features_of(studies, gap=0)}
    scored = score_task(made, features, np.arange(len(studies)), mode=mode, resamples=200)
    rows, gain = scored.results["rows"], scored.results["differences"]["untrained"]["20"]
    assert rows["model"]["20"]["auroc"] > 0.95
    assert 0.35 < rows["untrained"]["20"]["auroc"] < 0.65
    assert gain["low"] > 0.2
    assert gain["estimate"] == pytest.approx(
        rows["model"]["20"]["auroc"] - rows["untrained"]["20"]["auroc"]
    )


def test_more_labels_score_higher():
    made, studies = plan()
    features = {"model": features_of(studies, gap=2)}
    scored = score_task(made, features, np.arange(len(studies)), mode="probe", resamples=50)
    cells = scored.results["rows"]["model"]
    assert cells["5"]["auroc"] < cells["20"]["auroc"] < cells["all"]["auroc"]
    assert len(cells["5"]["draws"]) == 20
    assert cells["5"]["sd"] == pytest.approx(np.std(cells["5"]["draws"], ddof=1), abs=1e-5)
    assert cells["all"]["sd"] is None


def test_two_equal_rows_differ_by_exactly_zero():
    made, studies = plan()
    same = features_of(studies, gap=1)
    scored = score_task(
        made, {"model": same, "border": same}, np.arange(len(studies)), mode="knn", resamples=50
    )
    for cell in scored.results["differences"]["border"].values():
        assert cell == {"estimate": 0, "low": 0, "high": 0}


def test_the_listed_draws_are_the_ones_that_were_trained_on():
    made, studies = plan()
    scored = score_task(
        made, {"model": features_of(studies, gap=1)}, np.arange(len(studies)), mode="knn",
        resamples=10,
    )  # fmt: skip
    for listed, drawn in zip(scored.results["draws"], made.draws[5], strict=True):
        first_five = listed["positive"][:5] + listed["negative"][:5]
        assert first_five == made.train.rows[drawn].tolist()


def test_the_mean_over_tasks_leaves_out_those_that_are_only_shown():
    made, studies = plan()
    scored = []
    for index, averaged in enumerate((True, True, False)):
        task = dataclasses.replace(TASK, name=f"t{index}", averaged=averaged)
        features = {"model": features_of(studies, gap=index + 1, seed=index)}
        one = dataclasses.replace(made, task=task)
        scored.append(score_task(one, features, np.arange(len(studies)), mode="knn", resamples=50))
    cells = [s.results["rows"]["model"]["5"]["auroc"] for s in scored]
    mean = mean_over_tasks(scored)
    assert mean["rows"]["model"]["5"]["auroc"] == pytest.approx((cells[0] + cells[1]) / 2)
    assert mean_over_tasks(scored[1:]) is None


# Encoders


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published folder of a tiny network with weights of its own."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from cxr_foundation.contract import InputContract
    from cxr_foundation.models.published import write

    torch.manual_seed(99)
    network = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    return write(
        tmp_path_factory.mktemp("published") / "toy",
        state=network.state_dict(),
        architecture="test_resnet",
        model_args={"in_chans": 1},
        contract=InputContract(channels=1, size=(64, 64), mean=(0.5,), std=(0.25,)),
        card_text="# Toy\n",
        tag="toy",
    )


def test_an_encoder_and_its_twins_see_the_same_pixels_in_one_pass(toys, published):
    from cxr_foundation.models.embed import embed
    from cxr_foundation.models.loading import load, processor
    from cxr_foundation.transfer.encoders import embed_with_twins

    paths = sorted((toys / "images").iterdir())[:3]
    features = embed_with_twins(published, paths, seeds=(0, 1, 0), device="cpu")
    alone = embed(load(published), processor(published), paths, device="cpu")
    assert features.shape == (4, *alone.shape)
    np.testing.assert_allclose(features[0], alone, rtol=1e-4, atol=1e-5)
    # One seed, one twin: the same features; another seed, others; and none are the encoder's.
    np.testing.assert_allclose(features[1], features[3], rtol=1e-4, atol=1e-5)
    assert not np.allclose(features[1], features[2], rtol=0.01)
    assert not np.allclose(features[1], features[0], rtol=0.01)


def test_a_map_is_taken_of_the_encoder_and_of_its_twins_alike(toys, published):
    from cxr_foundation.models.features import FeatureKind
    from cxr_foundation.transfer.encoders import embed_with_twins

    paths = sorted((toys / "images").iterdir())[:2]
    kind = FeatureKind.parse("grid:2")
    pooled = embed_with_twins(published, paths, seeds=(0,), device="cpu")
    maps = embed_with_twins(published, paths, seeds=(0,), features=kind, device="cpu")
    assert maps.shape == (2, 2, 4 * pooled.shape[2])


def test_making_twins_leaves_the_callers_random_numbers_alone(toys, published):
    import torch

    from cxr_foundation.transfer.encoders import embed_with_twins

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    embed_with_twins(published, [next((toys / "images").iterdir())], seeds=(0, 1), device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_twin_of_another_shape_is_refused(published):
    import timm

    from cxr_foundation.models.loading import load
    from cxr_foundation.transfer.encoders import _twin

    other = functools.partial(timm.create_model, "test_resnet", in_chans=3, num_classes=0)
    with pytest.raises(KeyMismatch, match="has other tensors"):
        _twin(published, load(published), other, 0)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    from cxr_foundation.transfer.encoders import describe

    with pytest.raises(CxrError, match="no such folder"):
        describe(tmp_path / "none")


def test_a_published_folder_runs_from_end_to_end(toys, tmp_path, published):
    folder = run(toys, output=tmp_path / "out", **{**SETTINGS, "model": published, "device": "cpu"})
    results = json.loads((folder / "results.json").read_text())
    assert results["model"]["name"] == "toy"
    assert results["model"]["architecture"] == "test_resnet"
    assert results["model"]["sha256"] == sha256_of(published / "model.safetensors")
    assert results["model"]["contract"]["size"] == [64, 64]
    assert 0 <= results["tasks"][0]["rows"]["model"]["all"]["auroc"] <= 1


# Runs


def write_radiographs(folder, *, patients=16, leak=False):
    """Drawn 64-pixel pictures: "blob" has a bright middle, and frames differ by nothing."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, splits = [], []
    for split in ("pretrain", "dev"):
        for i in range(patients):
            for label in ("blob", "normal"):
                pixels = rng.normal(90, 30, size=(64, 64))
                if label == "blob":
                    pixels[20:44, 20:44] += 40
                name = f"images/toy_{split}{i}{label}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
                patient = f"{split}{i}{label}"
                rows.append([name, patient, label, "PA", "F", 40 + i, "640x480"])
                splits.append([patient, split])
    header = ["file", "patient", "labels", "view", "sex", "age", "original_size"]
    for name, table in (
        ("index.csv", [header, *rows]),
        ("splits.csv", [["split_group", "split"], *splits]),
    ):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    return folder


@pytest.fixture
def toys(tmp_path):
    return write_radiographs(tmp_path / "toys")


@pytest.fixture
def drawn_encoder(monkeypatch):
    """An encoder that is a block mean, beside twins that are random projections of it."""

    def embed_with_twins(model, paths, *, seeds, features, batch_size, device, progress):
        pixels = np.stack([np.asarray(Image.open(p), dtype=np.float64) for p in paths]) / 255
        blocks = pixels.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(len(paths), 64)
        twins = [np.tanh(blocks @ np.random.default_rng(s).normal(size=(64, 64))) for s in seeds]
        return np.stack([blocks, *twins]).astype(np.float32)

    def describe(model):
        if model == "cxr_none":
            raise UnknownName(model, "no model card has this name")
        return {
            "name": "cxr_toy.blocks",
            "architecture": "blocks",
            "contract": {"channels": 1, "size": [64, 64]},
            "sha256": None,
            "may_have_seen": ["toys"],
        }

    def seen(model, studies):
        reason = "it was pretrained on toys"
        return [{"card": model, "source": "toy", "verdict": "seen", "reason": reason}]

    stand_in = SimpleNamespace(embed_with_twins=embed_with_twins, describe=describe, seen=seen)
    monkeypatch.setitem(sys.modules, "cxr_foundation.transfer.encoders", stand_in)
    monkeypatch.setattr(cxr_foundation.transfer, "encoders", stand_in, raising=False)


SETTINGS = {
    "model": "cxr_toy.blocks",
    "tasks": single_task("blob", "normal"),
    "counts": (3, "all"),
    "draws": 3,
    "seeds": (0,),
    "resamples": 100,
}


@pytest.mark.parametrize("mode", ["probe", "knn"])
def test_a_run_leaves_a_report_and_its_numbers(toys, tmp_path, drawn_encoder, mode):
    folder = run(toys, output=tmp_path / "out", mode=mode, **SETTINGS)
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.json"]
    results = json.loads((folder / "results.json").read_text())
    assert results["schema"] == "cxr_foundation.transfer.classify/2"
    assert results["protocol"]["test_was_read"] is False
    assert results["data"]["images"] == 64
    assert results["mean"] is None
    (task,) = results["tasks"]
    assert list(task["rows"]) == ["model", "untrained", "raw_pixels", "border", "metadata"]
    assert list(task["rows"]["model"]) == ["3", "all"]
    assert task["train"]["positive_patients"] == 16
    assert task["rows"]["model"]["all"]["auroc"] > 0.95
    # Nothing in the frame or the header of these pictures tells the classes apart.
    assert 0.2 < task["rows"]["border"]["all"]["auroc"] < 0.8
    assert task["differences"]["border"]["all"]["low"] > 0
    assert results["leaks"] == {"allowed": False, "tasks": {}}
    assert [s["verdict"] for s in results["seen"]] == ["seen"]
    assert "been pretrained on radiographs of: toy." in (folder / "report.html").read_text()


def test_two_runs_give_the_same_numbers(toys, tmp_path, drawn_encoder):
    results = []
    for name in ("one", "two"):
        folder = run(toys, output=tmp_path / name, **SETTINGS)
        results.append(json.loads((folder / "results.json").read_text()))
    for key in ("tasks", "data", "versions", "protocol"):
        assert results[0][key] == results[1][key]


def test_the_digest_of_the_data_changes_with_one_pixel(toys, tmp_path, drawn_encoder):
    digests = []
    for name in ("one", "two"):
        folder = run(toys, output=tmp_path / name, **SETTINGS)
        digests.append(json.loads((folder / "results.json").read_text())["data"]["digest"])
        path = toys / "images" / "toy_dev0blob.png"
        pixels = np.array(Image.open(path))
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(path)
    assert digests[0] != digests[1]


def test_reading_the_test_split_is_said(toys, tmp_path, drawn_encoder):
    text = (toys / "splits.csv").read_text()
    (toys / "splits.csv").write_text(text.replace(",dev\n", ",test\n"))
    folder = run(toys, output=tmp_path / "out", split_test="test", **SETTINGS)
    assert json.loads((folder / "results.json").read_text())["protocol"]["test_was_read"] is True
    assert "The test split was read for this report." in (folder / "report.html").read_text()


def plant_a_copy(toys):
    """A test picture, mirrored and darkened, among the training pictures of another patient."""
    copy = Image.open(toys / "images" / "toy_dev3blob.png").transpose(Image.FLIP_LEFT_RIGHT)
    copy.point(lambda grey: grey * 3 // 4).save(toys / "images" / "toy_pretrain5blob.png")


def test_a_picture_on_both_sides_is_refused_before_the_encoder_runs(
    toys, tmp_path, drawn_encoder, monkeypatch
):
    plant_a_copy(toys)
    monkeypatch.setattr(cxr_foundation.transfer.encoders, "embed_with_twins", None)
    with pytest.raises(PictureLeak) as caught:
        run(toys, output=tmp_path / "out", **SETTINGS)
    assert str(caught.value) == (
        "task 'blob-normal': toy_pretrain5blob.png and toy_dev3blob.png show one radiograph, on "
        "both sides. `cxr audit DATA` lists all; drop one of each, or go on with --allow-leaks."
    )
    assert not (tmp_path / "out").exists()


def test_who_insists_gets_a_report_that_says_it(toys, tmp_path, drawn_encoder):
    plant_a_copy(toys)
    folder = run(toys, output=tmp_path / "out", allow_leaks=True, **SETTINGS)
    results = json.loads((folder / "results.json").read_text())
    assert results["leaks"] == {
        "allowed": True,
        "tasks": {
            "blob-normal": {
                "patients": 0,
                "pictures": [["toy_pretrain5blob.png", "toy_dev3blob.png"]],
            }
        },
    }
    assert (
        "THE SPLIT LEAKS: over all tasks 0 patients and 1 pictures"
        in (folder / "report.html").read_text()
    )
    assert results["command"].endswith(" --allow-leaks")


def test_a_patient_on_both_sides_is_allowed_by_the_same_word(toys, tmp_path, drawn_encoder):
    text = (toys / "index.csv").read_text().splitlines()
    header, rows = text[0], [row.split(",") for row in text[1:]]
    split = ["pretrain" if "pretrain" in row[0] else "dev" for row in rows]
    rows[0][1] = rows[-1][1] = "one patient"
    lines = [f"{header},split", *(",".join([*r, s]) for r, s in zip(rows, split, strict=True))]
    (toys / "index.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(PatientLeak):
        run(toys, output=tmp_path / "out", **SETTINGS)
    folder = run(toys, output=tmp_path / "out", allow_leaks=True, **SETTINGS)
    results = json.loads((folder / "results.json").read_text())
    assert results["leaks"]["tasks"]["blob-normal"] == {"patients": 1, "pictures": []}


def test_the_command_can_be_typed_again(toys, tmp_path, drawn_encoder):
    folder = run(toys, output=tmp_path / "out", features="grid:2", **SETTINGS)
    command = json.loads((folder / "results.json").read_text())["command"]
    assert command == (
        f"cxr transfer classify {toys} --model cxr_toy.blocks --mode probe --features grid:2 "
        "--counts 3,all --positive blob --negative normal --split dev --draws 3 "
        f"--output {tmp_path / 'out'}"
    )


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"mode": "forest"}, RecipeError, "'forest' is not one of probe, knn"),
        ({"counts": (10, 5)}, RecipeError, "not ascending whole numbers"),
        ({"counts": ("all", 5)}, RecipeError, "not ascending whole numbers"),
        ({"counts": ()}, RecipeError, "not ascending whole numbers"),
        ({"draws": 0}, RecipeError, "0 is below 1"),
        ({"features": "map"}, RecipeError, "neither 'pooled' nor"),
        ({"seeds": ()}, RecipeError, "without an untrained twin"),
        ({"tasks": ()}, RecipeError, "no task is named"),
        ({"counts": (17,)}, BadLabels, "17 labelled patients per class are asked for"),
        ({"tasks": single_task("tb", "normal")}, BadLabels, "is labelled 'tb'"),
        ({"split_test": "test"}, BadIndex, "test"),
        ({"split_test": "pretrain"}, PatientLeak, "both trained and scored on"),
        ({"model": "cxr_none"}, UnknownName, "no model card"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(
    toys, tmp_path, drawn_encoder, settings, error, reason
):
    with pytest.raises(error, match=reason) as caught:
        run(toys, output=tmp_path / "out", **{**SETTINGS, **settings})
    assert isinstance(caught.value, CxrError)
    assert [p.name for p in tmp_path.iterdir()] == ["toys"]


def test_an_empty_folder_is_refused_and_leaves_nothing(tmp_path, drawn_encoder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImages):
        run(tmp_path / "empty", output=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_left_alone(toys, tmp_path, drawn_encoder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists):
        run(toys, output=tmp_path / "out", **SETTINGS)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_break_in_the_middle_leaves_nothing(toys, tmp_path, drawn_encoder, monkeypatch):
    def interrupt(results, *, pictures):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_foundation.transfer.classify.render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(toys, output=tmp_path / "out", **SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["toys"]
