"""The page of a site's report: one HTML file, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["html"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #8884; } td.n { text-align: right; }
.lead { font-size: 1.1rem; } .grid { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.note { color: #777; }
"""
_TITLES = {
    "syntax": "Transfer syntax",
    "sop_class": "Storage class",
    "modality": "Modality",
    "intent": "Presentation intent",
    "body_part": "Body part",
    "view": "View position",
    "photometric": "Photometric interpretation",
    "lut_shape": "Presentation LUT shape",
    "bits": "Bits stored",
    "burned_in": "Burned-in annotation, by the header",
    "spacing_of": "Pixel spacing is stated as",
    "manufacturer": "Manufacturer",
    "model": "Model",
}


def html(summary: Mapping[str, Any]) -> str:
    """The report as HTML.

    Args:
        summary: As `site.survey` makes it, see report.json.
    """
    files = summary["files"]
    facts = "".join(
        _table(_TITLES[name], counts) for name, counts in summary["facts"].items() if counts
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Check of a site's radiographs</title><style>{_STYLE}</style></head><body>"
        "<h1>Check of a site's radiographs</h1>"
        f'<p class="lead">{files["seen"]:,} files: {files["read"]:,} read, '
        f"{files['refused']:,} refused; {files['passed_over']:,} others passed over. "
        f"{files['lossy']:,} were compressed with loss.</p>"
        '<p class="note">No file is named here: a number is that of a line of files.jsonl, which '
        "stays with the site. Of headers an allow-list is shown, each value by a fixed "
        "vocabulary. Letters in pixels are looked for, and not always found.</p>"
        + _notices(summary)
        + _duplicates(summary["duplicates"], summary["near_duplicates"])
        + "<h2>Refused</h2>"
        + (_table("", summary["refused"]) or "<p>None.</p>")
        + '<h2>What the headers say</h2><div class="grid">'
        + (facts or "<p>There is no DICOM file.</p>")
        + _spread("Peak kilovoltage", summary["kvp"])
        + _spread("Row spacing in mm", summary["spacing_mm"])
        + "</div><h2>Pixels</h2>"
        + _table("Width x height, most frequent", summary["size"])
        + "</body></html>\n"
    )


def _notices(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{escape(kind)}</td><td class="n">{count:,}</td>'
        f"<td>{_numbers(summary['examples'][kind], count)}</td></tr>"
        for kind, count in summary["notices"].items()
    )
    if not rows:
        return "<h2>Notices</h2><p>None.</p>"
    head = "<tr><th>What</th><th>Files</th><th>Which</th></tr>"
    return f"<h2>Notices</h2><table>{head}{rows}</table>"


def _numbers(examples: list[int], count: int) -> str:
    more = f" and {count - len(examples):,} more" if count > len(examples) else ""
    return ", ".join(map(str, examples)) + more


def _duplicates(same: Mapping[str, Any], alike: Mapping[str, Any]) -> str:
    said = "No two files have the same pixels."
    if same["files"]:
        pairs = ", ".join(f"{again} is {first}" for first, again in same["examples"])
        said = f"{same['files']:,} files repeat another's pixels: {pairs}."
    if alike["pairs"]:
        pairs = ", ".join(f"{first} and {second}" for first, second in alike["examples"])
        said += f" {alike['pairs']:,} pairs show the same radiograph in other pixels: {pairs}."
    return f"<h2>Duplicates</h2><p>{said}</p>"


def _table(title: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    rows = "".join(
        f'<tr><td>{escape(str(value))}</td><td class="n">{count:,}</td></tr>'
        for value, count in counts.items()
    )
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return f"<table>{caption}{rows}</table>"


def _spread(title: str, found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    rows = "".join(
        f'<tr><td>{escape(name.replace("_", " "))}</td><td class="n">{value:,}</td></tr>'
        for name, value in found.items()
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"
