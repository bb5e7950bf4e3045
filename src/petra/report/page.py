"""The frame of the HTML report: one file, no network, readable on a phone and in the dark."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from petra.core.text import printable

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


@cache
def asset(name: str) -> str:
    """A file of the folder `assets`: the style sheet, the script."""
    return files("petra.report").joinpath("assets", name).read_text(encoding="utf-8")


def script(*names: str) -> str:
    """Scripts of the folder `assets` as one function, so that they share what they declare."""
    return f'(function () {{"use strict";\n{"".join(map(asset, names))}}})();'


def esc(text: object) -> str:
    """Text for HTML, attributes included."""
    return html.escape(printable(text, lines=True))


def trial_link(number: int) -> str:
    """A trial's number as a link to all that the page knows of it."""
    return f'<a href="#trial-{number}" aria-label="trial {number}">{number}</a>'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    classes: Sequence[str] = (),
    first: str = "",
    below: Sequence[str] = (),
    name: str = "",
) -> str:
    """A scrollable table of ready HTML cells; `caption` is text, `name` the table's id.

    `classes` are the columns' and `first` is the class of the first row. `below` has one cell for
    every row that is shown under it across the whole table, for text too long for a column.
    """
    kinds = [*classes, *[""] * (len(head) - len(classes))]

    def cell(tag: str, content: str, kind: str, scope: str) -> str:
        of_kind, of_scope = f" class={kind}" if kind else "", f" scope={scope}" if scope else ""
        return f"<{tag}{of_kind}{of_scope}>{content}</{tag}>"

    heads = (f"<span class=head>{c}</span>" for c in head)
    top = "".join(cell("th", c, k, "col") for c, k in zip(heads, kinds, strict=True))
    body = []
    for i, row in enumerate(rows):
        cells = [
            cell("td" if j else "th", c, kinds[j], "" if j else "row") for j, c in enumerate(row)
        ]
        body.append(
            f"<tbody{f' class={first}' if first and i == 0 else ''}><tr>{''.join(cells)}</tr>"
        )
        if below:
            body.append(
                "<tr class=below><td class=text"
                f" colspan={len(head)}><div>{below[i]}</div></td></tr>"
            )
        body.append("</tbody>")
    label = esc(caption)
    of_name = f' id="{name}"' if name else ""
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{label}"><table{of_name}>'
        f"<caption><div>{label}</div></caption>"
        f"<thead><tr>{top}</tr></thead>{''.join(body)}</table></div>"
    )


def captioned(content: str, *, caption: str) -> str:
    """Ready HTML as a figure with a caption that is HTML, too."""
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def figure(name: str, text: str, *, caption: str) -> str:
    """A figure from Plotly's JSON, for pages with its `library`; `name` is its id in the page."""
    label = esc(caption)
    holder = f'<div class=plot role=img aria-label="{label}" data-figure="{name}"></div>'
    return captioned(holder, caption=label + data(name, text))


def data(name: str, text: str) -> str:
    """JSON for the page's script; `name` is its id."""
    # Within a script element only "<" could end or change it.
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def tiles(facts: Mapping[str, str]) -> str:
    """Small boxes of a value (HTML) and what it is."""
    boxes = (f"<div class=tile><b>{v}</b>{esc(k)}</div>" for k, v in facts.items())
    return f"<div class=tiles>{''.join(boxes)}</div>"


def page(title: str, body: str, *, script: str = "", library: str = "") -> str:
    """The whole document. `script` is what runs in it, and nothing else does; `library` is the
    JavaScript of Plotly, for pages with figures of its own.
    """
    plotly = (library, asset("plotly.js")) if library else ()
    scripts = "".join(f"<script>{text}</script>" for text in (*plotly, script) if text)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{esc(title)}</title><style>{asset('page.css')}</style></head>\n"
        f"<body><main>{body}</main>{scripts}</body></html>\n"
    )
