"""The front as an HTML table, for reports and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from petra.core.metric import QUALITY, Metric
from petra.core.objective import Metrics, asked_of
from petra.core.paired import score_change
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report import page
from petra.report.metric_text import column_words, renamed
from petra.report.numbers_text import (
    NONE,
    change,
    difference,
    interval,
    value,
    with_error,
)
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words

_SPLITS = ("test", "validation")


def front_table(front: Front, *, linked: bool = False) -> str:
    """The front as an HTML table, the untouched model first; also what notebooks show of a
    `Front`. With `linked`, numbers are links to the trials in the same page.
    """
    base = front.baseline
    if base is None:
        return f"<p>{esc(front.why_empty())}</p>"
    shown = [base, *(m for m in front.members if m is not base)]
    scores = [front.catalogue[name] for name in _scores(front)]
    head = ["trial", *(f"{esc(m.title)}, {split}" for m in scores for split in _SPLITS)]
    head += [esc(column_words(m)) for m in _costs(front)]
    caption = (
        "Models that no other beats in every objective. ± is one standard error; under a figure"
        " its change against the untouched model, under what is measured in turns with it (times"
        " the untouched model's) its 95% interval. The search saw the validation split only."
    )
    rows, picks = [_front_row(front, t, base) for t in shown], front.labels()
    for row, trial in zip(rows if linked else [], shown, strict=False):
        row[0] = page.trial_link(trial.number)
    return page.table(
        head,
        rows,
        caption=caption,
        classes=("name",),
        first="baseline",
        below=[_labels(picks, t) + esc(pipeline_in_words(t.pipeline)) for t in shown],
    )


def _scores(front: Front) -> list[str]:
    """What the task measures, by the names under which trials have it."""
    return [QUALITY, *(metric.name for metric in front.catalogue.others())]


def _costs(front: Front) -> list[Metric]:
    return front.catalogue.costs_on("page", asked_of(front.objectives, front.constraints))


def _front_row(front: Front, trial: Trial, base: Trial) -> list[str]:
    paired = {metric.over for metric in _costs(front)}  # their change is told by another column

    def score(name: str, mine: Metrics, old: Metrics) -> str:
        if name not in mine:
            return "<small>not read</small>"
        text = esc(with_error(mine[name]))
        moved = score_change(mine, old, name)
        if trial is base or moved is None:
            return text
        worse = (moved.mean < 0) == front.catalogue[name].maximize
        return text + _note(difference(moved), worse=worse)

    def cost(metric: Metric) -> str:
        mine, old = figures(trial).get(metric.name), figures(base).get(metric.name)
        if mine is None or old is None:
            return "" if old is None else NONE
        if metric.form == "ratio":
            within = f"<br><small>{esc(interval(mine))}</small>" if mine.stderr else ""
            return "1.00x" if trial is base else f"{value(metric, mine.mean)}{within}"
        untold = trial is base or metric.name in paired
        note = "" if untold else change(mine.mean, old.mean)
        worse = (mine.mean > old.mean) != bool(metric.maximize)
        return esc(value(metric, mine.mean)) + _note(note, worse=worse)

    scores = [
        score(name, mine, old)
        for name in _scores(front)
        for mine, old in ((trial.test, base.test), (trial.metrics, base.metrics))
    ]
    return [str(trial.number), *scores, *map(cost, _costs(front))]


def _labels(picks: Mapping[int, Sequence[str]], trial: Trial) -> str:
    labels = picks.get(trial.number, ())
    return "".join(f"<span class=tag>{esc(label)}</span> " for label in labels)


def _note(text: str, *, worse: bool) -> str:
    if not text:
        return ""
    kind = "" if text == "=" else f" class={'bad' if worse else 'good'}"
    return f"<br><small{kind}>{esc(text)}</small>"


def front_section(front: Front) -> str:
    if not front.members:
        why = renamed(front.catalogue, front.why_empty())
        return f"<h2>Front</h2><p>The front is empty: {esc(why)}.</p>"
    return f"<h2>Front</h2>{front_table(front, linked=True)}"
