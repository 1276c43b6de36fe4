"""What a run's watch saw → report.html, one file that needs nothing else.

It is drawn from what lies in the run's folder (`watch.SEEN` of each stage), so that a run that is
cut off and resumed tells its whole story. It names no file, no patient and nothing of a header.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxr_foundation import page
from cxr_foundation.errors import MissingExtra
from cxr_foundation.files import atomic_write
from cxr_foundation.pretrain.method import methods
from cxr_foundation.pretrain.recipe import Recipe
from cxr_foundation.pretrain.watch import PICTURES, SEEN

__all__ = ["About", "require_matplotlib", "write"]

_TITLES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "feature_std": "spread of features (1 fills the sphere, 0 is collapse)",
    "effective_rank": "effective rank of one batch's features",
    "images_per_second": "radiographs per second",
    "gpu_busy": "share of the time that the GPU is busy",
    "grad_norm": "norm of the gradient",
    "epoch": "epoch",
}
# Panels of a stage's figure, besides that of the labelled radiographs.
_PANELS = ("loss", "learning_rate", "feature_std", "effective_rank", "images_per_second")
# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
_SCORES = ("knn_", "probe_")
_NOT_A_FIGURE = {"step", "epoch", "train_loss", "train_runtime", "total_flos"} | {
    f"train_{what}_per_second" for what in ("samples", "steps")
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What a report says of a run beside its curves.

    Attributes:
        images: Radiographs of each stage.
        digests: Of their bytes, one for each stage.
        versions: Of the libraries, by name.
        hardware: Device, in words.
    """

    images: Sequence[int]
    digests: Sequence[str]
    versions: Mapping[str, str]
    hardware: str


def require_matplotlib() -> None:
    """Say early that matplotlib is missing.

    Raises:
        MissingExtra: It is.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "matplotlib",
            "is not installed, and the report's figures need it",
            'Run pip install "cxr-foundation-hub[train]".',
        ) from error


def write(path: Path, recipe: Recipe, about: About, *, stages: Sequence[Path]) -> None:
    """Write the report of a run, whole or not at all.

    Args:
        path: The HTML file; one that is there is replaced.
        recipe: Of the run.
        about: What else is said.
        stages: The folder of each stage; one that has not begun yet need not be there.

    Raises:
        OutputFailed: The disk is full or not writable.
        MissingExtra: matplotlib is not installed.
    """
    require_matplotlib()
    parts = [_head(recipe, about)]
    for number, folder in enumerate(stages):
        parts.append(_stage(recipe, number, folder))
    parts.append(_provenance(recipe, about))
    html = page.document(f"Pretraining: {recipe.name}", parts)
    with atomic_write(path) as file:
        file.write_text(html, encoding="utf-8")


def _head(recipe: Recipe, about: About) -> str:
    lineage = " → ".join(methods()[stage.method].title for stage in recipe.stages)
    return (
        f"<h1>Pretraining run {page.text(recipe.name)}</h1>"
        f'<p class="lead">{page.text(recipe.encoder.architecture)}, {page.text(lineage)}, '
        f"on {page.text(about.hardware)}.</p>"
        '<p class="warning"><strong>Not for clinical use.</strong> Figures on labelled radiographs '
        "are of the development part and show whether training goes on well; they are no result."
        "</p>"
    )


def _stage(recipe: Recipe, number: int, folder: Path) -> str:
    stage = recipe.stages[number]
    title = f"{number + 1}. {methods()[stage.method].title}"
    seen = _seen(folder)
    if seen is None:
        return f'<h2>{page.text(title)}</h2><p class="note">Not begun.</p>'
    lines: list[dict[str, float]] = seen["lines"]
    done = max((line["step"] for line in lines), default=0)
    parts = [
        f"<h2>{page.text(title)}</h2>",
        f'<p class="note">{done:,} of {seen["steps"]:,} steps of {stage.train.batch} radiographs; '
        f"{stage.train.epochs} epochs are planned.</p>",
    ]
    if seen["stopped"]:
        parts.append(
            f'<p class="warning"><strong>Stopped.</strong> {page.text(seen["stopped"])}.</p>'
        )
    if any(name in _PANELS or name.startswith(_SCORES) for line in lines for name in line):
        parts.append(
            page.image(_curves(lines, seen["steps"]), alt=f"Curves over the steps of {title}")
        )
    if seen["left_out"]:
        reasons = "; ".join(f"{task}: {why}" for task, why in seen["left_out"].items())
        parts.append(f'<p class="note">Not scored: {page.text(reasons)}.</p>')
    parts.append(_figures(lines))
    if (folder / PICTURES).exists():
        columns = ", ".join(seen["columns"])
        parts.append(
            f"<h3>What it is asked and answers</h3>"
            f'<p class="note">From left to right: {page.text(columns)}. One row for each '
            "radiograph, always the same views. Radiographs with letters in their pixels are left "
            "out.</p>" + page.image((folder / PICTURES).read_bytes(), alt=f"{title}: {columns}")
        )
    return "\n".join(parts)


def _seen(folder: Path) -> dict[str, Any] | None:
    try:
        seen: dict[str, Any] = json.loads((folder / SEEN).read_text())
    except (OSError, ValueError):
        return None
    return seen


def _figures(lines: Sequence[Mapping[str, float]]) -> str:
    """First, lowest, highest and last value of all that was logged."""
    values: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in _NOT_A_FIGURE:
                values.setdefault(name, []).append(value)
    rows = [
        (_title(name), *(f"{v:.4g}" for v in (seen[0], min(seen), max(seen), seen[-1])))
        for name, seen in values.items()
    ]
    return page.table(("", "first", "lowest", "highest", "last"), rows) if rows else ""


def _title(name: str) -> str:
    for mode, words in zip(_SCORES, ("nearest neighbours", "linear probe"), strict=True):
        if name.startswith(mode):
            task = name.removeprefix(mode)
            return f"dev AUROC, {words}: {'mean over tasks' if task == 'mean' else task}"
    return _TITLES.get(name, name)


def _curves(lines: Sequence[Mapping[str, float]], steps: int) -> bytes:
    """A panel for each figure over all planned steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = sorted({name for line in lines for name in line if name.startswith(_SCORES)})
    panels = [p for p in _PANELS if any(p in line for line in lines)]
    rows = -(-(len(panels) + bool(scores)) // 2)
    figure = Figure(figsize=(8.6, 2.5 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, place)
        _line(axes, lines, panel, colour=_COLOURS[0])
        _dress(axes, _TITLES[panel], steps)
    if scores:
        axes = figure.add_subplot(rows, 2, len(panels) + 1)
        # Without the mean where it is the only task.
        shown = [s for s in scores if len(scores) != 2 or not s.endswith("_mean")]
        for i, name in enumerate(shown):
            task = name.partition("_")[2]
            width = 2.4 if task == "mean" else 1.4
            colour = _COLOURS[i % len(_COLOURS)]
            _line(axes, lines, name, colour=colour, label=task, width=width, marker="o")
        axes.axhline(0.5, color="#999999", linewidth=1)
        axes.legend(fontsize=7, frameon=False)
        _dress(axes, "dev AUROC with few labels", steps)
    buffer = io.BytesIO()
    # Without its own metadata the picture is the same bytes for the same numbers.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _line(
    axes: Any,
    lines: Sequence[Mapping[str, float]],
    name: str,
    *,
    colour: str,
    label: str | None = None,
    width: float = 1.6,
    marker: str = "",
) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    # A single point would not be seen as a line.
    marker = marker or ("o" if len(points) == 1 else "")
    axes.plot(
        [step for step, _ in points],
        [value for _, value in points],
        color=colour,
        label=label,
        linewidth=width,
        marker=marker,
        markersize=4,
    )


def _dress(axes: Any, title: str, steps: int) -> None:
    axes.set_xlim(-0.02 * steps, 1.02 * steps)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e2e2e2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _provenance(recipe: Recipe, about: About) -> str:
    entries = {
        f"Stage {number + 1}": f"{images:,} radiographs; SHA-256 over the files' digests {digest}"
        for number, (images, digest) in enumerate(zip(about.images, about.digests, strict=True))
    }
    entries["Machine"] = about.hardware
    entries["Versions"] = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    as_yaml = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=90)
    return (
        f"<h2>Where it comes from</h2>{page.definitions(entries)}"
        f"<details><summary>Recipe</summary><pre><code>{page.text(as_yaml)}</code></pre></details>"
    )
