"""A comparison of studies as one HTML file, of the report's parts."""

from __future__ import annotations

import html
from itertools import combinations
from pathlib import Path

import plotly.graph_objects as go

from petra.core.errors import ConfigError
from petra.core.metric import describe
from petra.core.objective import Objective
from petra.core.whole import write_whole
from petra.report import page, plots
from petra.report.comparable import differences
from petra.report.comparison import Comparison
from petra.report.comparison_tables import axis_title, figure_text, rivals_text, verdicts
from petra.report.numbers_text import duration
from petra.report.outcomes import failure_counts
from petra.report.page import esc
from petra.report.pipeline_text import count_statuses, pipeline_in_words

_COLOURS = ("#d9622b", "#2f7ed8", "#6a9a3b", "#b0578d", "#7d8aa0")
_SYMBOLS = ("diamond", "circle", "square", "triangle-up", "x")


def write_comparison(found: Comparison, out: Path) -> Path:
    """Write the page to `out`. Raises ConfigError when it cannot be written."""
    from plotly.offline import get_plotlyjs

    text = page.page(_title(found), _render(found), library=get_plotlyjs())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out.resolve(), text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"compare: cannot write {out}: {error}", hint="give another --out"
        ) from error
    return out


def _title(found: Comparison) -> str:
    return f"{' and '.join(side.name for side in found.sides)}: petra studies compared"


def _render(found: Comparison) -> str:
    said = "".join(f"<p>{esc(line)}</p>" for line in verdicts(found))
    return "\n".join(
        [
            f"<h1>{esc(_title(found))}</h1>",
            said,
            f"<h2>What differs</h2>{_settings(found)}",
            f"<h2>Fronts</h2>{_members(found)}{_figures(found)}",
            f"<h2>Progress and failures</h2>{_progress(found)}{_outcomes(found)}",
        ]
    )


def _settings(found: Comparison) -> str:
    rows = differences([side.record for side in found.sides])
    if not rows:
        return "<p>Nothing that petra knows of.</p>"
    head = ["", *(esc(side.name) for side in found.sides)]
    cells = [[esc(name), *map(esc, values)] for name, values in rows.items()]
    return page.table(
        head,
        cells,
        caption="Settings, machines and models that differ",
        classes=["text"] * len(head),
    )


def _members(found: Comparison) -> str:
    axes = [found.sides[0].record.catalogue[a.metric] for a in found.axes.objectives]
    head = ["study", "trial", *(esc(axis_title(found, axis)) for axis in axes), "beaten by"]
    shown = found.members
    rows = [
        [esc(one.study), str(one.trial.number)]
        + [esc(figure_text(found, one.trial, axis)) for axis in axes]
        + [esc(rivals_text(one))]
        for one in shown
    ]
    return page.table(
        head,
        rows,
        caption="Members of all fronts. ± is one standard error",
        classes=("name", "", *("" for _ in axes), "text"),
        below=[esc(pipeline_in_words(one.trial.pipeline)) for one in shown],
    )


def _figures(found: Comparison) -> str:
    drawn = []
    for i, (a, b) in enumerate(combinations(found.axes.objectives, 2)):
        x, y = (b, a) if describe(a.metric).sampled else (a, b)
        names = (found.sides[0].record.catalogue.label(o.metric) for o in (y, x))
        caption = f"{' against '.join(names)}, all fronts.".replace("_", " ")
        drawn.append(page.figure(f"fronts-{i}", _pair(found, x, y).to_json(), caption=caption))
    return f"<div class=plots>{''.join(drawn)}</div>" if drawn else ""


def _pair(found: Comparison, x: Objective, y: Objective) -> go.Figure:
    figure = go.Figure()
    known = found.sides[0].record.catalogue
    for i, side in enumerate(found.sides):
        trials = [one.trial for one in found.of(side.name)]
        points = [(t, found.figure(t, x.metric), found.figure(t, y.metric)) for t in trials]
        both = [(t, a, b) for t, a, b in points if a is not None and b is not None]
        figure.add_trace(
            go.Scatter(
                x=[a.mean for _, a, _ in both],
                y=[b.mean for _, _, b in both],
                mode="markers",
                name=html.escape(side.name),
                marker={"color": _of(_COLOURS, i), "symbol": _of(_SYMBOLS, i), "size": 10},
                hovertext=[html.escape(f"{side.name} {t.number}") for t, _, _ in both],
                hoverinfo="text",
            )
        )
    grid = {"zeroline": False, "gridcolor": "rgba(128,128,128,0.25)", "automargin": True}
    for axis, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        metric = known[axis.metric]
        title = axis_title(found, metric) if metric.sampled else metric.axis
        better = "more is better" if axis.maximize else "less is better"
        update(title_text=html.escape(f"{title} ({better})"), **grid)
    return plots.finished(figure)


def _of(kinds: tuple[str, ...], i: int) -> str:
    return kinds[i % len(kinds)]


def _progress(found: Comparison) -> str:
    if not found.curves:
        return ""
    drawn = []
    for over, title in (("seconds", "seconds of search"), ("results", "finished trials")):
        figure = go.Figure()
        for i, (name, curve) in enumerate(found.curves.items()):
            figure.add_trace(
                go.Scatter(
                    x=[getattr(step, over) for step in curve],
                    y=[step.volume for step in curve],
                    mode="lines",
                    name=html.escape(name),
                    line={"color": _of(_COLOURS, i), "shape": "hv", "width": 2},
                )
            )
        figure.update_xaxes(title_text=title, gridcolor="rgba(128,128,128,0.25)")
        figure.update_yaxes(
            title_text="hypervolume", rangemode="tozero", gridcolor="rgba(128,128,128,0.25)"
        )
        caption = f"Hypervolume below the common reference point, against {title}."
        drawn.append(
            page.figure(f"reached-{over}", plots.finished(figure).to_json(), caption=caption)
        )
    return f"<div class=plots>{''.join(drawn)}</div>"


def _outcomes(found: Comparison) -> str:
    rows = []
    for side in found.sides:
        counts = failure_counts(side.record.trials)
        failed = "; ".join(f"{count} in {stage} ({kind})" for (stage, kind), count, _ in counts)
        rows.append(
            [
                esc(side.name),
                esc(duration(side.record.elapsed_s)),
                esc(count_statuses(side.record.trials)),
                esc(failed or "none"),
            ]
        )
    head = ["study", "searched", "trials", "failures"]
    return page.table(
        head, rows, caption="How the trials ended", classes=("name", "", "text", "text")
    )
