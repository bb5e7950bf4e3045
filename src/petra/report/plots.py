"""Plotly figures of a front.

Backgrounds are transparent and no colour says what a shape does not say too.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from petra.core.metric import describe
from petra.core.objective import Objective
from petra.core.trial import Trial, TrialStatus
from petra.front import Front, figures
from petra.moo.dominance import front_mask
from petra.report.axes import bounds_on, frame
from petra.report.axes import objective_pairs as objective_pairs
from petra.report.numbers_text import value_of
from petra.report.pipeline_text import pipeline_in_words

FRONT, OTHER, INFEASIBLE, BASELINE, BOUND = "#d9622b", "#7d8aa0", "#b0578d", "#2f7ed8", "#c0392b"


def front_figure(front: Front) -> go.Figure:
    """All pairs of objectives side by side; with a single objective, its values over the trials."""
    pairs = objective_pairs(front)
    if not pairs:
        return single_figure(front)
    figure = make_subplots(rows=1, cols=len(pairs), horizontal_spacing=0.09)
    for col, (x, y) in enumerate(pairs, 1):
        _draw_pair(figure, front, x, y, col)
    return finished(figure)


def pair_figure(front: Front, x: Objective, y: Objective) -> go.Figure:
    """One pair of objectives."""
    figure = make_subplots(rows=1, cols=1)
    _draw_pair(figure, front, x, y, 1)
    return finished(figure)


def finished(figure: go.Figure) -> go.Figure:
    """The common layout."""
    return figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 70, "r": 15, "t": 40, "b": 55},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        font={"size": 13},
    )


def _hovers(front: Front, trials: Sequence[Trial]) -> list[str]:
    """What is shown of each trial when the mouse is over it."""
    known = front.catalogue
    always = [name for name in known.names() if known[name].shown.hover]
    names = dict.fromkeys([o.metric for o in front.objectives] + always)
    metrics = [(name, known[name], html.escape(known.label(name))) for name in names]

    def hover(trial: Trial) -> str:
        lines = [f"<b>trial {trial.number}</b> ({trial.status.value})"]
        words = pipeline_in_words(trial.pipeline)
        lines += [html.escape(part) for part in words.split(" → ")]
        for name, metric, label in metrics:
            lines.append(f"{label}: {html.escape(value_of(metric, figures(trial).get(name)))}")
        return "<br>".join(lines)

    return [hover(trial) for trial in trials]


def _points(
    front: Front, trials: Sequence[Trial], x: Objective, y: Objective, **style: object
) -> go.Scatter:
    return go.Scatter(
        x=[figures(t)[x.metric].mean for t in trials],
        y=[figures(t)[y.metric].mean for t in trials],
        mode="markers",
        hovertext=_hovers(front, trials),
        hoverinfo="text",
        **style,
    )


def _draw_pair(figure: go.Figure, front: Front, x: Objective, y: Objective, col: int) -> None:
    on_front = {t.number for t in front.members}
    measured = [t for t in front.trials if t.comparable]
    others = [
        t
        for t in measured
        if t.number and t.status is TrialStatus.COMPLETE and t.number not in on_front
    ]
    infeasible = [t for t in measured if t.status is TrialStatus.INFEASIBLE]
    groups = (
        ("dominated", others, {"color": OTHER, "size": 7, "opacity": 0.65}),
        ("infeasible", infeasible, {"color": INFEASIBLE, "size": 8, "symbol": "x-thin-open"}),
    )
    for name, trials, marker in groups:
        if trials:
            style = {"name": name, "marker": marker, "legendgroup": name, "showlegend": col == 1}
            figure.add_trace(_points(front, trials, x, y, **style), row=1, col=col)
    _draw_staircase(figure, front, x, y, col)
    members = [t for t in front.members if t.number]
    if members:
        points = _points(
            front,
            members,
            x,
            y,
            name="front",
            marker={
                "color": FRONT,
                "size": 11,
                "symbol": "diamond",
                "line": {"width": 1, "color": "white"},
            },
            legendgroup="front",
            showlegend=col == 1,
        )
        if describe(y.metric).sampled:
            points.error_y = {
                "array": [figures(t)[y.metric].stderr for t in members],
                "thickness": 1,
                "width": 3,
            }
        figure.add_trace(points, row=1, col=col)
    if front.baseline:
        style = {"color": BASELINE, "size": 13, "symbol": "star"}
        name = "untouched model"
        figure.add_trace(
            _points(
                front,
                [front.baseline],
                x,
                y,
                name=name,
                marker=style,
                legendgroup=name,
                showlegend=col == 1,
            ),
            row=1,
            col=col,
        )
    _draw_bounds(figure, front, x, y, col)
    for axis, objective in (("x", x), ("y", y)):
        _label_axis(figure, front, axis, objective, col)


def _draw_staircase(figure: go.Figure, front: Front, x: Objective, y: Objective, col: int) -> None:
    """What is attainable in these two objectives alone: the border of the region the feasible
    trials dominate.
    """
    if not front.members:
        return
    costs = np.array([[x.cost(figures(t)), y.cost(figures(t))] for t in front.members])
    kept = [t for t, on in zip(front.members, front_mask(costs), strict=True) if on]
    kept.sort(key=lambda t: x.cost(figures(t)))
    figure.add_trace(
        go.Scatter(
            x=[figures(t)[x.metric].mean for t in kept],
            y=[figures(t)[y.metric].mean for t in kept],
            mode="lines",
            line={"shape": "hv", "color": FRONT, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=1,
        col=col,
    )


def _draw_bounds(figure: go.Figure, front: Front, x: Objective, y: Objective, col: int) -> None:
    """Constraints on either axis: a line at the bound, shaded on its forbidden side as far as there
    are trials.
    """
    for axis, objective in (("x", x), ("y", y)):
        values = [figures(t)[objective.metric].mean for t in front.trials if t.comparable]
        for constraint, bound in bounds_on(front, objective):
            reach = 2 * (max(*values, bound) - min(*values, bound) or abs(bound) or 1.0)
            beyond = bound - reach if constraint.at_least else bound + reach
            line = {"color": BOUND, "width": 1.5, "dash": "dash"}
            shade = {"fillcolor": BOUND, "opacity": 0.1, "line_width": 0, "layer": "below"}
            note = {
                "annotation_text": html.escape(str(constraint)),
                "annotation_font": {"size": 11, "color": BOUND},
            }
            if axis == "x":
                figure.add_vline(
                    x=bound, line=line, row=1, col=col, annotation_position="bottom right", **note
                )
                figure.add_vrect(x0=bound, x1=beyond, row=1, col=col, **shade)
            else:
                figure.add_hline(
                    y=bound, line=line, row=1, col=col, annotation_position="bottom left", **note
                )
                figure.add_hrect(y0=bound, y1=beyond, row=1, col=col, **shade)
        figure.update_layout(
            {f"{axis}axis{'' if col == 1 else col}": {"range": list(frame(front, objective))}}
        )


def _label_axis(figure: go.Figure, front: Front, axis: str, objective: Objective, col: int) -> None:
    better = "more is better" if objective.maximize else "less is better"
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    title = f"{html.escape(front.catalogue[objective.metric].axis)} ({better})"
    update(title_text=title, automargin=True, row=1, col=col, **_axis_style(objective.metric))


def _axis_style(metric: str) -> dict[str, object]:
    style: dict[str, object] = {"zeroline": False, "gridcolor": "rgba(128,128,128,0.25)"}
    if describe(metric).form == "si":
        style["tickformat"] = "~s"
    return style


def single_figure(front: Front) -> go.Figure:
    """One objective: every trial's value in the order of trials, and the best so far."""
    (objective,) = front.objectives
    measured = [t for t in front.trials if t.comparable]
    feasible = [t for t in measured if t.status is TrialStatus.COMPLETE]
    figure = go.Figure()
    for name, trials, marker in (
        ("feasible", feasible, {"color": OTHER, "size": 8}),
        (
            "infeasible",
            [t for t in measured if t not in feasible],
            {"color": INFEASIBLE, "symbol": "x-thin-open", "size": 9},
        ),
    ):
        if trials:
            figure.add_trace(
                go.Scatter(
                    x=[t.number for t in trials],
                    y=[figures(t)[objective.metric].mean for t in trials],
                    mode="markers",
                    marker=marker,
                    name=name,
                    hovertext=_hovers(front, trials),
                    hoverinfo="text",
                )
            )
    best: list[float] = []
    for trial in feasible:
        found = figures(trial)[objective.metric].mean
        pick = max if objective.maximize else min
        best.append(pick(best[-1], found) if best else found)
    line = {"color": FRONT, "shape": "hv", "width": 2}
    figure.add_trace(
        go.Scatter(
            x=[t.number for t in feasible], y=best, mode="lines", line=line, name="best so far"
        )
    )
    figure.update_xaxes(title_text="trial", zeroline=False, gridcolor="rgba(128,128,128,0.25)")
    title = html.escape(front.catalogue[objective.metric].axis)
    figure.update_yaxes(title_text=title, automargin=True, **_axis_style(objective.metric))
    return finished(figure)
