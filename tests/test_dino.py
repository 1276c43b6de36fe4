"""DINO: its loss, its centre, its teacher, its schedules, and views of several sizes."""

import math

import lightly.loss
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxr_foundation.pretrain.methods.dino import DINO, DINOSettings, distillation


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(local=2, n=4):
    full = [random(n, 1, 4, 4, seed=s) for s in (1, 2)]
    return full + [random(n, 1, 2, 2, seed=10 + s) for s in range(local)]


def method(encoder=None, **settings):
    if encoder is None:
        encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 6))
        encoder.num_features = 6
    settings = {"hidden": 8, "bottleneck": 4, "prototypes": 5, "last_layer_held": 0.0, **settings}
    return DINO(
        encoder,
        settings=DINOSettings(**settings),
        generator=torch.Generator().manual_seed(0),
    )


def outputs(count, seed):
    return [random(3, 5, seed=seed + i) for i in range(count)]


TEMPERATURES = {"student_temperature": 0.1, "teacher_temperature": 0.04}


# The loss.


def test_a_sure_teacher_and_a_student_that_knows_nothing_give_log_k():
    teacher = [100 * torch.eye(3, 5), 100 * torch.eye(3, 5)]
    student = [torch.zeros(3, 5)] * 4
    loss, entropy = distillation(student, teacher, **TEMPERATURES, centre=torch.zeros(5))
    assert loss.item() == pytest.approx(math.log(5), abs=1e-6)
    assert entropy.item() == pytest.approx(0, abs=1e-6)


def test_a_teacher_that_says_nothing_has_the_entropy_log_k():
    _, entropy = distillation(
        outputs(2, 0), [torch.ones(3, 5)] * 2, **TEMPERATURES, centre=torch.zeros(5)
    )
    assert entropy.item() == pytest.approx(math.log(5), abs=1e-6)


def test_the_loss_equals_a_loop_over_its_definition():
    student, teacher, centre = outputs(4, 0), outputs(2, 20), random(5, seed=40)
    total, pairs = 0.0, 0
    for t in range(2):
        for s in range(4):
            if s == t:
                continue
            pairs += 1
            for n in range(3):
                p = torch.softmax((teacher[t][n] - centre).double() / 0.04, 0)
                q = torch.softmax(student[s][n].double() / 0.1, 0)
                total -= float(p @ q.log()) / 3
    loss, _ = distillation(student, teacher, **TEMPERATURES, centre=centre)
    assert pairs == 6
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


def test_the_loss_and_its_gradient_equal_lightlys():
    ours = [o.requires_grad_() for o in outputs(4, 0)]
    theirs = [o.detach().clone().requires_grad_() for o in ours]
    teacher, centre = outputs(2, 20), random(5, seed=40)
    reference = lightly.loss.DINOLoss(output_dim=5, teacher_temp=0.04, student_temp=0.1)
    reference.center = centre.view(1, 1, 5).clone()
    expected = reference(teacher, theirs)
    loss, _ = distillation(ours, teacher, **TEMPERATURES, centre=centre)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for mine, theirs_ in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, theirs_.grad, atol=1e-5)


def test_the_loss_is_float32_under_autocast():
    student, teacher, centre = outputs(4, 0), outputs(2, 20), random(5, seed=40)
    plain, _ = distillation(student, teacher, **TEMPERATURES, centre=centre)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = distillation(student, teacher, **TEMPERATURES, centre=centre)
    assert torch.equal(loss, plain)


# The centre.


def test_the_centre_moves_to_the_mean_of_the_teachers_outputs_after_the_loss():
    model = method(centre_momentum=0.75)
    whole = torch.cat(views(0))
    answers = model.teacher_head(model.teacher_encoder(whole), learns=model.last_layer_learns)
    before = model(views(), draw=0)["loss"]
    assert torch.allclose(model.centre, 0.25 * answers.mean(0), atol=1e-6)
    assert model(views(), draw=0)["loss"] != before


def test_the_centre_stays_in_evaluation():
    model = method().eval()
    model(views(), draw=0)
    assert torch.equal(model.centre, torch.zeros(5))


def test_centre_and_schedules_are_in_the_state_dict():
    state = method().state_dict()
    assert {"centre", "teacher_temperature", "last_layer_learns"} <= state.keys()


# The teacher.


class Recorder(nn.Module):
    """Remembers the sizes that it was shown."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.seen = []
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return self.layer(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_the_teacher_sees_full_views_only_and_the_student_all():
    model = method(Recorder())
    model(views(local=3), draw=0)
    assert model.teacher_encoder.seen == [(8, 1, 4, 4)]
    assert model.encoder.seen == [(8, 1, 4, 4), (12, 1, 2, 2)]


def test_only_the_student_gets_gradients():
    model = method()
    model(views(), draw=0)["loss"].backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "head"}


def test_the_teacher_is_what_is_published():
    model = method()
    assert model.result() is model.teacher_encoder


@pytest.mark.parametrize(("progress", "momentum"), [(0.5, 0.95), (1.0, 1.0)])
def test_the_momentum_rises_by_half_a_cosine(progress, momentum):
    model = method(momentum=0.9)
    with torch.no_grad():
        for student, teacher in (
            (model.encoder, model.teacher_encoder),
            (model.head, model.teacher_head),
        ):
            for parameter, copied in zip(student.parameters(), teacher.parameters(), strict=True):
                parameter.fill_(0.0)
                copied.fill_(1.0)
    model.after_step(progress=progress)
    for moved in (*model.teacher_encoder.parameters(), *model.teacher_head.parameters()):
        assert torch.allclose(moved, torch.full_like(moved, momentum), atol=1e-6)


# Schedules.


@pytest.mark.parametrize(
    ("progress", "temperature"), [(0.0, 0.04), (0.1, 0.055), (0.2, 0.07), (0.9, 0.07)]
)
def test_the_teachers_temperature_rises_linearly(progress, temperature):
    model = method(teacher_warmup=0.2)
    if progress:
        model.after_step(progress=progress)
    assert model.teacher_temperature.item() == pytest.approx(temperature, abs=1e-7)


def test_without_a_warm_up_the_temperature_is_the_final_one_at_once():
    assert method(teacher_warmup=0.0).teacher_temperature.item() == pytest.approx(0.07)


def last_gradient(model):
    model.zero_grad()
    model(views(), draw=0)["loss"].backward()
    return model.head.last.weight.grad.abs().sum().item()


def test_the_last_layer_is_held_for_the_first_part_and_the_rest_is_not():
    model = method(last_layer_held=0.25)
    assert last_gradient(model) == 0
    assert model.encoder[-1].weight.grad.abs().sum() > 0
    model.after_step(progress=0.2)
    assert last_gradient(model) == 0
    model.after_step(progress=0.25)
    assert last_gradient(model) > 0


def test_what_is_held_stays_in_the_optimiser_s_hands():
    assert method(last_layer_held=0.25).head.last.weight.requires_grad


def test_a_step_after_loading_a_state_is_the_step_that_would_have_been():
    model = method(last_layer_held=0.25, teacher_warmup=0.5)
    model(views(), draw=0)
    model.after_step(progress=0.3)
    again = method(last_layer_held=0.25, teacher_warmup=0.5)
    again.load_state_dict(model.state_dict())
    assert last_gradient(again) == last_gradient(model) > 0
    assert torch.equal(again(views(), draw=0)["loss"], model(views(), draw=0)["loss"])


# The head.


def test_outputs_are_cosines_with_the_last_layers_rows():
    model = method()
    features = random(3, 6, seed=5)
    out = model.head(features, learns=model.last_layer_learns)
    embedded = model.head.mlp(features)
    expected = nn.functional.cosine_similarity(
        embedded[:, None], model.head.last.weight[None], dim=2
    )
    assert torch.allclose(out, expected, atol=1e-6)


def test_the_head_has_no_batch_norm():
    assert [type(layer).__name__ for layer in method().head.mlp] == [
        "Linear",
        "GELU",
        "Linear",
        "GELU",
        "Linear",
    ]


# The method.


def test_the_defaults_are_the_papers():
    s = DINOSettings()
    assert (s.momentum, s.student_temperature, s.centre_momentum) == (0.996, 0.1, 0.9)
    assert (s.teacher_temperature_start, s.teacher_temperature) == (0.04, 0.07)
    assert (s.hidden, s.bottleneck, s.prototypes) == (2048, 256, 65536)


def test_two_views_are_enough():
    seen = method()(views(local=0), draw=0)
    assert torch.isfinite(seen["loss"])


def test_features_are_those_of_the_first_view_without_gradient():
    model = method()
    features = model(views(), draw=0)["features"]
    assert torch.allclose(features, model.encoder(views()[0]), atol=1e-6)
    assert not features.requires_grad


def test_a_transformer_takes_local_views_by_interpolated_positions():
    encoder = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=8,
        depth=1,
        num_heads=2,
        in_chans=1,
        num_classes=0,
        dynamic_img_size=True,
    )
    sizes = [(2, 1, 32, 32)] * 2 + [(2, 1, 16, 16)] * 3
    seen = method(encoder)([random(*size, seed=i) for i, size in enumerate(sizes)], draw=0)
    assert torch.isfinite(seen["loss"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"momentum": 1.1},
        {"student_temperature": 0.0},
        {"teacher_temperature": 0.0},
        {"teacher_temperature_start": -1.0},
        {"teacher_warmup": 2.0},
        {"centre_momentum": -0.1},
        {"hidden": 0},
        {"bottleneck": 0},
        {"prototypes": 0},
        {"last_layer_held": 1.5},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DINOSettings(**wrong)
