"""The page's charts, with what they show in words beside them."""

from __future__ import annotations

from collections.abc import Sequence

from petra.core.objective import Objective
from petra.front import PICKS, Front
from petra.report import axes, history, page
from petra.report.chart_parts import Drawn
from petra.report.charts import hypervolume_chart, pair_chart, single_chart
from petra.report.entries import Entry
from petra.report.glossary import term
from petra.report.metric_text import metric_words
from petra.report.page import esc
from petra.report.svg import crosses, diamond, dots, path, star

_KEYS = (
    ("front", diamond(9, 9, 6), "front", "front"),
    ("dominated", dots([(9, 9)]), "dominated", "dominated"),
    ("infeasible", crosses([(9, 9)]), "infeasible", "infeasible"),
    ("untouched", star(9, 9, 8), "untouched model", "untouched model"),
)


def charts_section(front: Front, entries: Sequence[Entry], reached: history.Reached) -> str:
    """All pairs of objectives, and the progress of the search; '' before anything was measured."""
    if front.baseline is None:
        return ""
    drawn = Drawn(
        front,
        {entry.number: entry.verdict for entry in entries},
        {entry.number: entry.picks for entry in entries if entry.picks},
    )
    shown = [_pair(drawn, x, y) for x, y in axes.objective_pairs(front)]
    if len(front.objectives) == 1:
        caption = "Every measured trial, and the best so far."
        shown.append(page.captioned(single_chart(drawn), caption=caption))
    shown.append(_progress(reached, "trials"))
    if len(shown) % 2:  # two charts stand in a row
        shown.append(_progress(reached, "seconds"))
    return (
        f"<h2>The trials in pictures</h2>{_legend(drawn)}<div class=charts>{''.join(shown)}</div>"
    )


def _legend(drawn: Drawn) -> str:
    """What the marks mean, and what can be done with them."""
    keys = [
        f"<li><svg class=key viewBox='0 0 18 18' aria-hidden=true>{path(kind, mark)}</svg>"
        f" {term(word, shown)}</li>"
        for kind, mark, word, shown in _KEYS
    ]
    ring = "<svg class=key viewBox='0 0 18 18' aria-hidden=true><circle class=ring cx=9 cy=9 r=7 />"
    keys.append(f"<li>{ring}</svg> <span>picked as {', '.join(map(term, PICKS))}</span></li>")
    keys.append(f"<li>{_line('stairs')} the best attainable in these two alone</li>")
    if drawn.front.constraints:
        keys.append(
            f"<li>{_line('bound')} <span>{term('constraint')}, shaded beyond it</span></li>"
        )
    return (
        f"<ul class=legend>{''.join(keys)}</ul><p>Numbers are those of the trials. A point leads to"
        " its trial: its pipeline, what the stages did, and its figures. Bars are one standard"
        f" error. Costs of members are those that were {term('confirmed')}, all others as the"
        " search measured them.</p>"
    )


def _line(kind: str) -> str:
    mark = path(kind, "M1 9H27")
    return f"<svg class='key wide' viewBox='0 0 28 18' aria-hidden=true>{mark}</svg>"


def _pair(drawn: Drawn, x: Objective, y: Objective) -> str:
    front = drawn.front
    names = [esc(metric_words(front.catalogue[o.metric])) for o in (y, x)]
    caption = f"{names[0][:1].upper()}{names[0][1:]} against {names[1]}."
    chart = pair_chart(drawn, x, y)
    if beyond := axes.outside(front, x, y):
        more = f"{beyond} trial{'s lie' if beyond > 1 else ' lies'} outside of this frame"
        chart += f"<details class=whole><summary>{more}: show all</summary>"
        chart += f"{pair_chart(drawn, x, y, whole=True)}</details>"
    return page.captioned(chart, caption=caption)


def _progress(reached: history.Reached, over: str) -> str:
    against = "time" if over == "seconds" else "finished trials"
    caption = f"{term('hypervolume', 'Hypervolume')} of the feasible trials against {against}."
    return page.captioned(hypervolume_chart(reached, over=over), caption=caption)
