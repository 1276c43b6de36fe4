"""MoCo v3: its loss, its momentum encoder, and the patch embedding that is not trained."""

import math

import lightly.loss
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxr_foundation.pretrain.methods.moco_v3 import MocoV3, MocoV3Settings, contrast


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views():
    return [random(4, 1, 3, 4, seed=s) for s in (1, 2)]


def method(encoder=None, **settings):
    if encoder is None:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
        encoder.num_features = 6
    return MocoV3(
        encoder,
        settings=MocoV3Settings(**{"hidden": 8, "dim": 4, **settings}),
        generator=torch.Generator().manual_seed(0),
    )


def transformer():
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2, in_chans=1, num_classes=0
    )


# The loss.


def test_orthogonal_keys_give_the_closed_form():
    # Cosine 1 with the own key, 0 with two others, temperature 1/2, so that the factor is 1.
    loss, wins = contrast(torch.eye(3), torch.eye(3), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-6)
    assert wins.item() == 1.0


def test_the_loss_is_scaled_by_twice_the_temperature():
    one = torch.ones(4, 3)
    assert contrast(one, one, temperature=0.2)[0].item() == pytest.approx(
        0.4 * math.log(4), abs=1e-6
    )


def test_the_loss_equals_a_loop_over_its_definition():
    query, key = random(5, 4, seed=1).double(), random(5, 4, seed=2).double()
    total = 0.0
    for i in range(5):
        scores = [math.exp(float(query[i] @ k / (query[i].norm() * k.norm())) / 0.2) for k in key]
        total -= 2 * 0.2 * math.log(scores[i] / sum(scores)) / 5
    assert contrast(query, key, temperature=0.2)[0].item() == pytest.approx(total, abs=1e-5)


def test_the_loss_equals_lightlys_with_the_other_keys_as_its_bank():
    query, key = random(5, 4, seed=1), random(5, 4, seed=2)
    total = 0.0
    for i in range(5):
        reference = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=(4, 4))
        others = torch.cat([key[:i], key[i + 1 :]])
        reference.memory_bank.bank = nn.functional.normalize(others, dim=1)
        reference.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
        loss = reference(query[i : i + 1].clone().requires_grad_(), key[i : i + 1])
        total += 0.4 * loss.item() / 5
    assert contrast(query, key, temperature=0.2)[0].item() == pytest.approx(total, abs=1e-5)


def test_each_view_looks_for_the_key_of_the_other():
    model = method().eval()
    first, second = views()

    def query(x):
        return model.predictor(model.head(model.encoder(x)))

    def key(x):
        return model.momentum_head(model.momentum_encoder(x))

    expected = sum(
        contrast(q, k, temperature=0.2)[0]
        for q, k in ((query(first), key(second)), (query(second), key(first)))
    )
    assert model([first, second], draw=0)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_loss_is_float32_under_autocast():
    query, key = random(5, 4, seed=1), random(5, 4, seed=2)
    plain, _ = contrast(query, key, temperature=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = contrast(query, key, temperature=0.2)
    assert torch.equal(loss, plain)


# The momentum encoder.


def test_only_encoder_head_and_predictor_get_gradients():
    model = method()
    model(views(), draw=0)["loss"].backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "head", "predictor"}


@pytest.mark.parametrize(("progress", "momentum"), [(0.5, 0.95), (1.0, 1.0)])
def test_the_momentum_rises_by_half_a_cosine(progress, momentum):
    model = method(momentum=0.9)
    with torch.no_grad():
        for student, copy in (
            (model.encoder, model.momentum_encoder),
            (model.head, model.momentum_head),
        ):
            for parameter, copied in zip(student.parameters(), copy.parameters(), strict=True):
                parameter.fill_(0.0)
                copied.fill_(1.0)
    model.after_step(progress=progress)
    for moved in (*model.momentum_encoder.parameters(), *model.momentum_head.parameters()):
        assert torch.allclose(moved, torch.full_like(moved, momentum), atol=1e-6)


# The patch embedding.


def test_a_transformers_patch_embedding_is_not_trained():
    model = method(transformer())
    held = {n for n, p in model.encoder.named_parameters() if not p.requires_grad}
    assert held == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    model([random(4, 1, 16, 16, seed=s) for s in (1, 2)], draw=0)["loss"].backward()
    assert model.encoder.patch_embed.proj.weight.grad is None
    assert model.encoder.pos_embed.grad is not None


def test_it_is_if_asked_for():
    model = method(transformer(), frozen_patch_embedding=False)
    assert all(p.requires_grad for p in model.encoder.parameters())


# The method.


def test_the_defaults_are_the_papers():
    s = MocoV3Settings()
    assert (s.momentum, s.temperature, s.hidden, s.dim) == (0.99, 0.2, 4096, 256)
    assert s.frozen_patch_embedding


def test_every_layer_of_both_heads_has_batch_norm():
    model = method()
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert [type(x).__name__ for x in model.head] == [*hidden, *hidden, "Linear", "BatchNorm1d"]
    assert [type(x).__name__ for x in model.predictor] == [*hidden, "Linear", "BatchNorm1d"]


def test_features_are_those_of_the_first_view_without_gradient():
    model = method()
    features = model(views(), draw=0)["features"]
    assert torch.equal(features, model.encoder(views()[0]))
    assert not features.requires_grad


@pytest.mark.parametrize(
    "wrong", [{"momentum": 1.1}, {"temperature": 0.0}, {"hidden": 0}, {"dim": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MocoV3Settings(**wrong)
