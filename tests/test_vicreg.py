"""VICReg: its three terms, their weights and the expander."""

import math

import lightly.loss
import pytest
import torch
from torch import nn

from cxr_foundation.pretrain.methods.vicreg import (
    VICReg,
    VICRegSettings,
    covariance,
    invariance,
    variance,
)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views():
    return [random(4, 1, 3, 4, seed=s) for s in (1, 2)]


def method(**settings):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    encoder.num_features = 6
    return VICReg(
        encoder,
        settings=VICRegSettings(**{"hidden": 8, "dim": 4, **settings}),
        generator=torch.Generator().manual_seed(0),
    )


# The terms.


def test_invariance_is_the_mean_squared_difference():
    assert invariance(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 3.0]])).item() == 2.5


def test_features_that_have_collapsed_lack_nearly_all_of_their_deviation():
    # The root of 0.0001 is left.
    assert variance(torch.ones(5, 3)).item() == pytest.approx(0.99, abs=1e-6)


def test_features_that_vary_enough_cost_nothing():
    assert variance(torch.tensor([[-2.0], [2.0]])).item() == 0


def test_the_variance_divides_by_one_less_than_the_batch():
    # Values -0.5 and 0.5: variance 0.5.
    assert variance(torch.tensor([[-0.5], [0.5]])).item() == pytest.approx(
        1 - math.sqrt(0.5001), abs=1e-6
    )


def test_independent_features_have_no_covariance():
    independent = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert covariance(independent).item() == pytest.approx(0, abs=1e-6)


def test_a_feature_that_is_there_twice_costs_its_squared_variance():
    # Variance 4 / 3; two places off the diagonal, divided by two features.
    doubled = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    assert covariance(doubled).item() == pytest.approx((4 / 3) ** 2, abs=1e-5)


def test_the_covariance_equals_a_loop_over_its_definition():
    z = random(7, 3, seed=1).double()
    total = 0.0
    for i in range(3):
        for j in range(3):
            product = (z[:, i] - z[:, i].mean()) @ (z[:, j] - z[:, j].mean()) / 6
            total += 0.0 if i == j else float(product) ** 2 / 3
    assert covariance(z).item() == pytest.approx(total, abs=1e-9)


# The loss.


def test_the_loss_and_its_gradient_equal_lightlys():
    model = method()
    model.encoder, model.expander = nn.Flatten(), nn.Identity()
    ours = [(0.3 * random(4, 1, 3, 4, seed=s)).requires_grad_() for s in (1, 2)]
    theirs = [v.detach().clone().requires_grad_() for v in ours]
    loss = model(ours, draw=0)["loss"]
    expected = lightly.loss.VICRegLoss()(*[v.flatten(1) for v in theirs])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, reference.grad, atol=1e-5)


@pytest.mark.parametrize("term", ["invariance", "variance", "covariance"])
def test_each_weight_is_of_its_own_term(term):
    weights = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0, term: 3.0}
    seen = method(**weights)(views(), draw=0)
    assert seen[term] > 0
    assert seen["loss"].item() == pytest.approx(3 * seen[term].item(), rel=1e-5)


def test_the_terms_are_float32_under_autocast():
    model = method()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = model(views(), draw=0)
    names = ("loss", "invariance", "variance", "covariance")
    assert {seen[name].dtype for name in names} == {torch.float32}


# The method.


def test_the_defaults_are_the_papers():
    s = VICRegSettings()
    assert (s.invariance, s.variance, s.covariance) == (25, 25, 1)
    assert (s.hidden, s.dim) == (8192, 8192)


def test_the_expander_has_three_layers_and_norms_after_the_first_two():
    norm = ["Linear", "BatchNorm1d", "ReLU"]
    assert [type(layer).__name__ for layer in method().expander] == [*norm, *norm, "Linear"]


def test_every_parameter_gets_a_gradient_and_the_features_none():
    model = method()
    seen = model(views(), draw=0)
    seen["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(seen["features"], model.encoder(views()[0]))
    assert not any(value.requires_grad for name, value in seen.items() if name != "loss")


@pytest.mark.parametrize("wrong", [{"invariance": -1.0}, {"hidden": 0}, {"dim": 1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VICRegSettings(**wrong)
