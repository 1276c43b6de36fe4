"""Several processes: what they share, and that two of them are one with twice the batch."""

import dataclasses
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import test_methods
import torch
import torch.distributed as dist
import yaml
from test_methods import BATCH, NAMES, PATIENTS, optimiser_of
from test_pretrain import TINY, draw_pictures
from torch import nn

from cxr_foundation import catalog, pretrain
from cxr_foundation.errors import NoImages, RecipeError
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain import distributed
from cxr_foundation.pretrain.distributed import Share
from cxr_foundation.pretrain.method import methods

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def tiny_architecture():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STOCK, "cxr_tiny", ("test_resnet", {}))
        yield


# Which pictures a process takes.


def batches_of(monkeypatch, *, processes, batch, epoch=0, count=22, seed=0):
    """The numbers in every batch: step by step, of each process in turn."""
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    taken = []
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        share = Share(count, batch=batch, seed=seed)
        share.epoch = epoch
        taken.append([[index for _, index in items] for items in share])
        assert len(share) == len(taken[-1])
        assert all(e == epoch for items in share for e, _ in items)
    return [own for step in zip(*taken, strict=True) for own in step]


def test_processes_share_an_epoch_without_loss_or_repeat(monkeypatch):
    batches = batches_of(monkeypatch, processes=3, batch=2)
    # Three whole steps of six: what is left of 22 is less than one.
    assert [len(b) for b in batches] == [2] * 9
    numbers = [i for batch in batches for i in batch]
    assert len(set(numbers)) == 18
    assert set(numbers) <= set(range(22))


def test_two_processes_take_what_one_takes_with_twice_the_batch(monkeypatch):
    halves = batches_of(monkeypatch, processes=2, batch=4)
    whole = batches_of(monkeypatch, processes=1, batch=8)
    assert [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] == whole


def test_seed_and_epoch_decide_the_order(monkeypatch):
    first = batches_of(monkeypatch, processes=1, batch=2)
    assert first == batches_of(monkeypatch, processes=1, batch=2)
    assert first != batches_of(monkeypatch, processes=1, batch=2, epoch=1)
    assert first != batches_of(monkeypatch, processes=1, batch=2, seed=1)


# Two processes against one.


def joined(norm, x):
    """A batch norm over the rows of all processes, which torch itself has on GPUs only."""
    rows = distributed.gather_with_gradient(x)
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    unit = (x - mean) / (variance + norm.eps).sqrt()
    return unit if norm.weight is None else unit * norm.weight + norm.bias


def method(name):
    """A tiny one whose figures do not depend on rounding, nor on which rows lie together."""
    settings = test_methods.small(name)
    if hasattr(settings, "corruption"):
        # Noise and donors are drawn by each process among its own rows.
        plain = dataclasses.replace(settings.corruption, fills=("zeros",), alien_p=0.0)
        settings = dataclasses.replace(settings, corruption=plain)
    encoder = test_methods.encoder_of("vit", flexible=methods()[name].local_views)
    # timm starts so small that all pictures get nearly the same features, whose differences the
    # batch norms of heads then blow up, with their rounding.
    source = torch.Generator().manual_seed(1)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            scale = parameter[0].numel() ** -0.5 if len(parameter) > 1 else 1.0
            nn.init.normal_(parameter, std=scale, generator=source)
    view = (1, test_methods.SIDE, test_methods.SIDE)
    generator = torch.Generator().manual_seed(0)
    return methods()[name].build(encoder, settings=settings, view=view, generator=generator)


def two_steps(name, rows, *, wrap=lambda model: model):
    """Loss, encoder's gradient and state after each of two steps on some rows of one batch."""
    model = method(name)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.forward = types.MethodType(joined, part)
    trained, optimiser = wrap(model), optimiser_of(model, lr=1e-3)
    seen = []
    for number in range(2):
        views = [view[rows] for view in test_methods.views_for(name, seed=number + 1)]
        optimiser.zero_grad()
        loss = trained(views, draw=7 + number, patients=PATIENTS[rows])["loss"]
        loss.backward()
        trainable = [(n, p) for n, p in model.encoder.named_parameters() if p.requires_grad]
        gradient = {n: p.grad.clone() for n, p in trainable if p.grad is not None}
        optimiser.step()
        model.after_step(progress=0.5)
        state = {n: t.clone() for n, t in model.state_dict().items() if "running" not in n}
        seen.append((loss.item(), gradient, state))
    return seen


def be_one_of_two(number, store, out):
    """What each of the two processes runs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    rows = slice(number * BATCH // 2, (number + 1) * BATCH // 2)
    # As the engine wraps a method: no search for parameters without a gradient.
    ddp = nn.parallel.DistributedDataParallel
    seen = {
        name: two_steps(name, rows, wrap=lambda m: ddp(m, broadcast_buffers=False))
        for name in NAMES
    }
    seen["highest"] = distributed.highest(number * 15)
    seen["mean"] = distributed.mean({"a": float(number), "b": 4.0})
    seen["first"] = distributed.on_first(lambda: number + 40)
    try:
        distributed.on_first(refuse if number == 0 else lambda: None)
    except NoImages as error:
        seen["refused"] = str(error)
    torch.save(seen, f"{out}.{number}")


def refuse():
    raise NoImages("there", "nothing is there")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes saw."""
    folder = tmp_path_factory.mktemp("two")
    code = "import sys, test_distributed as t; t.be_one_of_two(int(sys.argv[1]), *sys.argv[2:])"
    with open(folder / "log", "wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(number), f"{folder}/store", f"{folder}/out"],
                env={**os.environ, "PYTHONPATH": str(TESTS), "CUDA_VISIBLE_DEVICES": ""},
                stderr=log,
            )
            for number in range(2)
        ]
    # The other one ends by itself when its neighbour is gone.
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0], (folder / "log").read_text()
    return [torch.load(folder / f"out.{number}") for number in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_twice_the_batch(both, name):
    torch.set_num_threads(1)
    for step, expected in enumerate(two_steps(name, slice(None))):
        loss, gradient, state = expected
        losses = [seen[name][step][0] for seen in both]
        # The second step starts from weights that differ by the first one's rounding.
        near = 1e-5 if step == 0 else 1e-4
        assert sum(losses) / 2 == pytest.approx(loss, abs=near)
        for seen in both:
            assert seen[name][step][1].keys() == gradient.keys()
            for part, tensor in [*gradient.items(), *state.items()]:
                kind = 1 if part in gradient else 2
                torch.testing.assert_close(
                    seen[name][step][kind][part], tensor, atol=near, rtol=near, msg=part
                )


def test_what_is_agreed_on_is_known_to_all(both):
    for seen in both:
        assert seen["highest"] == 15
        assert seen["mean"] == {"a": 0.5, "b": 4.0}
        assert seen["first"] == 40
        assert seen["refused"].startswith("there: nothing is there")


# Under torchrun.

CHILD = """
import os, sys, torch
torch.set_num_threads(1)
from cxr_foundation import pretrain
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.pretrain.methods.moco_v2 import MocoV2
STOCK["cxr_tiny"] = ("test_resnet", {})
forward, calls = MocoV2.forward, []
def failing(self, *args, **kwargs):
    calls.append(None)
    if "FAILS" in os.environ and os.environ["RANK"] == "1" and len(calls) == 2:
        raise ValueError("one of two fails")
    return forward(self, *args, **kwargs)
MocoV2.forward = failing
pretrain.run(sys.argv[1], data=sys.argv[2], output=sys.argv[3])
"""


def torchrun(root, output, **environment):
    (root / "child.py").write_text(CHILD)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + [str(root / part) for part in ("child.py", "tiny.yaml", "pictures", output)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A recipe of one epoch and 18 pictures: two steps of two batches of four."""
    root = tmp_path_factory.mktemp("torchrun")
    recipe = {**TINY, "train": {**TINY["train"], "epochs": 1}}
    (root / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    draw_pictures(root / "pictures", 18)
    return root


def test_torchrun_ends_in_one_published_folder(root):
    done = torchrun(root, "run")
    assert done.returncode == 0, done.stderr.decode()
    published = root / "run" / "encoder"
    assert catalog.read_record(published / "README.md").name == "cxr_tiny.tiny"
    assert "on 2 processes, each on" in catalog.body_of(published / "README.md")
    last = root / "run" / "stages" / "1-moco_v2" / "checkpoints" / "checkpoint-2"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {f.name for f in last.iterdir()}
    # A run of two processes is not gone on with by one.
    again = root / "again"
    again.mkdir()
    (again / "run.json").write_text((root / "run" / "run.json").read_text())
    with pytest.raises(RecipeError, match="processes: 2 → 1"):
        pretrain.run(root / "tiny.yaml", data=root / "pictures", output=again)


def test_an_error_of_one_process_ends_all(root):
    start = time.monotonic()
    done = torchrun(root, "failed", FAILS="1")
    assert done.returncode != 0
    assert b"one of two fails" in done.stderr
    # Most of it is the start of two processes.
    assert time.monotonic() - start < 120
    assert not (root / "failed" / "encoder").exists()
