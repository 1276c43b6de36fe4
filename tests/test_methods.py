"""What every pretraining method must do, on every family of encoders that it takes.

A new method is swept by existing; one whose default settings do not fit a tiny encoder is made
small in `SMALL`, and pairs that it refuses are listed in `REFUSED`.
"""

import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from cxr_foundation.pretrain.masks import Corruption
from cxr_foundation.pretrain.method import Method, methods

SIDE, LOCAL, BATCH = 48, 32, 8
FAMILIES = ("convnext", "densenet", "resnet", "swin", "vit")
NAMES = sorted(methods())

# Settings whose defaults a whole number of at most 16 does not replace.
SMALL = {
    "moco_v2": {"queue": 512, "split_batch_norm": 4},
    "jigsaw": {"grid": 2, "orders": 6},
    # Nothing is asked where a small encoder's every cell happens to be seen.
    "gmml": {"corruption": Corruption(align=8)},
    "sit": {"corruption": Corruption(align=8)},
}
# Pairs that a method does not take, and what it says.
REFUSED = {
    ("mae", family): "method.name: MAE hides tokens" for family in FAMILIES if family != "vit"
}
TAKEN = [(name, family) for name in NAMES for family in FAMILIES if (name, family) not in REFUSED]

sweep = pytest.mark.parametrize(("name", "family"), TAKEN)
# What does not depend on the shape of a map is looked at with one transformer and one network of
# convolutions with batch norms.
short_sweep = pytest.mark.parametrize(
    ("name", "family"), [pair for pair in TAKEN if pair[1] in ("resnet", "vit")]
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def encoder_of(family, *, in_chans=1, flexible=False):
    """A tiny encoder; a `flexible` one also takes local views."""
    torch.manual_seed(0)
    common = {"in_chans": in_chans, "num_classes": 0}
    if family == "vit":
        tiny = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
        return VisionTransformer(**tiny, **common, dynamic_img_size=flexible)
    if family == "swin":
        tiny = {"img_size": SIDE, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
        # timm's own default is random depth, which draws from the global generator.
        tiny |= {"window_size": 3, "drop_path_rate": 0.0}
        return SwinTransformer(**tiny, **common, strict_img_size=not flexible)
    if family == "densenet":
        tiny = {"block_config": (1, 1, 1, 1), "growth_rate": 8}
        return timm.create_model("densenet121", **tiny, **common)
    if family == "convnext":
        return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), **common)
    return ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 16, 16, 16), **common)


def small(name):
    """A method's settings, made for an encoder of sixteen features."""
    made = SMALL.get(name, {})
    kind = methods()[name].Settings
    shrunk = {
        field.name: 16
        for field in dataclasses.fields(kind)
        if type(field.default) is int and field.default > 16
    }
    return kind(**{**shrunk, **made})


def build(name, family, *, in_chans=1, seed=0):
    kind = methods()[name]
    return kind.build(
        encoder_of(family, in_chans=in_chans, flexible=kind.local_views),
        settings=small(name),
        view=(in_chans, SIDE, SIDE),
        generator=generator(seed),
    )


def views_for(name, *, in_chans=1, seed=1):
    """Views that are noisy takes of the same pictures."""
    kind, source = methods()[name], generator(seed)
    coarse = torch.randn(BATCH, in_chans, 6, 6, generator=source) + 0.5
    pictures = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    views = [
        pictures + 0.2 * torch.randn(pictures.shape, generator=source)
        for _ in range(kind.full_views)
    ]
    if kind.local_views:
        views += [view[..., :LOCAL, :LOCAL].contiguous() for view in views]
    return views


PATIENTS, CLASSES = torch.arange(BATCH), torch.arange(BATCH) % 2


def asked(model, views, *, draw):
    """What a method says of views, given all that it asks for."""
    known = {"patients": PATIENTS, "classes": CLASSES}
    takes = inspect.signature(model.forward).parameters
    return model(views, draw=draw, **{key: known[key] for key in known if key in takes})


def optimiser_of(model, lr=0.01):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)


def step(model, views, *, draw, optimiser=None, progress=0.5):
    """One whole training step; returns what the method returned."""
    optimiser = optimiser or optimiser_of(model)
    optimiser.zero_grad()
    outcome = asked(model, views, draw=draw)
    outcome["loss"].backward()
    optimiser.step()
    model.after_step(progress=progress)
    return outcome


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


# The sweep itself.


def test_the_sweep_takes_every_method_that_is_on_disk():
    import cxr_foundation.pretrain.methods as folder

    files = {f.stem for f in Path(folder.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(NAMES) == files
    assert {name for name, _ in TAKEN} == files
    assert set(SMALL) | {name for name, _ in REFUSED} <= files


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name):
    kind = methods()[name]
    assert issubclass(kind, Method)
    assert kind.title
    assert kind.paper
    assert kind.full_views in (1, 2)
    assert dataclasses.is_dataclass(kind.Settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        small(name).made_up = 1


@pytest.mark.parametrize(("name", "family"), sorted(REFUSED))
def test_an_encoder_that_a_method_cannot_take_is_refused_with_a_reason(name, family):
    with pytest.raises(ValueError, match=REFUSED[name, family]):
        build(name, family)


# One step.


@sweep
def test_a_step_gives_a_finite_loss_features_and_scalars_for_the_log(name, family):
    model = build(name, family)
    model.train()
    outcome = asked(model, views_for(name), draw=1)
    assert outcome["loss"].ndim == 0
    assert outcome["loss"].dtype == torch.float32
    assert torch.isfinite(outcome["loss"])
    assert outcome["loss"].requires_grad
    assert outcome["features"].shape == (BATCH, model.encoder.num_features)
    logged = [value for key, value in outcome.items() if key not in ("loss", "features")]
    assert all(value.ndim == 0 for value in logged)
    assert not any(value.requires_grad for key, value in outcome.items() if key != "loss")


@short_sweep
def test_neither_patients_nor_classes_are_needed(name, family):
    assert torch.isfinite(build(name, family)(views_for(name), draw=1)["loss"])


@sweep
def test_a_teacher_gets_no_gradient_and_the_encoder_gets_one(name, family):
    model = build(name, family)
    model.after_step(progress=0.5)
    asked(model, views_for(name), draw=1)["loss"].backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, parameter_name
        elif parameter.grad is None:
            # Some encoders normalise what they pooled, and some methods ask for the map alone.
            assert parameter_name.startswith("encoder.head.norm."), parameter_name
            assert model.looks_at_map, "several processes would wait for this parameter"
        else:
            assert torch.isfinite(parameter.grad).all(), parameter_name
    assert any(p.grad.abs().sum() > 0 for p in model.encoder.parameters() if p.requires_grad)


@sweep
def test_what_is_published_is_an_encoder_of_the_same_tensors(name, family):
    model = build(name, family)
    step(model, views_for(name), draw=1)
    published = model.result().state_dict()
    expected = encoder_of(family).state_dict()
    assert {n: t.shape for n, t in published.items()} == {n: t.shape for n, t in expected.items()}


@short_sweep
def test_a_fixed_batch_is_learned(name, family):
    model, views = build(name, family), views_for(name)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    model.after_step(progress=0.5)
    buffers = {n: buffer.clone() for n, buffer in model.named_buffers()}
    losses = []
    for _ in range(20):
        losses.append(step(model, views, draw=1, optimiser=optimiser)["loss"].item())
        # A queue or a centre would make the next question another one.
        for n, buffer in model.named_buffers():
            buffer.copy_(buffers[n])
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


# The same again.


@sweep
def test_equal_seeds_give_equal_steps_whatever_the_global_generator_does(name, family):
    outcomes = []
    for seed in (3, 4):
        model = build(name, family)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses = [step(model, views_for(name), draw=draw)["loss"] for draw in (1, 2)]
        assert torch.equal(torch.get_rng_state(), before)
        outcomes.append((losses, model))
    (first, one), (second, other) = outcomes
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert same(one, other)


@sweep
def test_a_state_dict_holds_all_that_the_next_step_needs(name, family):
    model, again = build(name, family), build(name, family, seed=9)
    step(model, views_for(name), draw=1, progress=0.3)
    state = copy.deepcopy(model.state_dict())
    assert all(tensor.is_contiguous() for tensor in state.values())
    again.load_state_dict(state, strict=True)
    losses = [
        step(m, views_for(name, seed=2), draw=2, progress=0.6)["loss"] for m in (model, again)
    ]
    assert torch.equal(*losses)
    assert same(model, again)


@sweep
def test_looking_at_what_is_asked_changes_nothing(name, family):
    model, views = build(name, family), views_for(name)
    before = copy.deepcopy(model.state_dict())
    shown = model.illustrate(views, draw=1)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert model.training
    assert list(shown) == [n for n in ("input", "masked", "output") if n in shown]
    assert all(picture.shape == views[0].shape for picture in shown.values())
    assert not any(picture.requires_grad for picture in shown.values())
    if shown:
        assert torch.equal(shown["input"], views[0])
        again = model.illustrate(views, draw=1)
        assert all(torch.equal(shown[n], again[n]) for n in shown)


# Other inputs.


@short_sweep
def test_grey_in_three_channels_is_taken_too(name, family):
    model = build(name, family, in_chans=3)
    assert torch.isfinite(step(model, views_for(name, in_chans=3), draw=1)["loss"])


@short_sweep
def test_a_step_runs_under_bfloat16_with_its_loss_in_float32(name, family):
    model, views = build(name, family), views_for(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = asked(model, views, draw=1)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    expected = asked(build(name, family), views, draw=1)["loss"]
    assert loss.item() == pytest.approx(expected.item(), rel=0.3, abs=0.1)
