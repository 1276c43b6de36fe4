"""BYOL: its loss, its teacher, and the schedule of its momentum."""

import lightly.loss
import pytest
import torch
from torch import nn

from cxr_foundation.pretrain.methods.byol import BYOL, BYOLSettings, regression


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views():
    return [random(4, 1, 3, 4, seed=s) for s in (1, 2)]


def method(**settings):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    encoder.num_features = 6
    return BYOL(
        encoder,
        settings=BYOLSettings(**{"hidden": 8, "dim": 4, **settings}),
        generator=torch.Generator().manual_seed(0),
    )


# The loss.


@pytest.mark.parametrize(
    ("target", "expected"), [([3.0, 0.0], 0.0), ([0.0, 2.0], 2.0), ([-1.0, 0.0], 4.0)]
)
def test_the_loss_is_two_minus_two_cosines(target, expected):
    loss = regression(torch.tensor([[1.0, 0.0]]), torch.tensor([target]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    prediction, target = random(5, 4, seed=1), random(5, 4, seed=2)
    total = 0.0
    for i in range(5):
        difference = prediction[i] / prediction[i].norm() - target[i] / target[i].norm()
        total += float(difference @ difference) / 5
    assert regression(prediction, target).item() == pytest.approx(total, abs=1e-5)


def test_the_loss_equals_lightlys():
    prediction, target = random(5, 4, seed=1), random(5, 4, seed=2)
    reference = 2 + 2 * lightly.loss.NegativeCosineSimilarity()(prediction, target)
    assert regression(prediction, target).item() == pytest.approx(reference.item(), abs=1e-6)


def test_each_view_predicts_the_other():
    model = method().eval()
    first, second = views()

    def student(x):
        return model.predictor(model.projector(model.encoder(x)))

    def teacher(x):
        return model.teacher_projector(model.teacher_encoder(x))

    expected = regression(student(first), teacher(second)) + regression(
        student(second), teacher(first)
    )
    assert model([first, second], draw=0)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


# The teacher.


def test_only_the_student_gets_gradients():
    model = method()
    model(views(), draw=0)["loss"].backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "projector", "predictor"}


def test_the_teacher_starts_as_the_student():
    model = method()
    student = [*model.encoder.parameters(), *model.projector.parameters()]
    teacher = [*model.teacher_encoder.parameters(), *model.teacher_projector.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(student, teacher, strict=True))


@pytest.mark.parametrize(("progress", "momentum"), [(0.5, 0.95), (1.0, 1.0)])
def test_the_momentum_rises_by_half_a_cosine(progress, momentum):
    model = method(momentum=0.9)
    with torch.no_grad():
        for parameter in model.teacher_encoder.parameters():
            parameter.fill_(1.0)
        for parameter in model.encoder.parameters():
            parameter.fill_(0.0)
    model.after_step(progress=progress)
    moved = next(model.teacher_encoder.parameters())
    assert torch.allclose(moved, torch.full_like(moved, momentum), atol=1e-6)


def test_the_teachers_projector_moves_too():
    model = method(momentum=0.0)
    with torch.no_grad():
        model.projector[0].weight.fill_(7.0)
    model.after_step(progress=1e-9)
    assert torch.allclose(model.teacher_projector[0].weight, torch.tensor(7.0))


def test_what_is_published_is_the_students_encoder():
    model = method()
    assert model.result() is model.encoder


# The method.


def test_the_defaults_are_the_papers():
    settings = BYOLSettings()
    assert (settings.momentum, settings.hidden, settings.dim) == (0.996, 4096, 256)


def test_features_are_those_of_the_first_view_without_gradient():
    model = method()
    features = model(views(), draw=0)["features"]
    assert torch.equal(features, model.encoder(views()[0]))
    assert not features.requires_grad


@pytest.mark.parametrize("wrong", [{"momentum": 1.1}, {"hidden": 0}, {"dim": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BYOLSettings(**wrong)
