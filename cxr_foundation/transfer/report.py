"""results.json → one HTML file that needs nothing else: no script, no font, no host."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_foundation import page
from cxr_foundation.errors import MissingExtra

__all__ = ["ROW_TITLES", "Picture", "render", "require_matplotlib"]

ROW_TITLES = {
    "model": "this encoder",
    "untrained": "untrained twin",
    "raw_pixels": "raw pixels, 32 × 32",
    "border": "border only",
    "metadata": "metadata only",
}
"""Rows of every table, in their order. Words without markup: they also stand in figures."""

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), told apart by colour-blind readers.
_STYLES: dict[str, dict[str, Any]] = {
    "model": {"color": "#0072B2", "marker": "o", "linewidth": 2.4, "linestyle": "-"},
    "untrained": {"color": "#D55E00", "marker": "s", "linewidth": 1.6, "linestyle": "-"},
    "raw_pixels": {"color": "#009E73", "marker": "^", "linewidth": 1.6, "linestyle": "--"},
    "border": {"color": "#CC79A7", "marker": "D", "linewidth": 1.6, "linestyle": "--"},
    "metadata": {"color": "#555555", "marker": "v", "linewidth": 1.6, "linestyle": ":"},
}


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
            "pip install 'cxr-foundation-hub[transfer]'",
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure that a caller adds to the report.

    Attributes:
        title: Its heading.
        caption: What it shows, in sentences.
        png: The file's bytes.
    """

    title: str
    caption: str
    png: bytes


def render(results: Mapping[str, Any], *, pictures: Sequence[Picture] = ()) -> str:
    """The report of one run.

    Args:
        results: What results.json holds; `cxr_foundation.transfer` describes it.
        pictures: Figures between the mean and the tasks.

    Returns:
        A whole HTML document; every text of `results` is escaped.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require_matplotlib()
    parts = [_head(results)]
    if results["mean"] is not None:
        names = ", ".join(t["title"] for t in results["tasks"] if t["averaged"])
        parts.append(_section("Mean over tasks", f"Over: {names}.", results["mean"], results))
    parts += [_picture(picture) for picture in pictures]
    for task in results["tasks"]:
        parts.append(_section(task["title"], _task_note(task), task, results))
    parts += [_protocol(results), _provenance(results)]
    return page.document(f"Few-label classification: {results['model']['name']}", parts)


def _picture(picture: Picture) -> str:
    return (
        f"<h2>{page.text(picture.title)}</h2><p>{page.text(picture.caption)}</p>"
        f"{page.image(picture.png, alt=picture.title)}"
    )


def _head(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    mode = {"probe": "linear probe", "knn": "nearest neighbours"}[protocol["mode"]]
    read = (
        "The test split was read for this report."
        if protocol["test_was_read"]
        else "Scored on the development split; the test split was not read."
    )
    seen = sorted({s["source"] for s in results["seen"] if s["verdict"] in ("seen", "maybe")})
    apart = (
        '<p class="warning"><strong>Not external data.</strong> By its card the encoder may have '
        f"been pretrained on radiographs of: {page.text(', '.join(seen))}. Rank it apart from "
        "encoders that have not.</p>"
        if seen
        else ""
    )
    return (
        f"<h1>Few-label classification with {page.text(results['model']['name'])}</h1>"
        f'<p class="lead">Frozen features, {mode}. {read} {page.text(results["created"][:10])}.</p>'
        '<p class="warning"><strong>Illustration, not for clinical use.</strong> These figures '
        "compare features on small research data sets. They say nothing about the accuracy of a "
        "diagnosis, and a gain counts only where it exceeds every shortcut row.</p>" + apart
    )


def _task_note(task: Mapping[str, Any]) -> str:
    test, train = task["test"], task["train"]
    shown = "" if task["averaged"] else " Shown, not averaged."
    negative = task["negative"] or f"{task['positive']} stated as absent"
    return (
        f"Positive: {task['positive']}; negative: {negative}. "
        f"Labelled side: {train['positive_patients']} and {train['negative_patients']} patients; "
        f"scored: {test['positive_images']} and {test['negative_images']} images of "
        f"{test['patients']} patients. {task['note']}{shown}"
    )


def _section(title: str, note: str, scored: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    rows, differences = scored["rows"], scored["differences"]
    counts = list(rows["model"])
    columns = [_column(count, scored) for count in counts]
    figure = _figure(rows, counts, columns)
    return (
        f'<h2>{page.text(title)}</h2><p class="note">{page.text(note)}</p>'
        f'<img alt="AUROC against labelled patients per class, {page.text(title)}" '
        f'src="data:image/png;base64,{figure}">'
        + _table(
            "AUROC (mean over draws), SD over draws, 95 % interval",
            [(ROW_TITLES[row], [_score_cell(rows[row][c]) for c in counts]) for row in rows],
            columns,
        )
        + _table(
            "AUROC of this encoder minus AUROC of the row, paired 95 % interval; "
            "green or red where the interval leaves out 0",
            [
                (f"− {ROW_TITLES[row]}", [_difference_cell(cells[c]) for c in counts])
                for row, cells in differences.items()
            ],
            columns,
        )
        + _verdict(differences, counts, columns)
    )


def _column(count: str, scored: Mapping[str, Any]) -> str:
    if count != "all" or "train" not in scored:
        return count
    train = scored["train"]
    return f"all ({train['positive_patients']}, {train['negative_patients']})"


def _table(caption: str, rows: Sequence[tuple[str, Sequence[str]]], columns: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{page.text(c)}</th>' for c in columns)
    body = "".join(
        f'<tr><td scope="row">{page.text(name)}</td>{"".join(cells)}</tr>' for name, cells in rows
    )
    return (
        f'<div class="wide"><table><caption>{page.text(caption)}</caption><thead><tr>'
        f'<th scope="col">labelled patients per class</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _score_cell(cell: Mapping[str, Any]) -> str:
    spread = f" ± {_decimal(cell['sd'])}" if cell["sd"] is not None else ""
    interval = f"{_decimal(cell['low'])} to {_decimal(cell['high'])}"
    return f"<td>{_decimal(cell['auroc'])}{spread}<small>{interval}</small></td>"


def _difference_cell(cell: Mapping[str, Any]) -> str:
    kind = "above" if cell["low"] > 0 else "below" if cell["high"] < 0 else ""
    interval = f"{_signed(cell['low'])} to {_signed(cell['high'])}"
    return f'<td class="{kind}">{_signed(cell["estimate"])}<small>{interval}</small></td>'


def _decimal(value: float) -> str:
    """The convention of the field: three decimals, no zero in front of the point."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def _signed(value: float) -> str:
    sign = "−" if round(value, 3) < 0 else "+" if round(value, 3) > 0 else ""
    return sign + _decimal(abs(value))


def _verdict(differences: Mapping[str, Any], counts: Sequence[str], columns: Sequence[str]) -> str:
    """Per label count: over which rows the encoder gains, and which it does not exceed."""
    sentences = []
    for count, column in zip(counts, columns, strict=True):
        gains = [ROW_TITLES[r] for r, cells in differences.items() if cells[count]["low"] > 0]
        lost = [ROW_TITLES[r] for r, cells in differences.items() if cells[count]["estimate"] <= 0]
        if len(gains) == len(differences):
            text = "gains over every row"
        else:
            text = f"gains over {', '.join(gains)}" if gains else "gains over no row"
        if lost:
            text += f"; does not exceed {', '.join(lost)}"
        sentences.append(f"<li>{page.text(f'{column}: {text}.')}</li>")
    lead = "A gain is a difference whose interval lies above 0. Per number of labels, this encoder:"
    return f"<p>{lead}</p><ul>{''.join(sentences)}</ul>"


def _figure(rows: Mapping[str, Any], counts: Sequence[str], columns: Sequence[str]) -> str:
    """AUROC against label count, one line per row, as base64 of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.8, 4.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = list(range(len(counts)))
    for row, cells in rows.items():
        values = [cells[count]["auroc"] for count in counts]
        axes.plot(places, values, label=ROW_TITLES[row], markersize=6, **_STYLES[row])
    model = [rows["model"][count] for count in counts]
    low, high = [c["low"] for c in model], [c["high"] for c in model]
    # Bars, not a band: between two numbers of labels nothing was measured.
    centre = [c["auroc"] for c in model]
    error = [[m - a for m, a in zip(centre, low, strict=True)]]
    error.append([b - m for m, b in zip(centre, high, strict=True)])
    axes.errorbar(
        places, centre, yerr=[[max(e, 0) for e in side] for side in error], fmt="none",
        ecolor=_STYLES["model"]["color"], elinewidth=1.2, capsize=4,
    )  # fmt: skip
    axes.axhline(0.5, color="#999999", linewidth=1)
    axes.annotate("chance", (0, 0.5), xytext=(-28, 3), textcoords="offset points", fontsize=9,
                  color="#666666")  # fmt: skip
    axes.set_xticks(places, columns)
    axes.set_xlim(-0.35, len(places) - 0.65)
    axes.set_xlabel("labelled patients per class", fontsize=11)
    axes.set_ylabel("AUROC", fontsize=11)
    axes.grid(axis="y", color="#e2e2e2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=10)
    buffer = io.BytesIO()
    # Without its own metadata the picture is the same bytes for the same numbers.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _protocol(results: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{page.text(line)}</li>" for line in results["protocol"]["statement"])
    return f"<h2>Protocol</h2><ul>{items}</ul>"


def _provenance(results: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    model, data = results["model"], results["data"]
    contract = ", ".join(f"{k} {v}" for k, v in model["contract"].items() if v is not None)
    entries = {
        "Command": f"<code>{page.text(results['command'])}</code>",
        "Encoder": f"{page.text(model['name'])}, {page.text(model['architecture'])}",
        "Its input": page.text(contract),
        "Radiographs in its pretraining, by its card": page.text(
            "; ".join(model["may_have_seen"]) if model["may_have_seen"] else "not stated"
        ),
        "The scored data and its pretraining": page.text(
            "; ".join(f"{s['source'] or 'unknown origin'}: {s['reason']}" for s in results["seen"])
        ),
        "Its weights, SHA-256": f"<code>{page.text(model['sha256'] or 'not recorded')}</code>",
        "Data": f"{page.text(data['name'])}, {data['images']:,} images embedded; digest "
        f"<code>{page.text(data['digest'])}</code>",
        "Versions": page.text(versions),
        "All numbers": "results.json beside this file: every draw, interval and seed",
    }
    body = "".join(f"<dt>{page.text(name)}</dt><dd>{value}</dd>" for name, value in entries.items())
    return f"<h2>Where it comes from</h2><dl>{body}</dl>"
