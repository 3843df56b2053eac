"""Format tables and figures as text and Markdown, and convert the report to one self-contained HTML file."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markdown import markdown as to_html

from tagasc.report.statistics import Interval
from tagasc.utils.errors import UserError

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows
NOT_RUN = "not run"
_PICTURE = re.compile(r'(<img [^>]*src=")([\w-]+\.png)(")')  # only PNG files in the report's folder
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem; }
h2 { border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid #ddd; vertical-align: bottom; }
th { border-bottom: 2px solid #888; }
td:first-child { white-space: nowrap; }
tbody tr:nth-child(even) { background: #f6f6f6; }
pre { background: #f6f6f6; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  .table { overflow: visible; } table { font-size: 7pt; } th, td { padding: 1px 3px; }
  img, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""
# A page may hold what another lab wrote into its results: should a name slip through unescaped, the browser still runs
# no script, sends no form and fetches nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_ESCAPE_TABLE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "\n": " "})


def html_page(text: str, title: str, pictures: Path) -> str:
    """Convert the report to one HTML file that embeds its pictures and refers to no other file or address.

    Args:
        text: report in Markdown.
        title: title of the page.
        pictures: folder of the pictures.

    Raises:
        UserError: a picture is missing.
    """
    # Without this attribute, Markdown inside <details> is not converted.
    marked = text.replace("<details>", '<details markdown="1">')
    body = to_html(marked, extensions=["tables", "fenced_code", "md_in_html", "sane_lists"])
    body = _PICTURE.sub(lambda match: match[1] + _embed(pictures / match[2]) + match[3], body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _embed(path: Path) -> str:
    if not path.exists():
        raise UserError(f"{path} does not exist; run stage 8 (report) to create it")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def markdown_table(table: Table) -> str:
    """Format a table as Markdown, numeric columns right-aligned; cells are escaped except for ``<br>``."""
    header, rows = table
    numeric = [any(re.match(r"[*+<-]*\d", row[n]) for row in rows) for n in range(len(header))]
    align = ["--:" if n and numeric[n] else ":--" for n in range(len(header))]
    cells = [[escape(cell).replace("&lt;br&gt;", "<br>") for cell in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], align, *cells[1:])) + "\n"


def escape(text: str) -> str:
    """Escape text so that it creates no HTML, link, picture or table column in Markdown."""
    return text.translate(_ESCAPE_TABLE).replace("](", "]&#40;")


def aligned(table: Table) -> str:
    """Format a table as plain text for a terminal: first column left-aligned, the others right-aligned."""
    header, rows = table
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    )


def format_mean(values: np.ndarray, digits: int = 1) -> str:
    """Format fractions in percent as "71.3 ± 0.4": mean and, for several, standard deviation; empty for none."""
    if not len(values):
        return ""
    deviation = f" ± {100 * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.{digits}f}{deviation}"


def format_points(value: float) -> str:
    """Format a difference of fractions in percentage points, with its sign."""
    return _percent(value, "+.1f")


def format_interval(interval: Interval, form: str = ".1f") -> str:
    """Format an interval of fractions in percent; empty if it is unknown."""
    return "" if np.isnan(interval[0]) else f"{_percent(interval[0], form)} to {_percent(interval[1], form)}"


def _percent(value: float, form: str) -> str:
    return f"{round(100 * value, 1) + 0.0:{form}}"  # adding 0.0 turns -0.0 into 0.0
