"""One HTML file that needs nothing else: no script, no font, no host. Standard library only."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

__all__ = ["definitions", "document", "image", "table", "text"]

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 980px; padding: 24px 20px 60px; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 40px 0 6px; padding-top: 14px; border-top: 1px solid #d0d0d0; }
h3 { font-size: 16px; margin: 22px 0 4px; }
p { margin: 6px 0 10px; }
.lead { color: #444; }
.warning { border: 1px solid #b45309; border-left-width: 6px; background: #fffaf0;
  padding: 8px 14px; margin: 16px 0; }
.note { color: #444; font-size: 15px; }
img { display: block; width: 100%; max-width: 780px; height: auto; margin: 10px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums;
  margin: 8px 0 4px; }
caption { text-align: left; color: #444; padding: 4px 0; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding: 5px 20px 5px 0; }
thead th { border-bottom: 2px solid #888; }
ul { margin: 4px 0 10px; padding-left: 22px; }
td small { color: #555; display: block; font-size: 12.5px; }
td.above { background: #e6f4ea; } td.below { background: #fdecea; }
code { font: 13.5px/1.4 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
pre { overflow-x: auto; background: #f6f6f6; padding: 10px 14px; }
dt { font-weight: 600; margin-top: 8px; } dd { margin: 0 0 0 18px; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } }
"""
# A reader's browser is to fetch nothing, whatever got into the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, parts: Sequence[str]) -> str:
    """A whole HTML document.

    Args:
        title: Plain text.
        parts: HTML, one after the other.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def text(value: object) -> str:
    """A value as text that is no markup."""
    return html.escape(str(value), quote=True)


def image(png: bytes, *, alt: str) -> str:
    """A picture inside the page.

    Args:
        png: The file's bytes.
        alt: What it shows, in words.
    """
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{data}">'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """A table of plain texts; the first column names the rows."""
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    titled = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{titled}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def definitions(entries: Mapping[str, str]) -> str:
    """Names and their plain texts, one below the other."""
    body = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in entries.items())
    return f"<dl>{body}</dl>"
