"""SiT: its contrast, what student and teacher see, and which of them is published."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxr_foundation.pretrain.masks import Corruption, corrupt
from cxr_foundation.pretrain.methods.sit import Sit, SitSettings, contrast


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unit(n, d, seed):
    return F.normalize(torch.randn(n, d, generator=generator(seed)), dim=1)


def images(n=4, seed=1):
    return torch.randn(n, 1, 32, 32, generator=generator(seed))


def method(**settings):
    torch.manual_seed(0)
    encoder = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, in_chans=1, num_classes=0
    )
    return Sit.build(
        encoder,
        settings=SitSettings(**{"hidden": 12, "dim": 6, **settings}),
        view=(1, 32, 32),
        generator=generator(),
    )


@torch.no_grad()
def looped(student, teacher, *, temperature, first=0):
    total = 0.0
    for i in range(len(student)):
        exponentials = [math.exp(float(student[i] @ t) / temperature) for t in teacher]
        total -= math.log(exponentials[first + i] / sum(exponentials))
    return 2 * temperature * total / len(student)


# The contrast.


def test_orthogonal_negatives_give_the_closed_form():
    # A positive of cosine 1, two negatives of cosine 0, temperature 1/2: log(1 + 2 / e²), once.
    eye = torch.eye(3)
    expected = math.log(1 + 2 * math.exp(-2))
    assert contrast(eye, eye, temperature=0.5).item() == pytest.approx(expected, abs=1e-6)


def test_the_contrast_equals_a_loop_over_its_definition():
    student, teacher = unit(5, 4, 1), unit(5, 4, 2)
    expected = looped(student, teacher, temperature=0.2)
    assert contrast(student, teacher, temperature=0.2).item() == pytest.approx(expected, abs=1e-5)


def test_positives_of_a_later_process_lie_behind_those_of_the_earlier():
    student, teacher = unit(3, 4, 1), unit(9, 4, 2)
    expected = looped(student, teacher, temperature=0.2, first=6)
    loss = contrast(student, teacher, temperature=0.2, first=6)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_other_radiographs_of_the_same_patient_can_be_left_out_of_the_negatives():
    student, teacher = unit(3, 4, 1), unit(3, 4, 2)
    patients = torch.tensor([1, 2, 1])
    loss = contrast(student, teacher, temperature=0.2, excluded=patients[:, None] == patients)
    scores = (student @ teacher.T / 0.2).exp()
    expected = -sum(
        math.log(scores[i, i] / sum(scores[i, j] for j in kept))
        for i, kept in enumerate(([0, 1], [0, 1, 2], [1, 2]))
    )
    assert loss.item() == pytest.approx(0.4 * expected / 3, abs=1e-5)


def test_a_step_leaves_patients_in_or_out_as_it_is_told():
    views, patients = [images(), images(seed=2)], torch.tensor([1, 1, 2, 3])
    inside, outside = method(), method(same_patient_negatives=False)
    plain = inside(views, draw=0)["contrast"]
    assert torch.equal(inside(views, draw=0, patients=patients)["contrast"], plain)
    assert outside(views, draw=0, patients=patients)["contrast"] < plain


# Who sees what.


@pytest.fixture
def seen():
    """What student and teacher were given, by name."""
    model, inputs = method(), {}
    # The student's map is read as well as its pooled features, the teacher's is not.
    for name in ("encoder", "teacher"):
        patches = getattr(model, name).patch_embed
        patches.register_forward_pre_hook(lambda m, args, name=name: inputs.update({name: args[0]}))
    return model, inputs


def test_the_student_sees_both_corrupted_views_and_the_teacher_both_clean_ones(seen):
    model, inputs = seen
    views = [images(), images(seed=2)]
    model(views, draw=7)
    assert torch.equal(inputs["teacher"], torch.cat(views))
    corrupted = [corrupt(v, Corruption(), align=8, draw=7 + i)[0] for i, v in enumerate(views)]
    assert torch.equal(inputs["encoder"], torch.cat(corrupted))


def test_a_view_borrows_from_its_like_of_another_radiograph(seen):
    model, inputs = seen
    model.settings = SitSettings(corruption=Corruption(alien_p=1.0), hidden=12, dim=6)
    first, second = torch.zeros(4, 1, 32, 32), torch.ones(4, 1, 32, 32)
    model([first, second], draw=7)
    assert torch.equal(inputs["encoder"], torch.cat([first, second]))


def test_the_loss_is_both_contrasts_across_the_views_and_the_weighted_reconstruction():
    model = method(reconstruction=5.0).eval()
    views = [images(), images(seed=2)]
    outcome = model(views, draw=7)
    corrupted = [corrupt(v, Corruption(), align=8, draw=7 + i) for i, v in enumerate(views)]
    student = [F.normalize(model.head(model.encoder(c)), dim=1) for c, _ in corrupted]
    teacher = [F.normalize(model.teacher_head(model.teacher(v)), dim=1) for v in views]
    contrasts = [looped(student[i], teacher[1 - i], temperature=0.2) for i in range(2)]
    output = torch.cat([model.illustrate([v], draw=7 + i)["output"] for i, v in enumerate(views)])
    mask = torch.cat([m for _, m in corrupted])
    rebuilt = (output - torch.cat(views)).abs()[mask].mean()
    assert outcome["contrast"].item() == pytest.approx(sum(contrasts), abs=1e-5)
    assert outcome["reconstruction"].item() == pytest.approx(rebuilt.item(), abs=1e-5)
    assert outcome["loss"].item() == pytest.approx(sum(contrasts) + 5 * rebuilt.item(), abs=1e-4)


def test_the_teacher_gets_no_gradient_and_has_no_drawing_head():
    model = method()
    model([images(), images(seed=2)], draw=0)["loss"].backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "head", "drawing"}
    assert {n for n, _ in model.named_children()} == {*with_gradient, "teacher", "teacher_head"}


# The heads and the teacher's path.


def test_the_projection_head_is_the_published_one():
    kinds = [type(layer) for layer in method().head]
    linear, norm = nn.Linear, nn.BatchNorm1d
    assert kinds == [linear, norm, nn.ReLU, linear, norm, nn.GELU, linear, norm]
    assert not method().head[-1].affine


def test_the_teacher_moves_by_half_a_cosine_and_stands_still_at_the_end():
    model = method(momentum=0.9)
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.zero_()
    goal = model.encoder.norm.weight.clone()
    model.after_step(progress=0.5)
    # Half-way between .9 and 1.
    assert torch.allclose(model.teacher.norm.weight, 0.05 * goal)
    model.after_step(progress=1.0)
    assert torch.allclose(model.teacher.norm.weight, 0.05 * goal)


def test_the_teacher_is_published_unless_the_student_is_asked_for():
    teacher, student = method(), method(result="student")
    assert teacher.result() is teacher.teacher
    assert student.result() is student.encoder


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"momentum": 1.1}, {"hidden": 0}, {"dim": 0}, {"reconstruction": -1.0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SitSettings(**wrong)
