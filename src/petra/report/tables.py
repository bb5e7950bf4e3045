"""Tables for a terminal: numbers right-aligned, with changes, columns dropped when narrow."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from petra.core.metric import QUALITY, Metric
from petra.core.objective import Metrics, Objective
from petra.core.paired import score_change
from petra.core.text import first_line, printable
from petra.core.trial import Trial, TrialStatus
from petra.front import Front, figures
from petra.report.doubts import doubts
from petra.report.numbers_text import (
    NONE,
    change,
    decimals,
    difference,
    duration,
    interval,
    value,
    value_of,
    with_error,
)
from petra.report.outcomes import explanation, nearest_explained, screening
from petra.report.pipeline_text import all_told_apart, count_statuses, fidelity_in_words

_GAP = 2  # spaces between two columns
_STYLES = {
    TrialStatus.COMPLETE: "green",
    TrialStatus.INFEASIBLE: "yellow",
    TrialStatus.SCREENED: "yellow",
}


@dataclass(frozen=True)
class Column:
    """A column and what it says of a trial; the highest `priority` is dropped first, 0 never."""

    title: str
    cell: Callable[[Trial], str | Text]
    priority: int = 0
    right: bool = True


def to_text(renderable: RenderableType, *, width: int) -> str:
    """Plain text without colours, lines without trailing spaces."""
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
    )
    console.print(renderable)
    output: io.StringIO = console.file  # type: ignore[assignment]
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).strip("\n")


def front_view(front: Front, *, width: int) -> RenderableType:
    """The front with the untouched model on top, what each name picks, and the pipelines in words
    below.
    """
    if front.baseline is None:
        return Text(front.why_empty())
    on_front = front.baseline.number in {t.number for t in front.members}
    rows = [front.baseline, *(t for t in front.members if t is not front.baseline)]
    columns = _front_columns(front, noise=width >= 55, wide=width >= 90)
    table = _table(columns, rows, width=width, rule_after_first=True)
    parts: list[RenderableType] = [table]
    if front.members:
        parts.append(_pipelines([t for t in front.members if t.number]))
    else:
        parts += [Text(f"The front is empty: {front.why_empty()}.", style="bold")]
        parts += [Text(words, style="yellow")] if (words := nearest_explained(front)) else []
    parts += [
        Text(f"{n} is not confirmed: {reason}", style="red")
        for n, reason in front.unconfirmed.items()
    ]
    parts += [Text(line) for line in doubts(front)]
    parts.append(Text(_footnote(front, on_front=on_front, noise=width >= 55), style="dim"))
    parts += [Text(said, style="dim")] if (said := str(screening(front))) else []
    return Group(*parts)


def _footnote(front: Front, *, on_front: bool, noise: bool) -> str:
    tested = any(t.test for t in front.members)
    words = [
        "0 is the untouched model"
        + (", which is on the front itself." if on_front else ", for comparison.")
    ]
    if noise:
        words.append("± one standard error, in brackets 95% intervals.")
    if front.members and not tested and not front.unconfirmed:
        words.append("The front is not confirmed on the test split yet.")
    return " ".join(words)


def _front_columns(front: Front, *, noise: bool, wide: bool) -> list[Column]:
    """What the task measures, then costs that stand in every table, then further objectives."""
    known, labels = front.catalogue, front.labels()
    columns = [
        Column("#", lambda t: str(t.number)),
        Column("pick", lambda t: ", ".join(labels.get(t.number, [])), 1, right=False),
        *_score_columns(front, QUALITY, 0, noise=noise, wide=wide),
        *(_score_columns(front, m.name, 1, noise=noise, wide=wide)[0] for m in known.others()),
    ]
    shown = [metric for metric in known.costs() if metric.shown.terminal is not None]
    for metric in shown:
        columns += _cost_columns(front, metric, noise=noise)
    extra = {o.metric for o in front.objectives} - {m.name for m in shown}
    costs = [known[name] for name in sorted(extra) if not known[name].sampled]
    return columns + [Column(m.name.replace("_", " "), _cost(m), 1) for m in costs]


def _score_columns(
    front: Front, name: str, priority: int, *, noise: bool, wide: bool
) -> list[Column]:
    """One of the task's metrics, on the test split once confirmed, its change, and then its value
    on the validation split."""
    base, metric = front.baseline, front.catalogue[name]
    assert base is not None
    tested = any(t.test for t in front.members) or bool(base.test)

    def source(t: Trial) -> Metrics:
        return t.test if tested else t.metrics

    def score(t: Trial) -> str:
        if name not in source(t):
            return ""
        return with_error(source(t)[name]) if noise else f"{source(t)[name].mean:.4g}"

    def gained(t: Trial) -> str | Text:
        moved = score_change(source(t), source(base), name)
        if t is base or moved is None:
            return ""
        text = difference(moved, noise=wide)
        low, high = moved.interval
        if low <= 0 <= high:  # nothing that the items can tell
            return text
        return Text(text, style="red" if (high < 0) == metric.maximize else "green")

    def validated(t: Trial) -> str:
        m = t.metrics[name]
        return f"{m.mean:.{decimals(m.stderr)}f}" if m.stderr else f"{m.mean:.4g}"

    columns = [
        Column(f"{metric.title} ({'test' if tested else 'val'})", score, priority),
        Column("change", gained, 0 if noise else 1),
    ]
    return [*columns, Column("val", validated, 7)] if tested else columns


def _cost(metric: Metric) -> Callable[[Trial], str]:
    return lambda t: value_of(metric, figures(t).get(metric.name))


def _cost_columns(front: Front, metric: Metric, *, noise: bool) -> list[Column]:
    """A cost, and where its record says so its change against the untouched model."""
    base, name, place = front.baseline, metric.name, metric.shown
    assert base is not None

    def ratio(t: Trial) -> str | Text:
        m = figures(t).get(name)
        if t is base or m is None:
            return "1.00x" if t is base else NONE
        text = value(metric, m.mean) + (f" ({interval(m)})" if m.stderr and noise else "")
        low, high = m.interval
        less, more = ("red", "green") if metric.maximize else ("green", "red")
        return Text(text, style=less if high < 1 else more if low > 1 else "")

    def relative(t: Trial) -> str | Text:
        mine, old = figures(t).get(name), figures(base).get(name)
        if t is base or mine is None or old is None:
            return ""
        return _coloured(metric, mine.mean, old.mean)

    priority = place.terminal or 0
    if metric.form == "ratio":
        title = metric.column if noise else metric.column.split()[-1]
        return [Column(title, ratio, priority)]
    columns = [Column(metric.column, _cost(metric), priority)]
    return columns if place.change is None else [*columns, Column("change", relative, place.change)]


def _coloured(metric: Metric, new: float, old: float) -> Text:
    text = change(new, old)
    if not text or text == "=":
        return Text(text)
    return Text(text, style="green" if (new > old) == metric.maximize else "red")


def _pipelines(trials: Sequence[Trial]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    names = all_told_apart(trial.pipeline for trial in trials)
    for trial in trials:
        grid.add_row(str(trial.number), Text(names[trial.pipeline]))
    return Padding(grid, (1, 0, 1, 1))


def _table(
    columns: Sequence[Column],
    rows: Sequence[Trial],
    *,
    width: int,
    rule_after_first: bool = False,
    fold_last: bool = False,
) -> Table:
    """The rows in as many columns as `width` has room for.

    With `fold_last`, the last column takes what is left.
    """
    cells = [[c.cell(t) for t in rows] for c in columns]
    shown = list(enumerate(columns))

    def needed() -> int:
        fixed = shown[:-1] if fold_last else shown
        content = sum(max(len(c.title), *(len(x) for x in cells[i]), 0) for i, c in fixed)
        return content + _GAP * len(shown) + (30 if fold_last else 0)

    while needed() > width and any(c.priority for _, c in shown):
        shown.remove(max(shown, key=lambda pair: pair[1].priority))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for _, column in shown:
        last = fold_last and column is columns[-1]
        title = Text(column.title)
        table.add_column(
            title, justify="right" if column.right else "left", no_wrap=not last, overflow="fold"
        )
    for row in range(len(rows)):
        # As texts: a string would be read as markup.
        shown_cells = (cells[i][row] for i, _ in shown)
        made = (cell if isinstance(cell, Text) else Text(cell) for cell in shown_cells)
        table.add_row(*made, end_section=rule_after_first and row == 0)
    return table


def trials_view(front: Front, *, width: int) -> RenderableType:
    """All trials with what is known of their objectives, and why there is no more."""

    def objective(o: Objective) -> Callable[[Trial], str]:
        metric = front.catalogue[o.metric]
        return lambda t: value(metric, t.metrics[o.metric].mean) if o.metric in t.metrics else ""

    def outcome(t: Trial) -> str | Text:
        words = names[t.pipeline]
        reasons = [explained] if (explained := explanation(t)) else []
        if t.failure:
            reasons.insert(0, f"{printable(t.failure.stage)}: {first_line(t.failure.message)}")
        style = _STYLES.get(t.status, "red") if t.failure else "yellow"
        return Text(words) + Text("".join(f"\n{reason}" for reason in reasons), style=style)

    def origin(t: Trial) -> str:
        return printable(t.origin.name) + ("" if t.origin.parent is None else f" {t.origin.parent}")

    def status(t: Trial) -> Text:
        style = _STYLES.get(t.status, "red") if t.fidelity.full else "dim"
        words = (t.status.value.replace("_", " "), fidelity_in_words(t.fidelity))
        return Text(", ".join(filter(None, words)), style=style)

    numbers = {t.number for t in front.members}
    names = all_told_apart(t.pipeline for t in front.trials)
    columns = [
        Column("#", lambda t: f"{'* ' if t.number in numbers else ''}{t.number}"),
        Column("status", status, right=False),
        *(
            Column(front.catalogue.label(o.metric), objective(o), i)
            for i, o in enumerate(front.objectives)
        ),
        Column("time", lambda t: duration(t.seconds), 8),
        Column("from", origin, 9, right=False),
        Column("pipeline", outcome, right=False),
    ]
    return Group(
        _table(columns, front.trials, width=width, fold_last=True),
        Text(
            f"{count_statuses(front.trials)}. * on the front; metrics on the validation split."
            f"\n{screening(front)}".rstrip(),
            style="dim",
        ),
    )
