"""Plotly figures of how a search went: its progress, its moves, and what failed."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from petra.core.trial import Trial
from petra.front import Front
from petra.moo.archive import Archive
from petra.report.plots import FRONT, OTHER, finished
from petra.report.tables import failure_counts
from petra.search.scaling import Scaling, scale

Reached = Sequence[tuple[Trial, float]]


def hypervolume_reached(front: Front) -> Reached:
    """Hypervolume of the feasible trials after each measured one, in order of finishing; the
    untouched model first.
    """
    if front.baseline is None:
        return []
    scaling: Scaling = scale(front.objectives, front.constraints, front.baseline)
    archive = Archive(scaling.reference)
    reached: list[tuple[Trial, float]] = []
    for trial in sorted(front.trials, key=lambda t: (t.finished_at, t.number)):
        if scaling.usable(trial) and scaling.violation(trial) == 0:
            archive.add(trial.number, scaling.costs(trial))
        reached.append((trial, archive.volume))
    return reached


def hypervolume_figure(reached: Reached, *, over: str) -> go.Figure:
    """Hypervolume against 'seconds' of search or the number of finished 'trials'."""
    x = [t.finished_at for t, _ in reached] if over == "seconds" else list(range(len(reached)))
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=[volume for _, volume in reached],
            mode="lines+markers" if len(reached) < 150 else "lines",
            line={"color": FRONT, "shape": "hv", "width": 2},
            marker={"size": 5},
            hovertext=[f"trial {t.number}: {volume:.4f}" for t, volume in reached],
            hoverinfo="text",
            name="hypervolume",
        )
    )
    title = "seconds of search" if over == "seconds" else "finished trials"
    figure.update_xaxes(title_text=title, zeroline=False, gridcolor="rgba(128,128,128,0.25)")
    figure.update_yaxes(
        title_text="hypervolume", rangemode="tozero", gridcolor="rgba(128,128,128,0.25)"
    )
    return finished(figure).update_layout(showlegend=False)


def move_counts(reached: Reached) -> list[tuple[str, int, int]]:
    """(move, trials it took part in, how many of these extended the hypervolume), most used first.

    A trial made by two moves counts for both.
    """
    proposed: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    before = 0.0
    for trial, volume in reached:
        for move in trial.origin.moves if trial.number else ():
            proposed[move] += 1
            succeeded[move] += volume > before
        before = volume
    return [(move, count, succeeded[move]) for move, count in proposed.most_common()]


def moves_figure(reached: Reached) -> go.Figure:
    """How often each move was tried, and how often its trial extended the hypervolume."""
    counts = move_counts(reached)
    names = [html.escape(name) for name, _, _ in counts]
    figure = go.Figure(
        [
            go.Bar(x=names, y=[n for _, n, _ in counts], name="proposed", marker={"color": OTHER}),
            go.Bar(
                x=names,
                y=[n for _, _, n in counts],
                name="extended the hypervolume",
                marker={"color": FRONT},
            ),
        ]
    )
    figure.update_yaxes(title_text="trials", gridcolor="rgba(128,128,128,0.25)")
    return finished(figure).update_layout(barmode="group")


def failures_figure(front: Front) -> go.Figure:
    """Failures by the stage they happened in, one colour for each kind of error."""
    counts = failure_counts(front.trials)
    stages = list(dict.fromkeys(stage for (stage, _), _, _ in counts))
    kinds = list(dict.fromkeys(kind for (_, kind), _, _ in counts))
    number = {key: count for key, count, _ in counts}
    figure = go.Figure(
        [
            go.Bar(
                y=[html.escape(s) for s in stages],
                x=[number.get((s, kind), 0) for s in stages],
                name=html.escape(kind),
                orientation="h",
            )
            for kind in kinds
        ]
    )
    figure.update_xaxes(
        title_text="trials",
        gridcolor="rgba(128,128,128,0.25)",
        dtick=_whole(max(number.values(), default=1)),
    )
    figure.update_yaxes(automargin=True, autorange="reversed")
    return finished(figure).update_layout(
        barmode="stack", showlegend=True, height=130 + 45 * len(stages)
    )


def _whole(highest: int) -> int | None:
    """Tick distance that keeps the ticks of small counts at whole numbers."""
    return 1 if highest < 10 else None
