"""The front as an HTML table, for reports and notebooks."""

from __future__ import annotations

from petra.core.objective import METRICS, Metrics
from petra.core.trial import Trial
from petra.front import Front, confirmed
from petra.report import page
from petra.report.numbers_text import change, difference, duration, interval, value, with_error
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words, trace_in_words


def front_table(front: Front) -> str:
    """The front as an HTML table, the untouched model first; also what notebooks show of a
    `Front`.
    """
    base = front.baseline
    if base is None:
        return f"<p>{esc(front.why_empty())}</p>"
    shown = [base, *(m for m in front.members if m is not base)]
    head = [
        "trial",
        f"{esc(front.metric)}, test",
        "latency ratio",
        "size",
        "latency",
        f"{esc(front.metric)}, validation",
    ]
    head += ["throughput", "parameters", "MACs", "memory"]
    caption = (
        "Models that no other beats in every objective. ± is one standard error; under a figure its"
        " change against the untouched model, under the latency ratio its 95% interval. The search"
        " saw the validation split only."
    )
    return page.table(
        head,
        [_front_row(front, t, base) for t in shown],
        caption=caption,
        classes=("name",),
        first="baseline",
        below=[_labels(front, t) + esc(pipeline_in_words(t.pipeline)) for t in shown],
    )


def _front_row(front: Front, trial: Trial, base: Trial) -> list[str]:
    ratio = confirmed(trial, "latency_ratio")
    within = f"<br><small>{esc(interval(ratio))}</small>" if ratio.stderr else ""

    def quality(mine: Metrics, old: Metrics) -> str:
        if "quality" not in mine:
            return "<small>not read</small>"
        text = esc(with_error(mine["quality"]))
        if trial is base or "quality" not in old:
            return text
        worse = (mine["quality"].mean < old["quality"].mean) == front.maximize_quality
        return text + _note(difference(mine["quality"], old["quality"]), worse=worse)

    def cost(name: str) -> str:
        new, old = confirmed(trial, name).mean, confirmed(base, name).mean
        note = "" if trial is base else change(new, old)
        return esc(value(name, new)) + _note(
            note, worse=(new > old) != bool(METRICS[name].maximize)
        )

    return [
        str(trial.number),
        quality(trial.test, base.test),
        "1.00x" if trial is base else f"{ratio.mean:.2f}x{within}",
        cost("size_bytes"),
        esc(value("latency_ms", confirmed(trial, "latency_ms").mean)),
        quality(trial.metrics, base.metrics),
        *map(cost, ("throughput", "params", "macs", "memory_mb")),
    ]


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
