"""`cxr demo`: the main job on what ships inside the package, without a network."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_foundation.transfer.report import ROW_TITLES, Picture

__all__ = ["MODEL", "RADIOGRAPHS", "Demo", "run"]

MODEL = "cxr_resnet18.moco_open"
RADIOGRAPHS = Path(__file__).parent / "radiographs"
# Ten patients per class are there to draw from: at ten, all draws are one.
COUNTS = (5, 10)
SHOWN = "5"
RESAMPLES = 500
WARNING = "An illustration on few radiographs; not for clinical use."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo found.

    Attributes:
        results: As `cxr transfer classify` writes them to results.json.
        cosine: Between the DICOM phantom's embedding and the card's golden one.
        seconds: Wall time.
        folder: Where report.html and the pictures are.
    """

    results: Mapping[str, Any]
    cosine: float
    seconds: float
    folder: Path

    def table(self) -> str:
        """AUROC per row and number of labels, as text."""
        count = SHOWN
        blocks = [*self.results["tasks"], {**self.results["mean"], "title": "mean of the three"}]
        lines = [f"AUROC with {count} labelled patients per class (probe, mean over draws)", ""]
        lines.append(" " * 24 + "".join(f"{b['title'].split(':')[0]:>22}" for b in blocks))
        for row, title in ROW_TITLES.items():
            values = [b["rows"][row][count]["auroc"] for b in blocks]
            lines.append(f"{title:24}" + "".join(f"{v:22.3f}" for v in values))
        gain = self.results["mean"]["differences"]["untrained"][count]
        lines += [
            "",
            f"{MODEL} beyond its untrained twin, mean of the three: {gain['estimate']:+.3f} "
            f"(95 % interval {gain['low']:+.3f} to {gain['high']:+.3f})",
            f"DICOM phantom against the card's golden embedding: cosine {self.cosine:.6f}",
            f"{self.seconds:.0f} s; see {self.folder / 'report.html'}",
            WARNING,
        ]
        return "\n".join(lines)


def run(out: str | Path = "cxr-demo", *, progress: bool = False) -> Demo:
    """Load, embed and compare on bundled radiographs; write a report and pictures.

    Args:
        out: Folder for report.html, results.json, saliency.png and neighbours.png; it must not
            exist.
        progress: Show bars.

    Returns:
        The figures, with a table as text.

    Raises:
        OutputExists: `out` is there.
        MissingExtra: The extra `demo` is not installed.
    """
    from cxr_foundation.evaluate import protocol
    from cxr_foundation.transfer import classify

    start = time.monotonic()
    cosines = []

    def illustrate(folder: Path) -> list[Picture]:
        pictures, cosine = _draw(folder)
        cosines.append(cosine)
        return pictures

    folder = classify.run(
        RADIOGRAPHS,
        model=MODEL,
        output=out,
        tasks=[task for task in protocol.standing_tasks() if task.averaged],
        counts=COUNTS,
        resamples=RESAMPLES,
        split_train="dev",
        split_test="test",
        command=f"cxr demo --out {out}",
        illustrate=illustrate,
        progress=progress,
    )
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    seconds = time.monotonic() - start
    return Demo(results=results, cosine=cosines[0], seconds=seconds, folder=folder)


def _draw(folder: Path) -> tuple[list[Picture], float]:
    """The two pictures, and how near the DICOM phantom comes to the golden embedding."""
    import timm

    from cxr_foundation import catalog, data
    from cxr_foundation.demo import figures
    from cxr_foundation.evaluate import probe
    from cxr_foundation.models.embed import embed
    from cxr_foundation.models.loading import processor

    encoder = timm.create_model(MODEL, pretrained=True).eval()
    prepare = processor(MODEL)
    phantom = embed(encoder, prepare, [RADIOGRAPHS / "phantom.dcm"])[0]
    golden = catalog.checkpoint(MODEL).golden
    cosine = _cosine(phantom, np.asarray(golden.embedding)) if golden else float("nan")

    studies = [s for s in data.read_index(RADIOGRAPHS) if s.source == "shenzhen"]
    sides = {side: [s for s in studies if s.split == side] for side in ("dev", "test")}
    embedded = {
        side: embed(encoder, prepare, [s.path for s in group]) for side, group in sides.items()
    }
    tuberculous = [int("tb" in s.labels) for s in sides["dev"]]
    # A probe is linear: its weights are what it says of the unit vectors, less what it says of 0.
    width = len(phantom)
    unit = np.vstack([np.zeros(width), np.eye(width)])
    scores = probe.probe_scores(unit, embedded["dev"], tuberculous, strength=probe.STRENGTH)
    names = ["tuberculosis" if "tb" in s.labels else "normal" for s in sides["test"]]
    shown = [i for label in ("tuberculosis", "normal") for i in _first(names, label, 3)]
    pictures = [s.pixels() for s in sides["test"]]
    activations = figures.class_activation(
        encoder,
        prepare([sides["test"][i].path for i in shown])["pixel_values"],
        scores[1:] - scores[0],
    )
    figures.saliency_figure(
        [pictures[i] for i in shown],
        activations,
        [names[i] for i in shown],
        folder / "saliency.png",
    )
    queries = [i for label in ("tuberculosis", "normal") for i in _first(names, label, 2)]
    figures.neighbours_figure(pictures, embedded["test"], names, queries, folder / "neighbours.png")
    saliency = Picture(
        title="Where the probe looks",
        caption="Six radiographs that the probe was not fitted on (Shenzhen), and below them what "
        "each place adds to the log-odds of tuberculosis. The map is coarse: five by five places. "
        "A probe that looks outside the lungs has found a shortcut.",
        png=(folder / "saliency.png").read_bytes(),
    )
    neighbours = Picture(
        title="Nearest neighbours",
        caption="Each query and its five nearest of the scored Shenzhen radiographs, by cosine "
        "similarity of the centred embeddings.",
        png=(folder / "neighbours.png").read_bytes(),
    )
    return [saliency, neighbours], cosine


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _first(names: list[str], label: str, count: int) -> list[int]:
    return [i for i, name in enumerate(names) if name == label][:count]
