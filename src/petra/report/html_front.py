"""The front as an HTML table, for reports and notebooks."""

from __future__ import annotations

from petra.core.objective import METRICS, Metrics
from petra.core.trial import Trial
from petra.front import Front, confirmed
from petra.report import page
from petra.report.numbers_text import change, difference, interval, value, with_error
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words


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
