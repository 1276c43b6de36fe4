"""`cxr demo` as a user starts it, and its figures' arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from cxr_foundation.data import read_index
from cxr_foundation.demo import RADIOGRAPHS
from cxr_foundation.demo.figures import class_activation


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [str(Path(sys.executable).with_name("cxr")), "demo", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True), out


def test_it_ends_well_and_says_that_it_is_an_illustration(demo):
    result, _ = demo
    assert result.returncode == 0, result.stderr
    assert "not for clinical use" in result.stdout


def test_it_prints_the_encoder_beside_untrained_and_shortcuts(demo):
    result, out = demo
    for row in ("this encoder", "untrained twin", "raw pixels", "border only", "metadata only"):
        assert row in result.stdout
    mean = json.loads((out / "results.json").read_text())["mean"]["rows"]["model"]["5"]["auroc"]
    assert f"{mean:.3f}" in result.stdout


def test_the_phantom_comes_out_as_its_card_says(demo):
    result, _ = demo
    line = next(line for line in result.stdout.splitlines() if "golden" in line)
    assert float(line.split()[-1]) > 0.9999


def test_it_writes_a_report_that_needs_nothing_else(demo):
    _, out = demo
    names = {p.name for p in out.iterdir()}
    assert names == {"report.html", "results.json", "saliency.png", "neighbours.png"}
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64") >= 2
    assert "<script" not in report and 'src="http' not in report


def test_it_never_overwrites(demo):
    _, out = demo
    command = [str(Path(sys.executable).with_name("cxr")), "demo", "--out", str(out)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, "already exists" in again.stderr) == (1, True)


def test_the_mean_of_an_activation_map_is_the_share_of_the_log_odds():
    torch.manual_seed(0)
    encoder = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    pixels = torch.rand(2, 1, 64, 64)
    direction = np.linspace(-1, 1, 512)
    with torch.inference_mode():
        expected = encoder(pixels).numpy() @ direction
    maps = class_activation(encoder, pixels, direction)
    assert maps.shape == (2, 2, 2)
    np.testing.assert_allclose(maps.mean((1, 2)), expected, rtol=1e-4)


def test_the_bundled_radiographs_are_150_with_25_of_each_class():
    studies = read_index(RADIOGRAPHS)
    found = {}
    for study in studies:
        for label in study.labels & {"viral", "bacterial", "tb", "normal", "pneumonia"}:
            if (study.source, label) != ("kermany", "pneumonia"):
                found[study.source, label] = found.get((study.source, label), 0) + 1
    assert len(studies) == 150
    assert found == {
        ("kermany", "viral"): 25,
        ("kermany", "bacterial"): 25,
        ("shenzhen", "tb"): 25,
        ("shenzhen", "normal"): 25,
        ("nih", "pneumonia"): 25,
        ("nih", "normal"): 25,
    }


def test_every_bundled_radiograph_may_ship_and_is_small():
    from PIL import Image

    from cxr_foundation.data import may_ship

    for study in read_index(RADIOGRAPHS):
        assert may_ship(study), study.path
        with Image.open(study.path) as picture:
            assert max(picture.size) <= 256
