"""A DICOM and its public 8-bit derivative give the same embedding by the contract that fits."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "derivatives.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="only in a checkout")


@pytest.fixture(scope="module")
def derivatives():
    spec = importlib.util.spec_from_file_location("derivatives", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["derivatives"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["derivatives"]


@pytest.mark.filterwarnings("ignore")
def test_the_rule_that_undoes_a_recipe_reaches_the_stated_cosine(derivatives, tmp_path):
    dicoms = list(derivatives.from_pictures(derivatives.BUNDLED, tmp_path, 4))
    found = derivatives.measure(dicoms, tmp_path)
    assert len(dicoms) == 4
    assert set(found) == set(derivatives.RECIPES)
    for recipe, (_, _, right) in derivatives.RECIPES.items():
        assert found[recipe][right]["least"] >= derivatives.STATED, recipe
        assert found[recipe][right]["own is nearest"] == 1.0, recipe
    # The wrong one is no close miss.
    assert found["MIMIC-CXR-JPG"]["voi"]["least"] < 0.99


def test_equalisation_is_opencvs(derivatives):
    # Levels 10, 20, 30 with 2, 1 and 1 pixels: (cumulated - 2) x 255 / 2, by hand.
    pixels = np.array([[10, 10], [20, 30]], np.uint8)
    assert derivatives.equalised(pixels).tolist() == [[0, 0], [128, 255]]
