"""The front as an HTML table, for reports and notebooks."""

from __future__ import annotations

from petra.core.metric import QUALITY, Metric
from petra.core.objective import Metrics, asked_of
from petra.core.paired import score_change
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report import page
from petra.report.numbers_text import (
    NONE,
    change,
    difference,
    duration,
    interval,
    value,
    with_error,
)
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words, trace_in_words

_SPLITS = ("test", "validation")


def front_table(front: Front) -> str:
    """The front as an HTML table, the untouched model first; also what notebooks show of a
    `Front`.
    """
    base = front.baseline
    if base is None:
        return f"<p>{esc(front.why_empty())}</p>"
    shown = [base, *(m for m in front.members if m is not base)]
    scores = [front.catalogue[name] for name in _scores(front)]
    head = ["trial", *(f"{esc(m.title)}, {split}" for m in scores for split in _SPLITS)]
    head += [esc(m.column) for m in _costs(front)]
    caption = (
        "Models that no other beats in every objective. ± is one standard error; under a figure"
        " its change against the untouched model, under the latency ratio its 95% interval. The"
        " search saw the validation split only."
    )
    return page.table(
        head,
        [_front_row(front, t, base) for t in shown],
        caption=caption,
        classes=("name",),
        first="baseline",
        below=[_labels(front, t) + esc(pipeline_in_words(t.pipeline)) for t in shown],
    )


def _scores(front: Front) -> list[str]:
    """What the task measures, by the names under which trials have it."""
    return [QUALITY, *(metric.name for metric in front.catalogue.others())]


def _costs(front: Front) -> list[Metric]:
    return front.catalogue.costs_on("page", asked_of(front.objectives, front.constraints))


def _front_row(front: Front, trial: Trial, base: Trial) -> list[str]:
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
        note = "" if trial is base else change(mine.mean, old.mean)
        worse = (mine.mean > old.mean) != bool(metric.maximize)
        return esc(value(metric, mine.mean)) + _note(note, worse=worse)

    scores = [
        score(name, mine, old)
        for name in _scores(front)
        for mine, old in ((trial.test, base.test), (trial.metrics, base.metrics))
    ]
    return [str(trial.number), *scores, *map(cost, _costs(front))]


def _labels(front: Front, trial: Trial) -> str:
    return "".join(
        f"<span class=tag>{esc(label)}</span> " for label in front.labels().get(trial.number, [])
    )


def _note(text: str, *, worse: bool) -> str:
    if not text:
        return ""
    kind = "" if text == "=" else f" class={'bad' if worse else 'good'}"
    return f"<br><small{kind}>{esc(text)}</small>"


def front_section(front: Front) -> str:
    if not front.members:
        return f"<h2>Front</h2><p>The front is empty: {esc(front.why_empty())}.</p>"
    return f"<h2>Front</h2>{front_table(front)}"


def members_section(front: Front) -> str:
    members = [t for t in front.members if t.number]
    if not members:
        return ""
    return "<h2>How they were made</h2>" + "".join(_member(t) for t in members)


def _member(trial: Trial) -> str:
    origin = trial.origin.name + (
        "" if trial.origin.parent is None else f" of trial {trial.origin.parent}"
    )
    stages = []
    for i, stage in enumerate(trial.pipeline):
        trace = trial.trace[i] if i < len(trial.trace) else None
        params = ", ".join(f"{k} = {v}" for k, v in stage.params.items()) or "no parameters"
        lines = [f"<b>{esc(stage.kind)}</b>", f"<small>{esc(params)}</small>"]
        if trace:
            lines.append(esc(trace_in_words(trace)))
            lines += [
                f"<small>left alone: {esc(layer)} ({esc(why)})</small>"
                for layer, why in trace.skipped.items()
            ]
        stages.append(f"<li>{'<br>'.join(lines)}</li>")
    files = (
        f"<p class=soft>By {esc(origin)}; {esc(duration(trial.seconds))};"
        f" <code>{esc(trial.artifact)}</code></p>"
    )
    title = f"trial {trial.number}: {esc(pipeline_in_words(trial.pipeline))}"
    return f"<details><summary>{title}</summary><ol>{''.join(stages)}</ol>{files}</details>"
