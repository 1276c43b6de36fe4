"""SimCLR: its loss, whom it takes for a negative, and where its gradient goes."""

import math

import lightly.loss
import pytest
import torch
from torch import nn

from cxr_foundation.pretrain.methods.simclr import SimCLR, SimCLRSettings, nt_xent


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(**settings):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    encoder.num_features = 6
    return SimCLR(
        encoder,
        settings=SimCLRSettings(**{"dim": 4, **settings}),
        generator=torch.Generator().manual_seed(0),
    )


def by_loops(first, second, temperature, patients=None):
    """Equation 1, pair by pair."""
    views = [v / v.norm() for v in (*first.double(), *second.double())]
    count = len(first)
    patients = list(range(count)) if patients is None else patients
    total = 0.0
    for i, view in enumerate(views):
        other = (i + count) % (2 * count)
        scores = {
            k: math.exp(float(view @ views[k]) / temperature)
            for k in range(2 * count)
            if k == other or patients[k % count] != patients[i % count]
        }
        total -= math.log(scores[other] / sum(scores.values()))
    return total / (2 * count)


# The loss.


def test_orthogonal_radiographs_give_the_closed_form():
    # Each of four views: its positive has cosine 1, both negatives 0, temperature 1/2.
    views = torch.eye(2, 3)
    loss, wins = nt_xent(views, views, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-6)
    assert wins.item() == 1.0


def test_views_that_are_all_alike_give_the_logarithm_of_the_choices():
    loss, _ = nt_xent(torch.ones(4, 3), torch.ones(4, 3), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(7), abs=1e-5)


def test_the_loss_equals_a_loop_over_its_definition():
    first, second = random(5, 4, seed=1), random(5, 4, seed=2)
    loss, _ = nt_xent(first, second, temperature=0.2)
    assert loss.item() == pytest.approx(by_loops(first, second, 0.2), abs=1e-5)


def test_the_loss_and_its_gradient_equal_lightlys():
    ours = [random(5, 4, seed=s).requires_grad_() for s in (1, 2)]
    theirs = [v.detach().clone().requires_grad_() for v in ours]
    loss, _ = nt_xent(*ours, temperature=0.1)
    expected = lightly.loss.NTXentLoss(temperature=0.1)(*theirs)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, reference.grad, atol=1e-5)


def test_wins_count_the_views_whose_other_view_is_the_nearest():
    first = torch.eye(2)
    # Of the four, only this last view lies nearer to another radiograph's than to its own.
    second = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    _, wins = nt_xent(first, second, temperature=0.1)
    assert wins.item() == 0.75


def test_the_loss_is_float32_under_autocast():
    first, second = random(5, 4, seed=1), random(5, 4, seed=2)
    plain, _ = nt_xent(first, second, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = nt_xent(first, second, temperature=0.1)
    assert torch.equal(loss, plain)


# Patients.


def test_other_radiographs_of_a_patient_can_be_left_out_of_the_negatives():
    first, second = random(5, 4, seed=1), random(5, 4, seed=2)
    patients = [7, 8, 7, 9, 7]
    loss, _ = nt_xent(first, second, temperature=0.2, patients=torch.tensor(patients))
    assert loss.item() == pytest.approx(by_loops(first, second, 0.2, patients), abs=1e-5)


def test_a_batch_of_one_patient_has_nothing_to_learn():
    loss, _ = nt_xent(
        random(3, 4, seed=1), random(3, 4, seed=2), temperature=0.2, patients=torch.zeros(3).long()
    )
    assert loss.item() == 0


@pytest.mark.parametrize(("allowed", "changes"), [(True, False), (False, True)])
def test_the_setting_decides_whether_patients_matter(allowed, changes):
    model = method(same_patient_negatives=allowed)
    views = [random(4, 1, 3, 4, seed=s) for s in (1, 2)]
    strangers = model(views, draw=0, patients=torch.tensor([1, 2, 3, 4]))["loss"]
    related = model(views, draw=0, patients=torch.tensor([1, 1, 3, 3]))["loss"]
    assert torch.equal(strangers, related) is not changes


# The method.


def test_the_defaults_are_the_papers():
    settings = SimCLRSettings()
    assert (settings.temperature, settings.hidden, settings.dim) == (0.1, None, 128)


def test_every_parameter_gets_a_gradient_and_the_features_none():
    model = method()
    seen = model([random(4, 1, 3, 4, seed=s) for s in (1, 2)], draw=0)
    seen["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert seen["features"].shape == (4, 6)
    assert not seen["features"].requires_grad


def test_features_are_those_of_the_first_view():
    model = method()
    views = [random(4, 1, 3, 4, seed=s) for s in (1, 2)]
    assert torch.allclose(model(views, draw=0)["features"], model.encoder(views[0]), atol=1e-6)


def test_the_head_depends_on_the_generator_alone():
    torch.manual_seed(1)
    one = method().head.state_dict()
    torch.manual_seed(2)
    other = method().head.state_dict()
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"hidden": 0}, {"dim": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimCLRSettings(**wrong)
