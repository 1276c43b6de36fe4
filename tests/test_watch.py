"""A run that is watched: the same weights, each line once, a collapse stopped, a report."""

import json
import types

import drawn_run
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from transformers import TrainerState

from cxr_foundation import data, page, pretrain
from cxr_foundation.errors import PatientLeak, RecipeError
from cxr_foundation.evaluate.protocol import Task
from cxr_foundation.evaluate.score import plan_task, score_task
from cxr_foundation.files import sha256_of
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import watch
from cxr_foundation.pretrain.collapse import collapsed
from cxr_foundation.pretrain.methods.moco_v2 import MocoV2
from cxr_foundation.pretrain.probing import Probe
from cxr_foundation.pretrain.recipe_file import read_recipe
from cxr_foundation.pretrain.showing import those_that_may_be_shown
from cxr_foundation.pretrain.watch import Watch, untouched

STAGE = "stages/1-moco_v2"


@pytest.fixture(autouse=True, scope="module")
def tiny_architecture():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STOCK, "cxr_tiny", ("test_resnet", {}))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def illustrating(monkeypatch):
    """MoCo draws nothing; here it does, and so shows whether that disturbs a run."""

    def illustrate(self, views, *, draw):
        # A forward pass in training mode would change the running statistics.
        self.encoder(views[0])
        torch.rand(1)
        return {"input": views[0], "masked": views[0] * 0, "output": views[1]}

    monkeypatch.setattr(MocoV2, "illustrate", illustrate)


def seen(run):
    return json.loads((run / STAGE / "watch.json").read_text())


def without_speed(lines):
    timed = {"images_per_second", "train_runtime"}
    return [
        {k: v for k, v in line.items() if k not in timed and not k.endswith("per_second")}
        for line in lines
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("watch")


@pytest.fixture(scope="module")
def pictures(root):
    return drawn_run.labelled(root / "pictures")


@pytest.fixture(scope="module")
def recipe(root):
    return drawn_run.recipe(root)


@pytest.fixture(scope="module")
def unwatched(root, recipe, pictures, tiny_architecture):
    torch.set_num_threads(1)
    pretrain.run(recipe, data=pictures, output=root / "unwatched")
    return root / "unwatched"


@pytest.fixture(scope="module")
def watched(root, recipe, pictures, tiny_architecture):
    """Looked at before the first step and after steps 2 and 4 of 4."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MocoV2,
            "illustrate",
            lambda self, views, *, draw: {
                "input": views[0],
                "masked": self.encoder(views[0])[:, :1, None, None].expand_as(views[0]),
                "output": views[1] + torch.rand(1),
            },
        )
        pretrain.run(recipe, data=pictures, output=root / "watched", overrides={"watch.epochs": 1})
    return root / "watched"


def test_watching_changes_no_bit_of_the_encoder(watched, unwatched):
    files = [run / "encoder" / "model.safetensors" for run in (watched, unwatched)]
    assert sha256_of(files[0]) == sha256_of(files[1])


def test_dev_radiographs_are_scored_at_the_start_in_between_and_at_the_end(watched):
    scored = [line for line in seen(watched)["lines"] if "knn_bright" in line]
    assert [line["step"] for line in scored] == [0, 2, 4]
    assert all(0 <= line["knn_bright"] <= 1 for line in scored)
    assert all(line["knn_mean"] == line["knn_bright"] for line in scored)


def test_every_logged_line_tells_the_speed_and_no_gpu_is_made_up(watched):
    logged = [line for line in seen(watched)["lines"] if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert all(line["images_per_second"] > 0 for line in logged)
    assert not any("gpu_busy" in line for line in logged)


def test_a_task_without_labels_is_left_out_and_the_reason_is_said(watched):
    assert seen(watched)["left_out"] == {
        "Rare or dark": "no image in split 'pretrain' is labelled 'rare'"
    }


def test_a_run_that_was_cut_off_has_each_line_once(
    recipe, pictures, tmp_path, watched, monkeypatch
):
    step_end = Watch.on_step_end

    def cut(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise ConnectionAbortedError
        step_end(self, args, state, control, **kwargs)

    arguments = {"data": pictures, "output": tmp_path / "run"}
    arguments["overrides"] = {"watch.epochs": 1}
    monkeypatch.setattr(Watch, "on_step_end", cut)
    with pytest.raises(ConnectionAbortedError):
        pretrain.run(recipe, **arguments)
    monkeypatch.setattr(Watch, "on_step_end", step_end)
    pretrain.run(recipe, **arguments)
    lines, whole = (without_speed(seen(run)["lines"]) for run in (tmp_path / "run", watched))
    assert lines[:-1] == whole[:-1]
    assert [line["step"] for line in lines[:-1]] == [0, 1, 2, 2, 3, 4, 4]


def test_radiographs_without_labels_are_trained_on_and_not_scored(recipe, pictures, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for path in pictures.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    overrides = {"watch.epochs": 1, "train.epochs": 1}
    pretrain.run(recipe, data=folder, output=tmp_path / "run", overrides=overrides)
    found = seen(tmp_path / "run")
    assert not any("knn_mean" in line for line in found["lines"])
    assert set(found["left_out"]) == {"Bright or dark", "Rare or dark"}


# Collapse.


def lines(*spreads, rank=9.0):
    return [
        {"feature_std": s, "effective_rank": rank, "step": float(i + 1)}
        for i, s in enumerate(spreads)
    ]


LIMITS = {"min_feature_std": 0.02, "min_rank": 1.5, "patience": 3}


def test_a_collapse_is_said_after_as_many_low_lines_as_patience_allows():
    assert collapsed(lines(0.5, 0.01, 0.01), **LIMITS) is None
    assert collapsed(lines(0.01, 0.01), **LIMITS) is None
    assert collapsed(lines(0.01, 0.01, 0.02), **LIMITS) is None
    assert collapsed(lines(0.5, 0.01, 0.012, 0.0034), **LIMITS) == (
        "the features have collapsed: feature_std is 0.0034 at step 4 and was below 0.02 in the "
        "last 3 log lines, so all radiographs get nearly the same features"
    )


def test_features_on_a_line_are_a_collapse_too():
    reason = collapsed(lines(0.5, 0.5, 0.5, rank=1.01), **LIMITS)
    assert reason is not None
    assert "effective_rank is 1.01 at step 3" in reason
    assert "on a line" in reason


@pytest.fixture
def collapsing(monkeypatch):
    """A method whose features are all alike, as those of a predictor without a stopped gradient."""

    def forward(self, views, *, draw, patients=None):
        pooled = self.encoder(views[0])
        return {"loss": pooled.square().mean(), "features": torch.ones_like(pooled).detach()}

    monkeypatch.setattr(MocoV2, "forward", forward)


def test_a_run_that_collapses_is_stopped_and_says_why(collapsing, recipe, pictures, tmp_path):
    overrides = {"watch.patience": 2, "train.epochs": 3}
    with pytest.raises(RecipeError, match=r"feature_std is .* at step 2 .*Lower train\.lr"):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run" / "encoder").exists()
    assert "feature_std" in seen(tmp_path / "run")["stopped"]
    assert "Stopped." in (tmp_path / "run" / "report.html").read_text()


def test_log_lines_of_the_warm_up_are_not_counted(collapsing, recipe, pictures, tmp_path):
    overrides = {"watch.patience": 2, "train.epochs": 3, "train.warmup_epochs": 1.5}
    with pytest.raises(RecipeError, match="at step 5 "):
        pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=overrides)


def test_a_run_may_go_on_although_it_collapses(collapsing, recipe, pictures, tmp_path):
    overrides = {"watch.patience": 1, "train.epochs": 1}
    overrides |= {"watch.min_feature_std": 0, "watch.min_rank": 0}
    pretrain.run(recipe, data=pictures, output=tmp_path / "run", overrides=overrides)
    assert (tmp_path / "run" / "encoder").exists()


# What is scored.


def test_the_score_is_the_protocols(pictures, recipe):
    settings = read_recipe(recipe)
    studies = data.read_index(pictures)
    probe = Probe(
        studies, watch=settings.watch, contract=settings.contract, bits=16, in_memory=True
    )
    encoder = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 3)).eval()
    features = np.stack(
        [
            encoder((torch.from_numpy(shrunk(s)) - 0.5)[None, None] / 0.25)[0].detach().numpy()
            for s in studies
        ]
    )
    task = Task(**drawn_run.TASKS["tasks"][0])
    plan = plan_task(task, studies, split_train="pretrain", split_test="dev", counts=(2,), draws=2)
    expected = score_task(
        plan, {"model": features[None]}, np.arange(len(studies)), mode="knn", resamples=2
    )
    found = probe(encoder)
    assert found["knn_bright"] == pytest.approx(expected.per_draw["model"][2].mean(), abs=1e-9)


def shrunk(study):
    """40 x 40 → 32 x 32 as torch resizes it, independent of the package's processor."""
    values = torch.from_numpy(study.pixels())[None, None].double()
    small = torch.nn.functional.interpolate(values, (32, 32), mode="bilinear", antialias=True)
    return small[0, 0].float().numpy()


def test_at_most_so_many_radiographs_are_scored_half_of_each_class(pictures, recipe):
    settings = read_recipe(recipe, overrides={"watch.images": 4})
    probe = Probe(
        data.read_index(pictures),
        watch=settings.watch,
        contract=settings.contract,
        bits=8,
        in_memory=True,
    )
    (plan,) = probe.plans
    assert plan.test.labels.tolist().count(True) == 2
    assert len(plan.test.rows) == len(plan.test.patients) == len(plan.test.files) == 4


def test_a_part_is_never_scored_by_its_own_labels(recipe, pictures, tmp_path):
    with pytest.raises(PatientLeak, match="both trained and scored on"):
        pretrain.run(
            recipe,
            data=pictures,
            output=tmp_path / "run",
            overrides={"watch.epochs": 1, "watch.score": "pretrain"},
        )


def test_a_model_is_left_as_it_was_found():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model[2].eval()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with untouched(model):
        model(torch.randn(4, 3))
    assert [m.training for m in model] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


# Speed.


def test_the_speed_leaves_out_the_time_of_looking_and_the_gpu_is_asked(monkeypatch, tmp_path):
    settings = read_recipe(drawn_run.recipe(tmp_path))
    clock = iter([100.0, 101.5, 101.5, 103.5, 110.0])
    monkeypatch.setattr(watch.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(watch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(watch.torch.cuda, "utilization", lambda: 83)
    looker = Watch(
        nn.Linear(1, 1),
        recipe=settings,
        number=0,
        pictures=None,
        batches=None,
        probe=None,
        folder=tmp_path,
        report=lambda: None,
    )
    monkeypatch.setattr(looker, "_draw", lambda *_: None)
    args = types.SimpleNamespace(
        num_train_epochs=1, train_batch_size=8, gradient_accumulation_steps=2, world_size=3
    )
    state = TrainerState(max_steps=9, global_step=0)
    looker.on_train_begin(args, state, None)  # at 100
    state.global_step = 5
    looker.on_step_end(args, state, None)  # at 101.5; asks the GPU
    looker._looking = 6.0
    logs = {"loss": 1.0, "feature_std": 1.0, "effective_rank": 3.0}
    state.log_history.append({**logs, "step": 5})
    monkeypatch.setattr(watch.time, "perf_counter", lambda: 110.0)
    looker.on_log(args, state, None, logs=logs)
    # 5 steps of 8 x 2 x 3 radiographs in 10 seconds, of which 6 went into looking.
    assert state.log_history[-1]["images_per_second"] == 60.0
    assert state.log_history[-1]["gpu_busy"] == 0.83


# Pictures and the report.


def test_pictures_show_what_is_asked_and_answered(watched):
    assert seen(watched)["columns"] == ["input", "masked", "output"]
    with Image.open(watched / STAGE / "pictures.png") as picture:
        # Four rows of three pictures of 32 x 32, four pixels apart.
        assert picture.size == (3 * 36 - 4, 4 * 36 - 4)
        assert picture.mode == "L"


def test_tensorboard_has_the_pictures_and_the_scores(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(watched / STAGE / "checkpoints" / "runs" / "watch")).Reload()
    assert [e.step for e in board.Scalars("watch/knn_bright")] == [0, 2, 4]
    assert board.Tags()["images"] == ["input | masked | output"]


def test_a_radiograph_with_letters_in_its_pixels_is_not_shown(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        picture = Image.new("L", (512, 512), 60)
        if i == 1:
            ImageDraw.Draw(picture).text((20, 20), "DOE JANE 1961-02-03 HOSPITAL", fill=255)
        picture.save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"no picture")
    studies = data.read_index(folder)
    assert those_that_may_be_shown(studies, most=4, among=24) == [0]


def test_the_report_tells_the_run_and_names_no_patient_and_no_file(watched, pictures):
    text = (watched / "report.html").read_text()
    for told in ("MoCo v2", "effective rank", "Rare or dark", "lr: 0.05", "cxr_foundation", "dev"):
        assert told in text
    assert seen(watched)["steps"] == 4
    assert json.loads((watched / "run.json").read_text())["data"]["sha256"][0] in text
    assert text.count("data:image/png;base64,") == 2
    assert "Doe^" not in text
    assert "picture-0" not in text


def test_the_report_loads_nothing_from_outside(watched):
    text = (watched / "report.html").read_text()
    assert "default-src 'none'" in text
    for loader in ("<script", "<link", "@import", "url(", 'src="http', "<iframe"):
        assert loader not in text


def test_what_is_written_into_a_page_is_no_markup():
    shown = page.document("<b>", [page.table(["<i>"], [["<script>"]]), page.text('"<')])
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<title>&lt;b&gt;</title>" in shown
