"""What charts of trials have in common: axes, bounds, points, and the same in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.objective import Constraint, Objective
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.moo.dominance import front_mask
from petra.report import svg
from petra.report.axes import bounds_on, frame
from petra.report.labels import Box, Label, placed
from petra.report.metric_text import metric_words
from petra.report.numbers_text import value
from petra.report.page import esc
from petra.report.svg import CHARACTER, Axis, unit
from petra.report.verdicts import Kind, Verdict

Place = Callable[[Trial], tuple[float, float]]
_DOTS = (
    (Kind.DOMINATED, svg.dots, "dominated"),
    (Kind.INFEASIBLE, svg.crosses, "infeasible"),
)


@dataclass(frozen=True)
class Drawn:
    """What charts show: a front, what became of each of its trials, and which the names pick."""

    front: Front
    verdicts: Mapping[int, Verdict]
    picks: Mapping[int, Sequence[str]]

    def of(self, kind: Kind) -> list[Trial]:
        """The measured trials that became this."""
        return [t for t in self.front.trials if t.comparable and self.is_a(t, kind)]

    def is_a(self, trial: Trial, kind: Kind) -> bool:
        return self.verdicts[trial.number].kind is kind

    def words(self, trial: Trial) -> str:
        """What stands beside a point: '42 knee, best'."""
        name = str(trial.number) if trial.number else "untouched"
        return f"{name} {', '.join(self.picks.get(trial.number, ()))}".rstrip()


def value_on(trial: Trial, objective: Objective) -> float:
    """The figure that counts."""
    return figures(trial)[objective.metric].mean


def objective_axis(
    front: Front,
    objective: Objective,
    make: Callable[[float, float, str, Callable[[float], str]], Axis],
    *,
    whole: bool = False,
) -> Axis:
    """The axis of an objective around the front, or with `whole` around every measured trial."""
    metric = front.catalogue[objective.metric]
    low, high = frame(front, objective)
    if whole:
        found = [value_on(t, objective) for t in front.trials if t.comparable]
        finite = [v for v in found if np.isfinite(v)]
        low, high = min([low, *finite]), max([high, *finite])
        low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    if metric.positive:
        low = max(low, 0.0)
    split = ", validation" if metric.sampled else ""
    better = "more is better" if objective.maximize else "less is better"
    title = f"{metric_words(metric)}{split}: {better}"
    return make(low, high, title, svg.tick_text(metric, low, high))


def bounds(
    front: Front, x: Objective | None, y: Objective, across: Axis, upward: Axis
) -> tuple[str, list[Box]]:
    """Constraints on either axis: a line at the bound, shade on its forbidden side, and the bound
    in words; also the room that the words take.
    """
    parts: list[str] = []
    covered: list[Box] = []

    def say(words: str, x: float, y: float, anchor: str) -> None:
        parts.append(svg.text(x, y, words, kind="bound-label", anchor=anchor))
        covered.append(Box.of(x, y, words, anchor))

    for constraint, bound in bounds_on(front, x) if x else []:
        if across.holds(bound):
            at, edge = across.at(bound), across.start if constraint.at_least else across.end
            parts.append(_shade(min(at, edge), upward.end, abs(edge - at), upward.span))
            parts.append(svg.path("bound", f"M{unit(at)} {unit(upward.end)}V{unit(upward.start)}"))
            words, room = _bound_words(front, constraint, bound), at - across.start
            left = room > CHARACTER * len(words) + 8
            say(words, at - 5 if left else at + 5, upward.start - 6, "end" if left else "start")
    for constraint, bound in bounds_on(front, y):
        if upward.holds(bound):
            at, edge = upward.at(bound), upward.start if constraint.at_least else upward.end
            parts.append(_shade(across.start, min(at, edge), across.span, abs(edge - at)))
            parts.append(svg.path("bound", f"M{unit(across.start)} {unit(at)}H{unit(across.end)}"))
            beside = at - 5 if constraint.at_least else at + 13
            say(_bound_words(front, constraint, bound), across.end - 4, beside, "end")
    return (f"<g aria-hidden=true>{''.join(parts)}</g>" if parts else ""), covered


def _shade(x: float, y: float, width: float, height: float) -> str:
    size = f'width="{unit(width)}" height="{unit(height)}"'
    return f'<rect class=beyond x="{unit(x)}" y="{unit(y)}" {size}/>'


def _bound_words(front: Front, constraint: Constraint, bound: float) -> str:
    side = "at least" if constraint.at_least else "at most"
    return f"{side} {value(front.catalogue[constraint.metric], bound)}"


def cloud(drawn: Drawn, seen: Sequence[Trial], at: Place) -> str:
    """What is not on the front, each kind as one path."""
    return "".join(
        svg.path(name, draw(at(t) for t in seen if drawn.is_a(t, kind)))
        for kind, draw, name in _DOTS
    )


def points(
    drawn: Drawn,
    seen: Sequence[Trial],
    at: Place,
    objectives: Sequence[Objective],
    covered: Sequence[Box],
) -> str:
    """The members of the front and the untouched model, each a link to its trial, and their numbers
    where there is room beside what is `covered`; what the names pick is named first and ringed.
    """
    front = drawn.front
    members = {t.number: t for t in (*front.members, *([front.baseline] if front.baseline else []))}
    inside = {t.number for t in seen}
    shown = [t for t in members.values() if t.number in inside]
    shown.sort(key=lambda t: (t.number not in drawn.picks, t.number != 0, t.number))
    links = [_point(drawn, trial, at(trial), objectives) for trial in shown]
    labels = [
        Label(*at(trial), drawn.words(trial), 13.0 if trial.number in drawn.picks else 9.0)
        for trial in shown
    ]
    return "".join(links) + placed(labels, kind="label", covered=covered)


def _point(
    drawn: Drawn, trial: Trial, place: tuple[float, float], objectives: Sequence[Objective]
) -> str:
    x, y = place
    picked = trial.number in drawn.picks
    ring = f'<circle class=ring cx="{unit(x)}" cy="{unit(y)}" r=10 />' if picked else ""
    known = drawn.front.catalogue
    told = (
        f"{metric_words(known[o.metric])} {value(known[o.metric], value_on(trial, o))}"
        for o in objectives
    )
    words = esc(f"trial {drawn.words(trial)}: {', '.join(told)}")
    mark = (
        svg.path("front", svg.diamond(x, y, 6))
        if trial.number
        else svg.path("untouched", svg.star(x, y, 8))
    )
    return (
        f'<a href="#trial-{trial.number}" aria-label="{words}"><title>{words}</title>{ring}{mark}'
        "</a>"
    )


def attainable(front: Front, x: Objective, y: Objective) -> list[Trial]:
    """The members that no other beats in these two objectives alone, the least of x first: the
    corners of the region that feasible trials dominate.
    """
    if not front.members:
        return []
    costs = np.array([[x.cost(figures(t)), y.cost(figures(t))] for t in front.members])
    kept = [t for t, on in zip(front.members, front_mask(costs), strict=True) if on]
    return sorted(kept, key=lambda t: x.cost(figures(t)))


def errors(seen: Sequence[Trial], y: Objective, at: Place, upward: Axis) -> str:
    """One standard error to either side."""
    bars = []
    for trial in seen:
        found = figures(trial)[y.metric]
        low, high = (upward.at(found.mean + side * found.stderr) for side in (-1, 1))
        bars.append(f"M{unit(at(trial)[0])} {unit(low)}V{unit(high)}")
    return svg.path("error", "".join(bars))


def place_data(front: Front, x: Objective | None, y: Objective, across: Axis, upward: Axis) -> str:
    """Where the page's script finds a trial: which objectives the axes are, as numbers (-1: the
    trial's own number), and which values lie where.
    """
    order = {o.metric: i for i, o in enumerate(front.objectives)}
    parts = []
    for name, axis, which in (
        ("x", across, order[x.metric] if x else -1),
        ("y", upward, order[y.metric]),
    ):
        parts.append(
            f' data-{name}="{which} {axis.low!r} {axis.high!r} {unit(axis.start)} {unit(axis.end)}"'
        )
    return "".join(parts)


def in_words(drawn: Drawn, x: Objective, y: Objective) -> str:
    """What a pair of objectives shows, for whoever does not see it."""
    front = drawn.front
    known = front.catalogue
    names = [metric_words(known[o.metric]) for o in (y, x)]
    ends = [t for t in attainable(front, x, y) if t.number]
    text = f"{names[0]} against {names[1]}: {len([t for t in front.members if t.number])} trials"
    text += f" on the front, {len(drawn.of(Kind.DOMINATED))} dominated,"
    text += f" {len(drawn.of(Kind.INFEASIBLE))} infeasible"
    for trial in (ends[0], ends[-1]) if len(ends) > 1 else ends:
        told = ", ".join(value(known[o.metric], value_on(trial, o)) for o in (y, x))
        text += f"; trial {trial.number}: {told}"
    return f"{text}. The table of all trials has every figure."
