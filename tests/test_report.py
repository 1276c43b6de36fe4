"""The HTML report: complete, escaped, readable, and nothing in it loads from outside."""

import base64
import copy
import re
from html.parser import HTMLParser

import pytest

from cxr_foundation.transfer.report import ROW_TITLES, render

COUNTS = ("5", "all")


def cell(value):
    return {"auroc": value, "sd": 0.0123, "low": value - 0.1, "high": value + 0.05, "draws": []}


def tables(values):
    """Rows of one AUROC each, the same at every count."""
    return {
        "rows": {row: {c: cell(v) for c in COUNTS} for row, v in values.items()},
        "differences": {
            row: {
                c: {
                    "estimate": values["model"] - v,
                    "low": values["model"] - v - 0.06,
                    "high": values["model"] - v + 0.06,
                }
                for c in COUNTS
            }
            for row, v in values.items()
            if row != "model"
        },
    }


VALUES = {"model": 0.8, "untrained": 0.7, "raw_pixels": 0.85, "border": 0.6, "metadata": 0.9}
SIDE = {
    "images": 40,
    "patients": 30,
    "positive_images": 22,
    "negative_images": 18,
    "positive_patients": 16,
    "negative_patients": 14,
    "ambiguous_images_left_out": 0,
}
RESULTS = {
    "schema": "cxr_foundation.transfer.classify/2",
    "created": "2026-01-02T03:04:05+00:00",
    "command": "cxr transfer classify data",
    "versions": {"python": "3.11.0"},
    "model": {
        "name": "cxr_toy.blocks",
        "architecture": "resnet18",
        "contract": {"channels": 1, "size": [64, 64], "resize": None},
        "sha256": "ab" * 32,
        "may_have_seen": None,
    },
    "data": {"name": "toys", "images": 70, "digest": "cd" * 32},
    "leaks": {"allowed": False, "tasks": {}},
    "seen": [],
    "protocol": {
        "mode": "probe",
        "features": "pooled",
        "test_was_read": False,
        "statement": ["Nothing is tuned.", "Every patient once."],
    },
    "tasks": [
        {
            "name": "toy",
            "title": "Toy",
            "positive": "blob",
            "negative": "normal",
            "averaged": True,
            "note": "Drawn.",
            "train": SIDE,
            "test": SIDE,
            **tables(VALUES),
        }
    ],
    "mean": None,
}


class Page(HTMLParser):
    """Tags, attributes and text, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def page():
    return Page(render(RESULTS))


def test_nothing_is_loaded_from_outside(page):
    text = render(RESULTS)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"https?:|@import|url\(", text)
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(sources) == 1
    assert all(s.startswith("data:image/png;base64,") for s in sources)


def test_figures_are_png_pictures(page):
    (source,) = [value for name, value in page.attributes if name == "src"]
    assert base64.b64decode(source.partition(",")[2])[:8] == b"\x89PNG\r\n\x1a\n"


def test_every_text_of_the_results_is_escaped():
    evil = '<script>alert("x")</script>&$\\frac'

    def poison(value):
        if isinstance(value, dict):
            return {key: poison(v) if key not in KEEP else v for key, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return evil if isinstance(value, str) else value

    KEEP = {"rows", "differences", "mode", "train", "test"}
    poisoned = poison(copy.deepcopy(RESULTS))
    page = Page(render(poisoned))
    assert "script" not in page.tags
    assert evil in page.text


def test_it_warns_that_it_is_not_for_clinical_use(page):
    assert "Illustration, not for clinical use." in page.text


def test_it_says_whether_the_test_split_was_read(page):
    assert "the test split was not read" in page.text
    read = copy.deepcopy(RESULTS)
    read["protocol"]["test_was_read"] = True
    assert "The test split was read for this report." in Page(render(read)).text


def test_tables_hold_every_row_with_mean_sd_and_interval(page):
    for title in ROW_TITLES.values():
        assert title in page.words
    assert ".800 ± .012" in page.words
    assert ".700 to .850" in page.words


def test_differences_are_signed_and_coloured_where_the_interval_leaves_out_zero(page):
    assert "+.100" in page.words and "−.050" in page.words
    assert "+.040 to +.160" in page.words
    cells = [value for name, value in page.attributes if name == "class"]
    # untrained and border are exceeded, metadata is not, raw pixels is open: at two counts each.
    assert cells.count("above") == 4
    assert cells.count("below") == 2


def test_shortcuts_that_win_are_named(page):
    assert (
        "5: gains over untrained twin, border only; "
        "does not exceed raw pixels, 32 × 32, metadata only."
    ) in page.text


def test_the_mean_over_tasks_comes_first_and_names_its_tasks():
    results = {**RESULTS, "mean": tables({**VALUES, "model": 0.95})}
    text = Page(render(results)).text
    assert text.index("Mean over tasks") < text.index("Positive: blob")
    assert "Over: Toy." in text
    assert "gains over every row" not in text
    assert "does not exceed" not in text[: text.index("Positive: blob")]


def test_protocol_and_provenance_are_printed(page):
    for words in (
        "Nothing is tuned.",
        "cxr transfer classify data",
        "ab" * 32,
        "cd" * 32,
        "python 3.11.0",
        "channels 1, size [64, 64]",
        "not stated",
    ):
        assert words in page.text


def test_the_same_results_give_the_same_page():
    assert render(RESULTS) == render(copy.deepcopy(RESULTS))
