"""Optimiser, schedules and the loop: what each key of a recipe's `train` does."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from cxr_foundation.errors import RecipeError
from cxr_foundation.pretrain import engine, optimise
from cxr_foundation.pretrain.method import Method
from cxr_foundation.pretrain.recipe import TrainRecipe


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(**train):
    return TrainRecipe(**{"epochs": 1, "batch": 4, "lr": 0.1, "log_steps": 1, **train})


# Rates.


def test_the_rate_grows_with_the_radiographs_of_a_step():
    scaled = recipe(lr=0.5, lr_for_batch=256, batch=32, accumulate=4)
    assert optimise.highest_rate(scaled, processes=2) == 0.5
    assert optimise.highest_rate(scaled, processes=1) == 0.25


def test_a_rate_without_a_batch_is_taken_as_it_is():
    assert optimise.highest_rate(recipe(lr=0.5, batch=32), processes=8) == 0.5


def test_a_cosine_ends_at_its_floor():
    rates = [
        optimise.learning_rate(step, total=12, warmup=2, recipe=recipe(), floor=0.1)
        for step in (0, 1, 2, 7, 12)
    ]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.55, 0.1])


def test_a_constant_rate_warms_up_and_stays():
    train = recipe(schedule="constant")
    rates = [optimise.learning_rate(s, total=9, warmup=2, recipe=train) for s in (0, 1, 2, 8)]
    assert rates == [0.0, 0.5, 1.0, 1.0]


# Groups and optimisers.


class Net(nn.Module):
    """A matrix, a convolution, a bias, a norm and something frozen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.convolution = nn.Conv2d(1, 1, 2, bias=False)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def sizes(optimiser):
    return [(group["weight_decay"], len(group["params"])) for group in optimiser.param_groups]


def test_all_parameters_are_decayed_unless_told_otherwise():
    made = optimise.build_optimiser(Net(), recipe(weight_decay=0.3), processes=1)
    assert sizes(made) == [(0.3, 5)]


def test_biases_and_norms_are_spared_where_matrices_are_decayed():
    made = optimise.build_optimiser(
        Net(), recipe(weight_decay=0.3, decayed="matrices"), processes=1
    )
    assert sizes(made) == [(0.3, 2), (0.0, 3)]
    assert all(p.ndim > 1 for p in made.param_groups[0]["params"])


def test_weight_decay_follows_half_a_cosine_and_spares_what_it_spares():
    train = recipe(weight_decay=0.04, weight_decay_end=0.4, decayed="matrices", optimiser="adamw")
    made = optimise.build_optimiser(Net(), train, processes=1)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        optimise.set_weight_decay(made, train, progress=progress)
        seen.append([group["weight_decay"] for group in made.param_groups])
    assert seen == [
        pytest.approx([0.04, 0.0]),
        pytest.approx([0.22, 0.0]),
        pytest.approx([0.4, 0.0]),
    ]


def test_adamw_gets_its_betas():
    made = optimise.build_optimiser(
        Net(), recipe(optimiser="adamw", betas=(0.8, 0.95)), processes=1
    )
    assert isinstance(made, torch.optim.AdamW)
    assert made.param_groups[0]["betas"] == (0.8, 0.95)


def test_a_step_of_lars_is_that_of_the_paper():
    # You et al. 2017, equation 6 with momentum 0: rate × .001 × |w| / (|g| + decay × |w|).
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    weight.grad = torch.tensor([[0.0, 2.0]])
    bias = nn.Parameter(torch.tensor([3.0, 4.0]))
    bias.grad = torch.tensor([0.0, 2.0])
    model = nn.Module()
    model.weight, model.bias = weight, bias
    train = recipe(optimiser="lars", lr=0.5, weight_decay=0.1, sgd_momentum=0.0, decayed="matrices")
    optimise.build_optimiser(model, train, processes=1).step()
    ratio = 0.001 * 5 / (2 + 0.1 * 5)
    expected = [3.0 - 0.5 * ratio * 0.3, 4.0 - 0.5 * ratio * (2.0 + 0.4)]
    assert weight.tolist()[0] == pytest.approx(expected, rel=1e-6)
    # A bias is neither decayed nor adapted.
    assert bias.tolist() == pytest.approx([3.0, 3.0])


# Clipping.


def gradients(*values):
    made = []
    for value in values:
        parameter = nn.Parameter(torch.zeros(len(value)))
        parameter.grad = torch.tensor(value)
        made.append(parameter)
    return made


def test_gradients_are_measured_and_left_alone_without_a_bound():
    parameters = gradients([3.0, 0.0], [0.0, 4.0])
    assert optimise.clip_gradients(parameters, recipe()).item() == 5.0
    assert parameters[1].grad.tolist() == [0.0, 4.0]


def test_the_norm_of_all_gradients_is_bounded():
    parameters = gradients([3.0, 0.0], [0.0, 4.0])
    assert optimise.clip_gradients(parameters, recipe(clip=1.0)).item() == 5.0
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.0], abs=1e-6)
    assert parameters[1].grad.tolist() == pytest.approx([0.0, 0.8], abs=1e-6)


def test_the_norm_of_each_gradient_is_bounded_alone():
    parameters = gradients([3.0, 0.0], [0.0, 0.5])
    optimise.clip_gradients(parameters, recipe(clip=1.0, clip_by="parameter"))
    assert parameters[0].grad.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert parameters[1].grad.tolist() == pytest.approx([0.0, 0.5], abs=1e-6)


# The loop.


class Mean(Method):
    """Pulls one number towards the mean of the pictures: gradients are known in closed form."""

    title, paper, full_views = "Mean", "none", 1

    def __init__(self, encoder=None):
        super().__init__(encoder or nn.Identity())
        self.number = nn.Parameter(torch.zeros(()))
        self.moved, self.used = [], []

    @classmethod
    def build(cls, encoder, *, settings, view, generator):
        return cls(encoder)

    def forward(self, views, *, draw, patients=None):
        (view,) = views
        self.used.append(view.dtype)
        loss = 0.5 * ((self.number - view.mean((1, 2, 3))) ** 2).mean()
        features = self.encoder(view).flatten(1)
        return {"loss": loss + 0 * features.sum(), "features": features.detach()}

    def after_step(self, *, progress):
        self.moved.append(progress)


def train(tmp_path, model, *, count=22, watchers=(), **changes):
    """Pictures number i is i everywhere."""
    studies = [SimpleNamespace(path=Path(f"{i}.png")) for i in range(count)]

    class Numbered:
        def __init__(self):
            self.studies = studies

        def __len__(self):
            return count

    def batches(items):
        values = torch.tensor([float(i) for _, i in items])
        taken.append(([i for _, i in items], items[0][0]))
        return {
            "views": [values.view(-1, 1, 1, 1).expand(-1, 1, 32, 32).clone()],
            "draw": 0,
            "patients": None,
        }

    taken = []
    figures = engine.train(
        model,
        pictures=Numbered(),
        batches=batches,
        recipe=recipe(**changes),
        folder=tmp_path / "run",
        resume=None,
        name="tiny",
        watchers=watchers,
    )
    return taken, figures


def test_every_epoch_takes_every_whole_batch_once_in_another_order(tmp_path):
    taken, _ = train(tmp_path, Mean(), epochs=2)
    first, second = ([i for batch, e in taken if e == epoch for i in batch] for epoch in (0, 1))
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 20
    assert first != second


def test_accumulated_batches_make_one_step_and_so_does_what_is_left_of_an_epoch(tmp_path):
    # Five batches of four: two steps of two, and one of one.
    model = Mean()
    taken, _ = train(
        tmp_path, model, accumulate=2, sgd_momentum=0.0, weight_decay=0.0, schedule="constant"
    )
    assert model.moved == pytest.approx([1 / 3, 2 / 3, 1.0])
    number = 0.0
    for step in ((0, 1), (2, 3), (4,)):
        pulled = sum(sum(taken[i][0]) / 4 for i in step) / len(step)
        number -= 0.1 * (number - pulled)
    assert model.number.item() == pytest.approx(number, rel=1e-5)


def test_the_rate_is_scaled_and_ends_near_its_least(tmp_path):
    seen = []

    class Rates(engine.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(kwargs["optimizer"].param_groups[0]["lr"])

    train(tmp_path, Mean(), watchers=[Rates()], epochs=4, lr_for_batch=8, min_lr=0.02)
    # Batches of 4 for a rate that is meant for 8; 20 steps.
    expected = [0.02 + 0.03 * 0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert seen == pytest.approx(expected)


def test_the_gradient_is_clipped_before_the_step(tmp_path):
    model = Mean()
    changes = {"sgd_momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "clip": 0.5}
    train(tmp_path, model, count=4, **changes)
    # The gradient was -1.5, the mean of 0 to 3.
    assert model.number.item() == pytest.approx(0.05, rel=1e-5)


def test_weight_decay_moves_while_a_run_goes_on(tmp_path):
    seen = []

    class Decays(engine.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            seen.append(kwargs["optimizer"].param_groups[0]["weight_decay"])

    train(tmp_path, Mean(), watchers=[Decays()], weight_decay=0.0, weight_decay_end=1.0)
    assert seen == pytest.approx([0.5 * (1 - math.cos(math.pi * k / 5)) for k in range(5)])


def test_activations_are_computed_again_where_the_encoder_can(tmp_path):
    encoder = timm.create_model("test_vit", img_size=32, in_chans=1, num_classes=0)
    train(tmp_path, Mean(encoder), count=4, checkpoint_gradients=True)
    assert encoder.grad_checkpointing


def test_an_encoder_that_cannot_compute_again_is_refused_by_name(tmp_path):
    with pytest.raises(RecipeError, match=r"train\.checkpoint_gradients: Identity keeps its"):
        train(tmp_path, Mean(), checkpoint_gradients=True)


def test_bf16_computes_in_bf16_and_keeps_its_weights(tmp_path):
    seen = []
    encoder = timm.create_model("test_vit", img_size=32, in_chans=1, num_classes=0)
    encoder.blocks[0].attn.qkv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    train(tmp_path, Mean(encoder), count=4, precision="bf16")
    assert seen == [torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


@pytest.mark.slow
def test_a_compiled_method_gives_the_same_number_and_the_same_names(tmp_path):
    plain, compiled = Mean(), Mean()
    train(tmp_path / "plain", plain)
    train(tmp_path / "compiled", compiled, compile=True)
    assert compiled.number.item() == pytest.approx(plain.number.item(), rel=1e-5)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_one_process_says_nothing_of_batch_statistics(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tmp_path, Mean(nn.BatchNorm2d(1)), count=4)
    assert "batch statistics" not in caplog.text
