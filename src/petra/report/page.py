"""The frame of the HTML report: one file, no network, readable on a phone and in the dark."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from petra.core.text import printable

STYLE = """
:root { color-scheme: light dark; --fg: #1d2430; --soft: #5b6675; --bg: #ffffff; --panel: #f4f6f9;
  --line: #d6dce4; --accent: #b8481a; --good: #1a7a3c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e6eaf0; --soft: #a3afbf; --bg: #12161c; --panel: #1b2129; --line: #36404d;
    --accent: #f0905f; --good: #6fcf8e; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(0.75rem, 3vw, 2rem) 4rem; max-width: 76rem;
  background: var(--bg); color: var(--fg); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line);
  padding-bottom: 0.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.2rem; }
p { max-width: 62rem; margin: 0.5rem 0; }
a { color: var(--accent); }
.lead { font-size: 1.08rem; }
.soft, figcaption { color: var(--soft); font-size: 0.9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(45%, 11rem), 1fr));
  gap: 0.75rem; margin: 1rem 0; }
.tile { background: var(--panel); border-radius: 0.5rem; padding: 0.7rem 0.9rem; }
.tile b { display: block; font-size: 1.15rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.55rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.text { text-align: left; white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
.name { text-align: left; white-space: nowrap; }
tbody.baseline { background: var(--panel); }
tr:has(+ .below) > * { border-bottom: 0; padding-bottom: 0; }
.below td { padding-top: 0.1rem; font-size: 0.9rem; }
.below div { position: sticky; left: 0.7rem; width: fit-content;
  max-width: min(70rem, calc(100vw - 4rem)); }
.good { color: var(--good); } .bad { color: var(--bad); }
small { color: var(--soft); font-size: 0.85em; }
.tag { background: var(--panel); border: 1px solid var(--line); border-radius: 1rem;
  padding: 0 0.5rem; font-size: 0.8rem; white-space: nowrap; }
figure { margin: 1rem 0 1.8rem; }
.plot { width: 100%; min-height: 8rem; }
.plots .plot { height: 26rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 0 1.5rem; }
details { border: 1px solid var(--line); border-radius: 0.5rem; padding: 0.4rem 0.8rem;
  margin: 0.5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 0.5rem; padding: 0.8rem; overflow-x: auto;
  font-size: 0.88rem; }
code { overflow-wrap: anywhere; }
@media print { .plot { break-inside: avoid; } details { border: 0; } }
"""

# Colours come from the style sheet, so that figures follow the page when it turns dark.
SCRIPT = """
(function () {
  function colours() {
    const style = getComputedStyle(document.documentElement);
    return { "font.color": style.getPropertyValue("--fg").trim(),
             "hoverlabel.bgcolor": style.getPropertyValue("--panel").trim(),
             "hoverlabel.font.color": style.getPropertyValue("--fg").trim() };
  }
  const plots = [];
  for (const holder of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(holder.dataset.figure).textContent);
    const mouse = window.matchMedia("(hover: hover) and (min-width: 40rem)").matches;
    const bar = mouse ? "hover" : false;
    const options = { responsive: true, displaylogo: false, displayModeBar: bar };
    const drawn = Plotly.newPlot(holder, figure.data, figure.layout, options);
    drawn.then(function () { Plotly.relayout(holder, colours()); });
    plots.push(holder);
  }
  function repaint() { for (const holder of plots) Plotly.relayout(holder, colours()); }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
})();
"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def esc(text: object) -> str:
    """Text for HTML, attributes included."""
    return html.escape(printable(text, lines=True))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    classes: Sequence[str] = (),
    first: str = "",
    below: Sequence[str] = (),
) -> str:
    """A scrollable table of ready HTML cells.

    `classes` are the columns' and `first` is the class of the first row. `below` has one cell for
    every row that is shown under it across the whole table, for text too long for a column.
    """
    kinds = [*classes, *[""] * (len(head) - len(classes))]

    def cell(tag: str, content: str, kind: str, scope: str) -> str:
        of_kind, of_scope = f" class={kind}" if kind else "", f" scope={scope}" if scope else ""
        return f"<{tag}{of_kind}{of_scope}>{content}</{tag}>"

    top = "".join(cell("th", c, k, "col") for c, k in zip(head, kinds, strict=True))
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
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{label}"><table>'
        f"<thead><tr>{top}</tr></thead>{''.join(body)}</table></div><p class=soft>{label}</p>"
    )


def figure(name: str, data: str, *, caption: str) -> str:
    """A figure from Plotly's JSON; `name` is its id in the page."""
    # Within a script element only "<" could end or change it.
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    label = esc(caption)
    return (
        f'<figure><div class=plot role=img aria-label="{label}" data-figure="{name}"></div>'
        f"<figcaption>{label}</figcaption>"
        f'<script type="application/json" id="{name}">{safe}</script></figure>'
    )


def tiles(facts: Mapping[str, str]) -> str:
    """Small boxes of a value (HTML) and what it is."""
    boxes = (f"<div class=tile><b>{v}</b>{esc(k)}</div>" for k, v in facts.items())
    return f"<div class=tiles>{''.join(boxes)}</div>"


def page(title: str, body: str, *, library: str) -> str:
    """The whole document. `library` is the JavaScript of Plotly, '' when the page has no figure."""
    scripts = f"<script>{library}</script><script>{SCRIPT}</script>" if library else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{esc(title)}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>"
        "<noscript><p>The figures need JavaScript; all they show is in the tables too.</p>"
        f"</noscript>{scripts}</body></html>\n"
    )
