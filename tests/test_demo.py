"""`cxr demo` as a user starts it, and its figures' arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw, ImageFont

from cxr_foundation.data import read_index
from cxr_foundation.demo import RADIOGRAPHS
from cxr_foundation.demo.figures import (
    class_activation,
    neighbours_figure,
    saliency_figure,
    showable,
)
from cxr_foundation.errors import NoImages


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


# What no figure shows


@pytest.fixture(scope="module")
def plain_and_lettered():
    """Three radiographs; a name is written into the second."""
    plain = [s.pixels() for s in read_index(RADIOGRAPHS) if s.source == "shenzhen"][:3]
    page = Image.fromarray(np.rint(plain[1] * 255).astype(np.uint8))
    ImageDraw.Draw(page).rectangle((0, 0, 200, 30), fill=0)
    ImageDraw.Draw(page).text((4, 4), "DOE^JANE 1970 ID", 255, ImageFont.load_default(16))
    return [plain[0], np.asarray(page, np.float32) / np.float32(255), plain[2]]


@pytest.fixture
def drawn(monkeypatch):
    """The pictures that figures draw; nothing is written."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda *arguments, **options: None)
    original = Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda *a, **k: shown.append(np.asarray(a[1])) or original(*a, **k)
    )
    return shown


def holds(shown, picture):
    return any(s.shape == picture.shape and np.array_equal(s, picture) for s in shown)


def test_a_radiograph_with_letters_is_not_showable(plain_and_lettered):
    assert showable(plain_and_lettered) == [0, 2]


def test_a_radiograph_with_letters_is_in_no_saliency_figure(plain_and_lettered, drawn, tmp_path):
    maps = np.ones((3, 2, 2), np.float32)
    saliency_figure(plain_and_lettered, maps, ["a", "b", "c"], tmp_path / "a.png")
    assert [holds(drawn, p) for p in plain_and_lettered] == [True, False, True]


@pytest.mark.parametrize("queries", [[0, 1, 2], [0]])
def test_a_radiograph_with_letters_is_neither_query_nor_neighbour(
    plain_and_lettered, drawn, tmp_path, queries
):
    # The nearest to the first is the one with letters.
    embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.5]])
    neighbours_figure(plain_and_lettered, embeddings, ["a", "b", "c"], queries, tmp_path / "a.png")
    assert [holds(drawn, p) for p in plain_and_lettered] == [True, False, True]


def test_a_figure_of_which_nothing_may_be_shown_is_an_error(plain_and_lettered, tmp_path):
    with pytest.raises(NoImages, match="every radiograph for it has letters in its pixels"):
        neighbours_figure(plain_and_lettered, np.eye(3), ["a", "b", "c"], [1], tmp_path / "a.png")


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
