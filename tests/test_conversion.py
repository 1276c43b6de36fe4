"""The scripts for releases that need more than their card, on stand-ins of the authors' files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from wild import STANDINS
from wild.moco import network_of

from cxr_foundation import catalog
from cxr_foundation.images.processor import Processor

ROOT = Path(__file__).resolve().parent.parent


def script(name, *arguments, cwd):
    command = [sys.executable, ROOT / "conversion" / name, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(("mean", "std"), [(0.658, 0.221), (0.485, 0.229)])
def test_the_weights_of_chess_tell_their_normalisation(tmp_path, bundled, mean, std):
    files = sorted(map(str, (bundled / "images").iterdir()))[:12]
    card = catalog.checkpoint("cxr_resnet50.chess")
    pixels = Processor(card.contract)(files)["pixel_values"] * 0.221 + 0.658
    network = network_of("resnet50", 1)
    with torch.no_grad():
        seen = network.conv1((pixels - mean) / std).transpose(0, 1).flatten(1)
    network.bn1.running_mean, network.bn1.running_var = seen.mean(1), seen.var(1)
    state = {f"module.encoder_q.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "CheSS.pth.tar")
    found = script("chess.py", tmp_path / "CheSS.pth.tar", "out", *files, cwd=tmp_path)
    first = found.splitlines()[0].split()
    assert float(first[0]) < 0.01
    assert first[1:3] == ["mean", f"{mean},"]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_file_of_spcxr_gives_its_student_and_its_teacher(tmp_path):
    standin = STANDINS["sit"]
    standin.write(tmp_path / "checkpoint.pth", standin.cases[0])
    found = script("spcxr.py", tmp_path / "checkpoint.pth", tmp_path / "out", cwd=tmp_path)
    assert found.count("converts: every encoder tensor is set from the file") == 2
    weights = [
        (tmp_path / "out" / name / "model.safetensors").read_bytes()
        for name in ("student", "teacher")
    ]
    assert weights[0] != weights[1]


def test_a_card_is_completed_by_whoever_holds_the_bytes(tmp_path):
    # In a copy: the script writes into the checkout that it lies in.
    for folder in ("conversion", "model_cards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    file = tmp_path / "CheSS.pth.tar"
    STANDINS["moco"].write(file, next(c for c in STANDINS["moco"].cases if c.args["in_chans"] == 1))
    name = "cxr_resnet50.chess"
    command = [sys.executable, tmp_path / "conversion" / "complete_card.py", file, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = catalog.read_record(tmp_path / "model_cards" / f"{name}.md")
    assert record.source.size_bytes == file.stat().st_size
    assert record.golden is not None and len(record.golden.embedding) == 2048
    assert record.conversion.ran_on_authors_file
    assert record.evidence["source.sha256"].verified == "bytes"
    assert record.evidence["golden"].verified == "bytes"
    assert "source.sha256" not in record.unknown
