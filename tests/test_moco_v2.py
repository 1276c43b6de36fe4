"""MoCo v2: its loss, its queue, its momentum, and the leak that split batch norm closes."""

import math

import lightly.loss
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxr_foundation.pretrain.collapse import collapse
from cxr_foundation.pretrain.methods import moco_v2
from cxr_foundation.pretrain.methods.moco_v2 import MocoV2, MocoV2Settings, info_nce
from cxr_foundation.pretrain.momentum import momentum_copy, update_momentum


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


def method(encoder=None, *, num_features=12, **config):
    encoder = encoder or nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.BatchNorm1d(12))
    config = {"queue": 8, "momentum": 0.9, "dim": 4, "split_batch_norm": 2, **config}
    encoder.num_features = num_features
    return MocoV2(encoder, settings=MocoV2Settings(**config), generator=generator())


def images(n=4, seed=0):
    return torch.randn(n, 1, 3, 4, generator=generator(seed))


# The loss.


def test_orthogonal_negatives_give_the_closed_form():
    # One positive of cosine 1, two negatives of cosine 0, temperature 1/2: -log(e² / (e² + 2)).
    query = torch.tensor([[1.0, 0.0, 0.0]])
    queue = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    loss, wins = info_nce(query, query, queue, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-6)
    assert wins.item() == 1.0


def test_a_key_that_is_all_alike_gives_the_logarithm_of_the_choices():
    one = F.normalize(torch.ones(3, 5), dim=1)
    loss, wins = info_nce(one, one, one[:1].repeat(7, 1), temperature=0.2)
    assert loss.item() == pytest.approx(math.log(8), abs=1e-6)
    assert wins.item() == 0.0


def test_the_loss_equals_a_loop_over_its_definition():
    query, key, queue = unit(6, 5, 1), unit(6, 5, 2), unit(9, 5, 3)
    total = 0.0
    for i in range(6):
        scores = [float(query[i] @ key[i])] + [float(query[i] @ queue[j]) for j in range(9)]
        exponentials = [math.exp(s / 0.2) for s in scores]
        total -= math.log(exponentials[0] / sum(exponentials))
    loss, _ = info_nce(query, key, queue, temperature=0.2)
    assert loss.item() == pytest.approx(total / 6, abs=1e-5)


def test_the_loss_equals_lightlys_with_a_memory_bank():
    query, key, queue = unit(6, 5, 1), unit(6, 5, 2), unit(9, 5, 3)
    reference = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=(9, 5))
    reference.memory_bank.bank = queue.clone()
    reference.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    # lightly takes a key without gradient as the side whose bank holds the negatives.
    expected = reference(query.clone().requires_grad_(), key)
    loss, _ = info_nce(query, key, queue, temperature=0.2)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


# Queue and momentum.


def test_keys_enter_the_queue_in_order_and_wrap_around():
    model = method(queue=6)
    first = model.queue.clone()
    model([images(4, 1), images(4, 2)], draw=0)
    assert model.pointer.item() == 4
    assert torch.equal(model.queue[4:], first[4:])
    assert not torch.equal(model.queue[:4], first[:4])
    filled = model.queue.clone()
    model([images(4, 3), images(4, 4)], draw=0)
    assert model.pointer.item() == 2
    assert torch.equal(model.queue[2:4], filled[2:4])
    assert torch.allclose(model.queue.norm(dim=1), torch.ones(6))


def test_the_keys_of_a_step_are_no_negatives_of_that_step():
    model = method(queue=4, split_batch_norm=None)
    model.train()
    queue = model.queue.clone()
    views = images()
    loss = model([views, views], draw=0)["loss"]
    features = model.encoder(views)
    query = F.normalize(model.head(features), dim=1)
    expected, _ = info_nce(query, query, queue, temperature=0.2)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_queue_and_pointer_are_in_the_state_dict_and_every_tensor_is_contiguous():
    state = method(nn.Sequential(nn.Conv2d(1, 12, 3, 1, 1), nn.Flatten())).state_dict()
    assert state["queue"].shape == (8, 4)
    assert state["pointer"].item() == 0
    assert {n.split(".")[0] for n in state} == {
        "encoder",
        "head",
        "momentum_encoder",
        "momentum_head",
        "pointer",
        "queue",
        "queue_patients",
    }
    assert all(t.is_contiguous() for t in state.values())


def test_the_momentum_encoder_moves_by_the_asked_part_and_has_no_gradient():
    student = nn.Linear(2, 2)
    teacher = momentum_copy(student)
    with torch.no_grad():
        student.weight.fill_(1.0)
        teacher.weight.fill_(0.0)
    update_momentum(teacher, student, momentum=0.9)
    assert torch.allclose(teacher.weight, torch.full((2, 2), 0.1))
    update_momentum(teacher, student, momentum=0.9)
    assert torch.allclose(teacher.weight, torch.full((2, 2), 0.19))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_only_encoder_and_head_get_gradients():
    model = method()
    model([images(), images(4, 1)], draw=0)["loss"].backward()
    with_gradient = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "head"}


def test_a_step_changes_the_momentum_encoder_only_after_it():
    model = method()
    before = {n: p.clone() for n, p in model.momentum_encoder.named_parameters()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model([images(), images(4, 1)], draw=0)["loss"].backward()
    optimiser.step()
    assert all(torch.equal(p, before[n]) for n, p in model.momentum_encoder.named_parameters())
    model.after_step(progress=0.5)
    moved = dict(model.momentum_encoder.named_parameters())["1.weight"]
    goal = dict(model.encoder.named_parameters())["1.weight"]
    assert torch.allclose(moved, 0.9 * before["1.weight"] + 0.1 * goal, atol=1e-6)


def test_equal_seeds_give_equal_heads_and_queues():
    torch.manual_seed(1)
    a = method(nn.Identity())
    torch.manual_seed(2)
    b = method(nn.Identity())
    assert torch.equal(a.queue, b.queue)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_order_of_keys_decides_their_groups_and_not_their_places():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 12))
    model = method(encoder).eval()
    views, keys = images(8, 1), images(8, 2)
    plain = model([views, keys], draw=1)
    shuffled = model([views, keys], draw=2)
    assert torch.allclose(plain["loss"], shuffled["loss"], atol=1e-6)


# The leak.


class GroupSignature(nn.Module):
    """Sees nothing of an image but the statistics of the images that it was normalised with."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(32, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return x - self.norm(x) * x.std(0, unbiased=False)


@pytest.fixture
def unshuffled(monkeypatch):
    monkeypatch.setattr(moco_v2, "_shuffled", lambda count, draw: torch.arange(count))


def share_of_found_keys(*, split: int | None) -> float:
    """How often the signature alone finds the own key among 1,024 keys of earlier batches."""
    model = method(
        GroupSignature(), num_features=32, queue=1024, dim=32, hidden=32, split_batch_norm=split
    )
    # The head hands the signature on as it is.
    model.head, model.momentum_head = nn.Identity(), nn.Identity()
    random = generator(5)
    wins = []
    for step in range(10):
        pictures = torch.randn(256, 1, 4, 8, generator=random)
        query, key = (
            pictures + 0.1 * torch.randn(pictures.shape, generator=random) for _ in range(2)
        )
        found = model([query, key], draw=step)["wins"].item()
        # The first four batches fill the queue.
        wins += [found] if step >= 4 else []
    return sum(wins) / len(wins)


def test_ordinary_batch_norm_tells_a_query_which_key_is_its_own(unshuffled):
    assert share_of_found_keys(split=None) > 0.99


def test_split_batch_norm_in_equal_groups_leaks_as_well(unshuffled):
    assert share_of_found_keys(split=32) > 0.99


def test_split_batch_norm_in_different_groups_does_not():
    # 8 groups of 32: by chance a key's group wins over the 32 groups in the queue once in 33, and
    # a little more often because it shares an eighth of its images with the query's group.
    assert share_of_found_keys(split=32) < 0.2


def test_an_encoder_without_batch_norm_runs_on_the_whole_batch():
    assert method(nn.Sequential(nn.Flatten(), nn.Linear(12, 12))).group is None
    assert method().group == 2


def test_groups_are_normalised_apart():
    model = method(split_batch_norm=2)
    views = images(4)
    together = model._encode(model.encoder, views)
    apart = torch.cat([model.encoder(views[:2]), model.encoder(views[2:])])
    assert torch.equal(together, apart)
    assert not torch.allclose(together, model.encoder(views))


# Patients.


def test_other_radiographs_of_the_same_patient_can_be_left_out_of_the_negatives():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 12))
    model = method(encoder, queue=4, split_batch_norm=None, same_patient_negatives=False)
    patients = torch.tensor([7, 8, 9, 10])
    model([images(4, 1), images(4, 2)], draw=0, patients=patients)
    assert model.queue_patients.tolist() == [7, 8, 9, 10]
    query = F.normalize(model.head(encoder(images(4, 1))), dim=1)
    negatives = model.queue.clone()
    # Each query meets its own patient's earlier key: three negatives of four are left.
    key = F.normalize(model.momentum_head(model.momentum_encoder(images(4, 3))), dim=1)
    query = query.detach()
    expected = 0.0
    for i in range(4):
        scores = [float(query[i] @ key[i])]
        scores += [float(query[i] @ negatives[j]) for j in range(4) if j != i]
        exponentials = [math.exp(s / 0.2) for s in scores]
        expected -= math.log(exponentials[0] / sum(exponentials)) / 4
    loss = model([images(4, 1), images(4, 3)], draw=0, patients=patients)["loss"]
    assert loss.item() == pytest.approx(expected, abs=1e-5)


# Collapse.


def test_features_that_are_all_alike_show_as_collapsed():
    alike = torch.ones(16, 8) + 1e-7 * torch.randn(16, 8, generator=generator())
    assert collapse(alike)["feature_std"] == pytest.approx(0, abs=1e-4)


def test_features_on_a_line_have_rank_one_and_spread_features_many():
    line = torch.linspace(-1, 1, 32)[:, None] * torch.ones(1, 8)
    assert collapse(line)["effective_rank"] == pytest.approx(1, abs=1e-3)
    spread = torch.randn(4096, 8, generator=generator())
    figures = collapse(spread)
    assert figures["effective_rank"] == pytest.approx(8, abs=0.05)
    assert figures["feature_std"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "wrong",
    [{"queue": 0}, {"momentum": 1.0}, {"temperature": 0.0}, {"hidden": 1}, {"split_batch_norm": 1}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MocoV2Settings(**wrong)
