"""Every layout: recognised by its keys, converted whole, with the features of the original.

`python tests/test_layouts.py > docs/layouts.md` writes the table.
"""

import sys
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS, Standin

from cxr_foundation.convert import convert, layouts, read
from cxr_foundation.convert.report import listed


def error_of(standin: Standin, folder: Path, index: int = 0) -> tuple[float, object]:
    """Relative error of plain timm's features, and what was converted."""
    case = standin.cases[index]
    path = folder / "checkpoint"
    features = standin.write(path, case)
    shapes = read(path).tensors.shapes
    assert [n for n, layout in layouts.items() if layout.recognises(shapes)] == [standin.layout]
    converted = convert(path, takes=standin.takes)
    assert converted.report.layout == standin.layout
    assert (converted.architecture, dict(converted.model_args)) == (case.network, dict(case.args))
    network = timm.create_model(converted.architecture, num_classes=0, **converted.model_args)
    network.load_state_dict(converted.state)
    g = torch.Generator().manual_seed(7)
    pictures = torch.randn(2, case.args["in_chans"], case.size, case.size, generator=g)
    with torch.no_grad():
        found = network.eval()(pictures)
    expected = features(pictures)
    path.unlink()
    assert found.shape == expected.shape
    assert float(expected.std()) > 1e-3
    return float((found - expected).norm() / expected.norm()), converted


@pytest.mark.parametrize("name", sorted(STANDINS))
def test_one_layout_recognises_it_and_plain_timm_gives_the_features_of_the_original(tmp_path, name):
    error, converted = error_of(STANDINS[name], tmp_path)
    assert error < 1e-5
    report = converted.report
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_every_layout_has_a_stand_in_of_the_kind_that_it_says():
    assert {s.layout for s in STANDINS.values()} == set(layouts)
    for standin in STANDINS.values():
        if layouts[standin.layout].proof is None:
            assert standin.truth.startswith("keys/"), standin.name


def test_the_table_has_every_layout_and_stand_in():
    text = (Path(__file__).resolve().parent.parent / "docs" / "layouts.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    expected = [
        f"| {standin.layout} | {_linked(standin.truth)} | {_named(case)} |"
        for standin in _sorted()
        for case in standin.cases
    ]
    assert [row[: len(begin)] for row, begin in zip(rows, expected, strict=True)] == expected


HEAD = """# Checkpoint layouts

`python tests/test_layouts.py > docs/layouts.md` writes this page. Each row is a checkpoint that was
written with random weights, converted, loaded by plain timm and compared with the original network
on random pictures: the error is |timm - original| / |original| of the pooled features.

"Written with" names the package whose own classes made network and file. A link to a list means
that the project has no installable package: names and sizes are from the list, whose head says
where they were read, values from a network of the same definition in the list's order. Those
layouts are **unproven on the authors' files**, and `cxr inspect` says so.
"""


def _sorted():
    return sorted(STANDINS.values(), key=lambda s: (s.layout, s.name))


def _linked(truth):
    return f"[{truth}](../tests/wild/{truth})" if truth.startswith("keys/") else truth


def _named(case):
    return f"{case.network} ({', '.join(f'{k}={v}' for k, v in case.args.items())})"


def table(folder: Path) -> list[str]:
    """Markdown: every stand-in with its network, where its names come from and the error."""
    rows = ["| layout | written with | network | used; dropped by name | error |", "|-|-|-|-|-|"]
    for standin in _sorted():
        for index, case in enumerate(standin.cases):
            error, converted = error_of(standin, folder, index)
            report = converted.report
            dropped = listed(tuple(f"{n} {r}" for r, n in report.dropped.items()), 9) or "none"
            begin = f"| {standin.layout} | {_linked(standin.truth)} | {_named(case)} |"
            rows.append(f"{begin} {report.used}; {dropped} | {error:.1e} |")
    return rows


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print("\n".join([HEAD, *table(Path(scratch))]))
