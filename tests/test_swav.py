"""SwAV: its assignments, its loss, its queue, its prototypes, and views of several sizes."""

import math

import lightly.loss
import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as lightlys_sinkhorn
from torch import nn

from cxr_foundation.pretrain.methods.swav import SwAV, SwAVSettings, sinkhorn, swapped_prediction


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(n, k, seed):
    unit = nn.functional.normalize(random(n, 8, seed=seed), dim=1)
    return unit @ nn.functional.normalize(random(k, 8, seed=99), dim=1).T


def views(local=2, n=4, seed=0):
    full = [random(n, 1, 4, 4, seed=seed + s) for s in (1, 2)]
    return full + [random(n, 1, 2, 2, seed=seed + 10 + s) for s in range(local)]


def method(**settings):
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 6))
    encoder.num_features = 6
    settings = {"hidden": 8, "dim": 4, "prototypes": 3, "prototypes_held": 0.0, **settings}
    return SwAV(
        encoder,
        settings=SwAVSettings(**settings),
        generator=torch.Generator().manual_seed(0),
    )


def embedded(model, images):
    return nn.functional.normalize(model.head(model.encoder(images)), dim=1)


# Assignments.


def test_every_row_sums_to_one_and_every_prototype_is_used_equally():
    codes = sinkhorn(cosines(12, 4, 1), epsilon=0.05, iterations=100)
    assert torch.allclose(codes.sum(1), torch.ones(12), atol=1e-6)
    assert torch.allclose(codes.sum(0), torch.full((4,), 3.0), atol=1e-3)


def test_a_prototype_that_all_prefer_is_shared_out():
    # All lean to the first prototype, the second row least: it is the one that goes elsewhere.
    codes = sinkhorn(torch.tensor([[0.9, 0.0], [0.5, 0.0]]), epsilon=0.01, iterations=20)
    assert codes.argmax(1).tolist() == [0, 1]


def test_the_assignment_equals_the_papers_algorithm():
    scores = cosines(6, 3, 2).double()
    q = [[math.exp(float(scores[n, k]) / 0.05) for n in range(6)] for k in range(3)]
    for _ in range(3):
        rows = [sum(row) for row in q]
        q = [[v / rows[k] / 3 for v in q[k]] for k in range(3)]
        columns = [sum(q[k][n] for k in range(3)) for n in range(6)]
        q = [[q[k][n] / columns[n] / 6 for n in range(6)] for k in range(3)]
    expected = torch.tensor(q).T * 6
    assert torch.allclose(sinkhorn(scores, epsilon=0.05, iterations=3).float(), expected, atol=1e-6)


def test_the_assignment_equals_lightlys():
    scores = cosines(10, 4, 3)
    expected = lightlys_sinkhorn(scores, iterations=3, epsilon=0.05)
    assert torch.allclose(sinkhorn(scores, epsilon=0.05, iterations=3), expected, atol=1e-6)


def test_a_very_small_epsilon_does_not_overflow():
    codes = sinkhorn(cosines(10, 4, 3), epsilon=1e-4, iterations=3)
    assert torch.isfinite(codes).all()
    assert torch.allclose(codes.sum(1), torch.ones(10), atol=1e-5)


# The loss.


def test_a_sure_code_and_equal_scores_give_log_k():
    codes = [torch.eye(3, 4)] * 2
    loss = swapped_prediction([torch.zeros(3, 4)] * 3, codes, temperature=0.1)
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_a_code_is_never_held_against_its_own_view():
    code = torch.tensor([[1.0, 0.0]])
    wrong, right = torch.tensor([[0.0, 9.0]]), torch.tensor([[9.0, 0.0]])
    assert swapped_prediction([wrong, right], [code], temperature=0.1).item() < 1e-6


def test_the_loss_and_its_gradient_equal_lightlys():
    ours = [cosines(6, 3, s).requires_grad_() for s in range(4)]
    theirs = [s.detach().clone().requires_grad_() for s in ours]
    queue = [cosines(9, 3, s) for s in (7, 8)]
    expected = lightly.loss.SwaVLoss()(theirs[:2], theirs[2:], queue)
    codes = [
        sinkhorn(torch.cat([s.detach(), q]), epsilon=0.05, iterations=3)[:6]
        for s, q in zip(ours[:2], queue, strict=True)
    ]
    loss = swapped_prediction(ours, codes, temperature=0.1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, reference.grad, atol=1e-5)


def test_a_step_is_the_loss_of_all_views_with_the_codes_of_the_full_ones():
    model = method().eval()
    pictures = views()
    scores = [embedded(model, v) @ model.prototypes.weight.T for v in pictures]
    codes = [sinkhorn(s, epsilon=0.05, iterations=3) for s in scores[:2]]
    expected = swapped_prediction(scores, codes, temperature=0.1)
    assert model(pictures, draw=0)["loss"].item() == pytest.approx(expected.item(), abs=1e-5)


# The queue.


def test_embeddings_of_each_full_view_enter_its_queue_in_order_and_wrap_around():
    model = method(queue=6)
    # Batch norm sees all views of a step together; only without it is a view's embedding its own.
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
    first, second = views(seed=0), views(seed=50)
    model(first, draw=0)
    expected = [embedded(model, view) for view in first[:2]]
    assert torch.allclose(model.queue[:, :4], torch.stack(expected), atol=1e-6)
    assert torch.equal(model.queue[:, 4:], torch.zeros(2, 2, 4))
    model(second, draw=0)
    expected = embedded(model, second[0])
    assert torch.allclose(model.queue[0, [4, 5, 0, 1]], expected, atol=1e-6)
    assert model.stored.item() == 8


def test_a_queue_that_is_due_and_full_takes_part_in_the_assignment():
    model = method(queue=8, queue_from=0.5).eval()
    model.queue.copy_(nn.functional.normalize(random(2, 8, 4, seed=3), dim=2))
    plain = model(views(), draw=0)["loss"]
    model.after_step(progress=0.5)
    assert torch.equal(model(views(), draw=0)["loss"], plain)  # due, not full
    model.stored.fill_(8)
    scores = [embedded(model, v) @ model.prototypes.weight.T for v in views()]
    codes = [
        sinkhorn(torch.cat([s, q @ model.prototypes.weight.T]), epsilon=0.05, iterations=3)[:4]
        for s, q in zip(scores[:2], model.queue, strict=True)
    ]
    expected = swapped_prediction(scores, codes, temperature=0.1)
    assert model(views(), draw=0)["loss"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_full_queue_waits_until_it_is_due():
    model = method(queue=8, queue_from=0.5).eval()
    plain = model(views(), draw=0)["loss"]
    model.queue.copy_(nn.functional.normalize(random(2, 8, 4, seed=3), dim=2))
    model.stored.fill_(8)
    model.after_step(progress=0.4)
    assert torch.equal(model(views(), draw=0)["loss"], plain)


def test_the_queue_stays_in_evaluation():
    model = method(queue=8).eval()
    model(views(), draw=0)
    assert torch.equal(model.queue, torch.zeros(2, 8, 4))
    assert model.stored.item() == 0


def test_queue_and_schedules_are_in_the_state_dict():
    state = method(queue=8).state_dict()
    assert {"queue", "stored", "queue_due", "prototypes_learn"} <= state.keys()


def test_a_queue_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="queue: smaller than a batch"):
        SwAVSettings(queue=4).check(8)
    SwAVSettings(queue=0).check(8)


# The prototypes.


def test_prototypes_have_unit_length_at_the_start_and_after_each_step():
    model = method()
    assert torch.allclose(model.prototypes.weight.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        model.prototypes.weight.mul_(5)
    model.after_step(progress=0.1)
    assert torch.allclose(model.prototypes.weight.norm(dim=1), torch.ones(3))


def prototype_gradient(model):
    model.zero_grad()
    model(views(), draw=0)["loss"].backward()
    return model.prototypes.weight.grad.abs().sum().item()


def test_prototypes_are_held_for_the_first_part_and_the_rest_is_not():
    model = method(prototypes_held=0.25)
    assert prototype_gradient(model) == 0
    assert model.encoder[-1].weight.grad.abs().sum() > 0
    model.after_step(progress=0.2)
    assert prototype_gradient(model) == 0
    model.after_step(progress=0.25)
    assert prototype_gradient(model) > 0


def test_a_step_after_loading_a_state_is_the_step_that_would_have_been():
    settings = {"queue": 4, "queue_from": 0.2, "prototypes_held": 0.25}
    model = method(**settings)
    model(views(), draw=0)
    model.after_step(progress=0.3)
    again = method(**settings)
    again.load_state_dict(model.state_dict())
    assert prototype_gradient(again) == prototype_gradient(model) > 0
    assert torch.equal(again(views(), draw=0)["loss"], model(views(), draw=0)["loss"])


# The method.


def test_the_defaults_are_the_papers():
    s = SwAVSettings()
    assert (s.temperature, s.epsilon, s.iterations) == (0.1, 0.05, 3)
    assert (s.prototypes, s.dim, s.queue) == (3000, 128, 0)


def test_every_parameter_gets_a_gradient_and_the_features_none():
    model = method()
    seen = model(views(), draw=0)
    seen["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.allclose(seen["features"], model.encoder(views()[0]), atol=1e-6)
    assert not seen["features"].requires_grad


def test_equal_full_views_agree():
    model = method()
    one = views()[0]
    assert model([one, one], draw=0)["agreement"].item() == 1


def test_loss_and_codes_are_float32_under_autocast():
    model = method().eval()
    plain = model(views(), draw=0)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(views(), draw=0)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item(), rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"epsilon": 0.0},
        {"iterations": 0},
        {"prototypes": 0},
        {"hidden": 0},
        {"dim": 0},
        {"queue": -1},
        {"queue_from": 1.1},
        {"prototypes_held": -0.1},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SwAVSettings(**wrong)
