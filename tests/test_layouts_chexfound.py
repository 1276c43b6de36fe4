"""What the sweep cannot see of DINOv2 with SwiGLU: refusals, and a whole training state."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS

from cxr_foundation.convert import convert
from cxr_foundation.errors import KeyMismatch


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A small file as the Hub has it."""
    path = tmp_path_factory.mktemp("chexfound") / "model.safetensors"
    STANDINS["chexfound"].write(path, STANDINS["chexfound"].cases[0])
    return path


def test_a_hidden_layer_that_has_no_gates_is_refused(released, tmp_path):
    """Under the same names, its sizes would be those of a plain network."""
    state = load_file(released)
    for name in [n for n in state if ".w12." in n]:
        state[name] = state[name][: len(state[name]) // 2].clone()
    save_file(state, tmp_path / "a")
    with pytest.raises(KeyMismatch, match="do not go together"):
        convert(tmp_path / "a")


def test_the_teacher_of_a_training_state_is_the_released_network(released, tmp_path):
    bare = {n.removeprefix("model."): t for n, t in load_file(released).items()}
    teacher = {f"backbone.{n.replace('ls1.weight', 'ls1.gamma')}": t for n, t in bare.items()}
    teacher = {n.replace("ls2.weight", "ls2.gamma"): t for n, t in teacher.items()}
    teacher["dino_head.last_layer.weight_v"] = torch.ones(2, 2)
    torch.save({"teacher": teacher}, tmp_path / "a")
    converted, expected = convert(tmp_path / "a"), convert(released)
    assert converted.report.takes == "teacher"
    assert converted.model_args == expected.model_args
    assert all(torch.equal(converted.state[n], t) for n, t in expected.state.items())
