"""What notebooks show of an object: a small HTML table in the notebook's own colours, light or
dark, without scripts.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from petra.core.measurement import Measurement
from petra.core.text import printable

# Text keeps the colour that the notebook gives it; lines are grey, seen on white and on black.
STYLE = """
.petra-view { max-width: 70rem; overflow-x: auto; font-variant-numeric: tabular-nums; }
.petra-view table { border-collapse: collapse; margin: 0.4em 0; background: none; }
.petra-view th, .petra-view td { padding: 0.2em 0.8em 0.2em 0; text-align: right; background: none;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.45); vertical-align: top; }
.petra-view th:first-child, .petra-view .text { text-align: left; }
.petra-view tr.below td, .petra-view .tag, .petra-view .soft { font-size: 0.92em; }
.petra-view tr:has(+ .below) > * { border-bottom: 0; }
.petra-view .tag { border: 1px solid rgba(128, 128, 128, 0.8); border-radius: 1em;
  padding: 0 0.5em; }
.petra-view .good { font-weight: 600; }
.petra-view caption { text-align: left; caption-side: bottom; font-size: 0.92em; }
.petra-view p { margin: 0.3em 0; }
.petra-view progress { width: 100%; max-width: 40rem; }
"""


def styled(body: str) -> str:
    """HTML in a box that brings its own style, which reaches nothing outside of it."""
    return f"<div class=petra-view><style>{STYLE}</style>{body}</div>"


def esc(text: object) -> str:
    """Text for HTML, attributes included."""
    return html.escape(printable(text, lines=True))


def card(
    title: str, lines: Sequence[str], head: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> str:
    """A title, lines of text, and a table of texts whose rows have names, the first column."""
    body = f"<p><b>{esc(title)}</b></p>" + "".join(f"<p>{esc(line)}</p>" for line in lines)
    if not rows:
        return styled(body)
    top = "".join(f"<th scope=col>{esc(name)}</th>" for name in head)
    below = "".join(
        f"<tr><th scope=row>{esc(name)}</th>"
        + "".join(f"<td>{esc(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{below}</tbody></table>"
    return styled(body + table)


def figure(found: Measurement) -> str:
    """A measured value in a word: all digits before the point, four at least."""
    mean = found.mean
    text = f"{mean:,.0f}" if 1e4 <= abs(mean) < 1e15 else f"{mean:.4g}"
    return f"{text} {found.unit}" if found.unit else text
