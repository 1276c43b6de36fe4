"""Every layout: recognised by its keys, converted whole, with the features of the original.

`python tests/test_layouts.py` prints the table of docs/layouts.md.
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
def test_plain_timm_gives_the_features_of_the_original(tmp_path, name):
    error, converted = error_of(STANDINS[name], tmp_path)
    assert error < 1e-5
    report = converted.report
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


@pytest.mark.parametrize("name", sorted(STANDINS))
def test_each_checkpoint_is_recognised_by_one_layout(tmp_path, name):
    standin = STANDINS[name]
    standin.write(tmp_path / "checkpoint", standin.cases[0])
    shapes = read(tmp_path / "checkpoint").tensors.shapes
    assert [n for n, layout in layouts.items() if layout.recognises(shapes)] == [standin.layout]


def test_every_layout_has_a_stand_in_of_the_kind_that_it_says():
    assert {s.layout for s in STANDINS.values()} == set(layouts)
    for standin in STANDINS.values():
        if layouts[standin.layout].proof is None:
            assert standin.truth.startswith("keys/"), standin.name


def table(folder: Path) -> list[str]:
    """Markdown: every stand-in with its network, where its names come from and the error."""
    rows = ["| layout | written with | network | tensors used, dropped | error |", "|-|-|-|-|-|"]
    for standin in sorted(STANDINS.values(), key=lambda s: (s.layout, s.name)):
        for index, case in enumerate(standin.cases):
            error, converted = error_of(standin, folder, index)
            report = converted.report
            dropped = listed(tuple(f"{n} {r}" for r, n in report.dropped.items()), 9) or "none"
            args = ", ".join(f"{k}={v}" for k, v in case.args.items())
            truth = f"[{standin.truth}](../tests/wild/{standin.truth})"
            truth = truth if standin.truth.startswith("keys/") else standin.truth
            rows.append(
                f"| {standin.layout} | {truth} | {case.network} ({args}) "
                f"| {report.used}; {dropped} | {error:.1e} |"
            )
    return rows


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print("\n".join(table(Path(scratch))))
