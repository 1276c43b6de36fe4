"""An experiment's results as a table, a curve and a page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from cxr_foundation import page as html

__all__ = ["figure", "page", "table"]

_NOTE = (
    "AUROC, mean over label draws and seeds, with 95 % intervals of a bootstrap over patients and "
    "draws; seeds are averaged, not resampled. In brackets the paired difference to {against}."
)


def table(results: Mapping[str, Any]) -> str:
    """Markdown: one table for the mean, if there is one, and one for each task."""
    title = results["experiment"]["title"]
    lines = [f"# {title}", "", results["experiment"]["question"].strip(), "", _note(results), ""]
    lines += [f"    {results['command']}", ""]
    for group, rows in _groups(results):
        columns = list(next(iter(rows.values())))
        head = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"## {group}", "", *head]
        for row, cells in rows.items():
            lines.append(f"| {_title(results, row)} | {' | '.join(map(_cell, cells.values()))} |")
        lines.append("")
    lines += [f"- {name}: {reason}." for name, reason in results["not_testable"].items()]
    return "\n".join(lines).rstrip() + "\n"


def figure(results: Mapping[str, Any]) -> bytes:
    """AUROC against labelled patients per class, one line for each row: a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.8, 4.3), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    _, rows = next(iter(_groups(results)))
    for row, cells in rows.items():
        values = list(cells.values())
        centre = [cell["estimate"] for cell in values]
        errors = [
            [max(0.0, cell["estimate"] - cell["low"]) for cell in values],
            [max(0.0, cell["high"] - cell["estimate"]) for cell in values],
        ]
        style = "--" if row == "raw_pixels" else "-"
        axes.errorbar(
            range(len(values)),
            centre,
            yerr=errors,
            label=_title(results, row),
            marker="o",
            markersize=4,
            linestyle=style,
            linewidth=1.4,
            elinewidth=0.7,
            capsize=2,
        )
    axes.set_xticks(range(len(values)), list(cells))
    axes.set_xlabel("labelled patients per class")
    axes.set_ylabel("AUROC")
    axes.grid(axis="y", color="#e2e2e2")
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right center", frameon=False, fontsize=9)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def page(results: Mapping[str, Any], curve: bytes) -> str:
    """The report: one file that loads nothing from outside."""
    about = results["experiment"]
    parts = [
        f"<h1>{html.text(about['title'])}</h1>",
        f'<p class="lead">{html.text(about["question"].strip())}</p>',
        html.image(curve, alt="AUROC against labelled patients per class"),
        f"<p>{html.text(_note(results))}</p>",
    ]
    for group, rows in _groups(results):
        columns = list(next(iter(rows.values())))
        body = [[_title(results, r), *map(_cell, cells.values())] for r, cells in rows.items()]
        parts.append(html.table(["", *columns], body, caption=group))
    parts += [
        f"<p>{html.text(name)}: {html.text(reason)}.</p>"
        for name, reason in results["not_testable"].items()
    ]
    settings = {**results["protocol"], "overrides": results["overrides"]}
    shown = {key: str(value) for key, value in settings.items()}
    parts.append(html.definitions({"command": results["command"], **shown}))
    return html.document(about["title"], parts)


def _groups(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The mean first."""
    groups = results["rows"].items()
    return sorted(groups, key=lambda group: group[0] != "mean")


def _note(results: Mapping[str, Any]) -> str:
    return _NOTE.format(against=_title(results, results["experiment"]["against"]))


def _title(results: Mapping[str, Any], row: str) -> str:
    return str(results["experiment"]["arms"].get(row, "raw pixels, 32 × 32"))


def _cell(cell: Mapping[str, Any]) -> str:
    text = f"{_short(cell['estimate'])} ({_short(cell['low'])} to {_short(cell['high'])})"
    if "difference" in cell:
        gain = cell["difference"]
        text += f" [{gain['estimate']:+.3f}, {gain['low']:+.3f} to {gain['high']:+.3f}]"
    return text


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
