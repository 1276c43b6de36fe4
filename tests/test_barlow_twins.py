"""Barlow Twins: its loss and its projector."""

import lightly.loss
import pytest
import torch
from torch import nn

from cxr_foundation.pretrain.methods.barlow_twins import (
    BarlowTwins,
    BarlowTwinsSettings,
    redundancy,
)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(**settings):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    encoder.num_features = 6
    return BarlowTwins(
        encoder,
        settings=BarlowTwinsSettings(**{"hidden": 8, "dim": 4, **settings}),
        generator=torch.Generator().manual_seed(0),
    )


# Two features that are not correlated: of mean 0, length 2 and at right angles.
INDEPENDENT = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def test_equal_views_of_independent_features_have_no_loss():
    loss, correlation = redundancy(INDEPENDENT, INDEPENDENT, weight=0.5)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert correlation.item() == pytest.approx(1, abs=1e-4)


def test_views_that_are_negatives_of_each_other_cost_four_per_feature():
    loss, correlation = redundancy(INDEPENDENT, -INDEPENDENT, weight=0.5)
    assert loss.item() == pytest.approx(2 * 4, abs=1e-3)
    assert correlation.item() == pytest.approx(-1, abs=1e-4)


def test_a_feature_that_is_there_twice_costs_the_weight_twice():
    doubled = INDEPENDENT[:, [0, 0]]
    loss, _ = redundancy(doubled, doubled, weight=0.5)
    assert loss.item() == pytest.approx(2 * 0.5, abs=1e-3)


def test_neither_scale_nor_mean_of_a_feature_matters():
    first, second = random(8, 3, seed=1), random(8, 3, seed=2)
    plain, _ = redundancy(first, second, weight=0.1)
    moved, _ = redundancy(100 * first + 7, second, weight=0.1)
    assert moved.item() == pytest.approx(plain.item(), abs=1e-4)


def test_the_loss_equals_a_loop_over_its_definition():
    first, second = random(8, 3, seed=1).double(), random(8, 3, seed=2).double()
    total = 0.0
    for i in range(3):
        for j in range(3):
            a, b = first[:, i] - first[:, i].mean(), second[:, j] - second[:, j].mean()
            c = float((a * b).sum() / (a.norm() * b.norm()))
            total += (1 - c) ** 2 if i == j else 0.1 * c**2
    loss, _ = redundancy(first, second, weight=0.1)
    assert loss.item() == pytest.approx(total, abs=1e-4)


def test_the_loss_and_its_gradient_equal_lightlys():
    ours = [random(8, 5, seed=s).requires_grad_() for s in (1, 2)]
    theirs = [v.detach().clone().requires_grad_() for v in ours]
    loss, _ = redundancy(*ours, weight=5e-3)
    expected = lightly.loss.BarlowTwinsLoss(lambda_param=5e-3)(*theirs)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, reference.grad, atol=1e-5)


def test_features_that_have_collapsed_give_a_finite_gradient():
    constant = torch.ones(4, 3, requires_grad=True)
    redundancy(constant, constant, weight=0.1)[0].backward()
    assert torch.isfinite(constant.grad).all()


def test_the_loss_is_float32_under_autocast():
    first, second = random(8, 5, seed=1), random(8, 5, seed=2)
    plain, _ = redundancy(first, second, weight=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = redundancy(first, second, weight=0.1)
    assert torch.equal(loss, plain)


def test_the_defaults_are_the_papers():
    settings = BarlowTwinsSettings()
    assert (settings.redundancy_weight, settings.hidden, settings.dim) == (5e-3, 8192, 8192)


def test_the_projector_has_three_layers_and_norms_after_the_first_two():
    kinds = [type(layer).__name__ for layer in method().projector]
    norm = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds == [*norm, *norm, "Linear"]


def test_every_parameter_gets_a_gradient_and_the_features_none():
    model = method()
    views = [random(4, 1, 3, 4, seed=s) for s in (1, 2)]
    seen = model(views, draw=0)
    seen["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(seen["features"], model.encoder(views[0]))
    assert not seen["features"].requires_grad


@pytest.mark.parametrize("wrong", [{"redundancy_weight": -1.0}, {"hidden": 0}, {"dim": 1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BarlowTwinsSettings(**wrong)
