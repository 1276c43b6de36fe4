"""README's examples run as printed, and its two commands are the ones that CI runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_first_sets import chexpert, nih
from hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
CARD = ROOT / "model_cards" / "cxr_resnet18.moco_open.md"
WEIGHTS = ROOT / "cxr_foundation" / "weights" / "cxr_resnet18.moco_open"


@pytest.fixture
def workplace(tmp_path, bundled):
    """The files that the examples name: a DICOM, a file in CheSS's layout, a published folder."""
    import torch
    import torchvision

    for name in ("chest.dcm", "a.dcm"):
        shutil.copy(bundled / "phantom.dcm", tmp_path / name)
    network = torchvision.models.resnet50(num_classes=128)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    state = {f"module.encoder_q.{k}": v for k, v in network.state_dict().items()}
    torch.save({"epoch": 1, "arch": "resnet50", "state_dict": state}, tmp_path / "CheSS.pth.tar")
    folder = tmp_path / "my-encoder"
    shutil.copytree(WEIGHTS, folder)
    shutil.copy(CARD, folder / "README.md")
    return tmp_path


def run(code, workplace, environment=None):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning:cxr_foundation", "-c", code],
        cwd=workplace,
        env=environment or dict(os.environ),
        capture_output=True,
        text=True,
    )


def test_every_block_is_swept():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["use it", "what a user types"])
def test_an_example_runs_as_printed(block, workplace):
    result = run(block, workplace)
    assert result.returncode == 0, result.stderr


def test_a_published_folder_loads_through_every_door(workplace):
    with HubServer() as hub:
        hub.add_repo("org/my-encoder", workplace / "my-encoder")
        lines = ["import timm, torch, cxr_foundation", "from transformers import AutoModel"]
        lines += ["doors = []"]
        for line in BLOCKS[2].strip().splitlines():
            lines.append(f"doors.append({line.split('#')[0].strip()})")
        lines += [
            "x = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64)",
            "with torch.inference_mode():",
            "    out = [d.eval()(x) for d in doors]",
            "out = [o if torch.is_tensor(o) else o.pooler_output for o in out]",
            "print([float((o - out[0]).abs().max()) for o in out])",
        ]
        result = run("\n".join(lines), workplace, hub.environment(workplace / "home"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[0.0, 0.0, 0.0, 0.0]"


def test_the_example_of_a_published_data_set_runs_on_drawn_ones(tmp_path):
    chexpert(tmp_path / "CheXpert-v1.0-small")
    nih(tmp_path / "NIH")
    uncertain, chexnet = BLOCKS[3].strip().splitlines()[-2:]
    lines = ["from cxr_foundation import data", uncertain]
    lines += ["print(len(studies), sum('cardiomegaly' in s.labels for s in studies))"]
    lines += [chexnet, "print(sorted({s.split for s in studies}))"]
    said = "# Each with labels, absent, view, split, boxes, masks."
    assert "\n".join([lines[0], "", said, uncertain, chexnet]) == BLOCKS[3].strip()
    result = run("\n".join(lines), tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "4 3",
        "['chexnet_test', 'chexnet_train', 'chexnet_val']",
    ]


def test_the_two_commands_are_printed_where_ci_looks_for_them():
    assert '<!-- demo -->\n```\npip install ".[demo]" && cxr demo\n```' in README
    assert '<!-- tests -->\n```\npip install -e ".[dev]" && pytest\n```' in README


def test_the_picture_of_the_demo_is_there():
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_links_to_files_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_counts_of_weights_and_layouts_are_true():
    from cxr_foundation import catalog
    from cxr_foundation.convert import layouts

    assert f"{len(catalog.checkpoints())} weights" in README
    assert f"{len(layouts)} layouts" in README
    assert f"{len(layouts)} checkpoint layouts" in CHANGELOG
    assert f"{len(catalog.checkpoints())} model cards" in CHANGELOG
