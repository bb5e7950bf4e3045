"""The model card that ships with a file: what it is, what it gained, what it lost, where that was
measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, Metric
from petra.core.objective import Metrics, asked_of
from petra.core.paired import score_change
from petra.core.target import Target
from petra.core.text import printable
from petra.core.trial import SCREEN, Trial
from petra.report.evidence import Evidence
from petra.report.interface_text import at_lengths
from petra.report.numbers_text import change, difference, interval, value, with_error
from petra.report.pipeline_text import pipeline_in_words, trace_in_words
from petra.report.record import StudyRecord
from petra.runtimes.base import Runtime
from petra.runtimes.table import RUNTIMES, runtime_for, runtimes_by_suffix
from petra.store.schema import petra_version


def model_card(baseline: Trial | None, record: StudyRecord, file: str, evidence: Evidence) -> str:
    """The card of `file` as Markdown."""
    trial = evidence.trial
    untouched = not trial.pipeline.stages
    sections = [
        f"# {markdown(subject(record))}: trial {trial.number}",
        (
            f"`{code(file)}` is"
            f" {'the untouched model' if untouched else 'a compressed version of the model'}, found"
            f" by petra {markdown(_version(record.host, 'petra') or petra_version())}, exported for"
            f" {markdown(record.config.target.name)}, reloaded in a fresh process, checked"
            " against the PyTorch model and measured as the file it is."
        ),
        "## How it was made",
        _pipeline(trial),
        "## Figures",
        _figures(trial, baseline, record),
        "## What is worse than in the untouched model",
        _worse(trial, baseline, record),
        "## Agreement with PyTorch",
        _parity(trial),
        "## Measured on",
        _host(record),
        "## Preprocessing",
        _listed(evidence.preprocessing_lines()),
        "## What it takes and returns",
        _listed(f"takes {line}" for line in evidence.input_lines()),
        _listed(f"returns {line}" for line in evidence.output_lines()),
        "## How to run it",
        f"```python\n{_runtime(record, file).snippet(file, evidence.inputs)}\n```",
        "## How to check it",
        _check(file, evidence),
    ]
    return "\n\n".join(sections) + "\n"


def subject(record: StudyRecord) -> str:
    """What was compressed: the workload's, the model file's or function's name, else the study
    directory's.
    """
    if record.config.workload:
        return record.config.workload.name
    if record.config.model:
        return Path(record.config.model.file).name or record.config.model.call
    return record.directory.resolve().name


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def _check(file: str, evidence: Evidence) -> str:
    lines = [
        f"`petra verify {code(file)}` holds this file, and all beside it, against `SHA256SUMS`,"
        " loads it in a fresh process and runs it."
    ]
    if evidence.sample:
        inputs, outputs = evidence.sample
        lines.append(
            f"`{code(inputs)}` has {evidence.items} validation items as it takes them, for"
            f" `numpy.load`; `{code(outputs)}` what it returned for them. Elsewhere it may differ"
            f" from that by {evidence.tolerance:.1%} of their spread."
        )
    if data := _listed(evidence.data_lines()):
        lines.append(f"The data that the figures are of:\n\n{data}")
    return "\n\n".join(lines)


def _runtime(record: StudyRecord, file: str) -> Runtime:
    """The runtime that was measured; where that one is not known, the plainest for the file."""
    target = record.config.target
    if target.runtime not in RUNTIMES:
        target = Target(runtimes_by_suffix()[Path(file).suffix])
    return runtime_for(target)


def _pipeline(trial: Trial) -> str:
    if not trial.pipeline.stages:
        return "Exported as it was given; nothing was changed."
    lines = [
        f"{markdown(pipeline_in_words(trial.pipeline))}. All parameters are in `pipeline.yaml`.",
        "",
    ]
    lines += [
        f"{i}. {markdown(t.stage)}: {trace_in_words(t)}"
        for i, t in enumerate(trial.trace, 1)
        if t.stage != SCREEN
    ]
    return "\n".join(lines).rstrip()


def _figures(trial: Trial, baseline: Trial | None, record: StudyRecord) -> str:
    rows = ["| | this model | untouched model | change |", "|---|---:|---:|---:|"]
    metric = markdown(record.metric)
    for score in _scores(trial, baseline, record):
        rows.append(
            f"| {markdown(score.metric.title)}, {score.split} | {with_error(score.mine)} |"
            f" {with_error(score.base)} | {difference(score.change)} |"
        )
    for cost in _costs(record):
        new, old = _pair(trial, baseline, cost.name)
        if new and old:
            shown = (value(cost, new.mean), value(cost, old.mean), change(new.mean, old.mean))
            rows.append(f"| {markdown(cost.title)} | {' | '.join(shown)} |")
    ratio = trial.test.get("latency_ratio", trial.metrics["latency_ratio"])
    within = f" (95% interval {interval(ratio)})" if ratio.stderr else ""
    notes = [
        (
            "Latency over the untouched model's, measured in turns in one process:"
            f" {ratio.mean:.2f}x{within}. Of the two, this ratio carries to other times and"
            " machines better than milliseconds."
        ),
        f"± is one standard error. The search chose by {metric} on the validation split; the test"
        " split was read once, for models already chosen."
        + ("" if trial.test else " This model has not been confirmed on it."),
    ]
    return "\n".join(rows) + "\n\n" + "\n\n".join(notes)


@dataclass(frozen=True)
class _Score:
    """One of the task's metrics on a split: of this model and of the untouched one."""

    metric: Metric
    split: str
    mine: Measurement
    base: Measurement
    change: Measurement


def _scores(trial: Trial, baseline: Trial | None, record: StudyRecord) -> Iterator[_Score]:
    """What the task measures on each split that was read."""
    other = baseline or trial
    splits: tuple[tuple[str, Metrics, Metrics], ...] = (
        ("test", trial.test, other.test),
        ("validation", trial.metrics, other.metrics),
    )
    for name in (QUALITY, *(metric.name for metric in record.catalogue.others())):
        for split, mine, old in splits:
            moved = score_change(mine, old, name)
            if moved is not None:
                where = f"{split} ({mine[name].n} items)"
                yield _Score(record.catalogue[name], where, mine[name], old[name], moved)


def _costs(record: StudyRecord) -> list[Metric]:
    return record.catalogue.costs_on("card", asked_of(record.objectives, record.constraints))


def _pair(
    trial: Trial, baseline: Trial | None, name: str
) -> tuple[Measurement | None, Measurement | None]:
    def of(t: Trial) -> Measurement | None:
        return t.test.get(name) or t.metrics.get(name)

    return of(trial), of(baseline) if baseline else None


def _worse(trial: Trial, baseline: Trial | None, record: StudyRecord) -> str:
    found = []
    for score in _scores(trial, baseline, record):
        delta, (low, high) = score.change.mean, score.change.interval
        if (delta < 0) if score.metric.maximize else (delta > 0):
            remark = " (within the 95% interval of the items it was measured on)"
            text = difference(score.change) + (remark if low <= 0 <= high else "")
            found.append(f"- {markdown(score.metric.title)} on {score.split}: {text}")
    for cost in _costs(record):
        first, second = _pair(trial, baseline, cost.name)
        if first and second and cost.scale != "half":  # of these the untouched model has none
            delta = first.mean - second.mean
            if (delta < 0) if cost.maximize else (delta > 0):
                text = change(first.mean, second.mean) or "more"
                found.append(f"- {markdown(cost.title)}: {text}")
    return "\n".join(f for f in found if not f.endswith(": =")) or "Nothing that was measured."


def _parity(trial: Trial) -> str:
    if not trial.parity:
        return "Not recorded."
    names = {
        "max_abs_error": "largest absolute difference of an output",
        "relative_error": "root mean square difference over the outputs' spread",
        "metric_difference": "difference of the metric on the same items",
        "error_rise": "rise of the error, as a share of it",
        "tolerance": "what was allowed of that root mean square difference",
    }
    return "\n".join(
        f"- {markdown(names.get(name, name))}: {number:.3g}"
        for name, number in trial.parity.items()
    )


def _host(record: StudyRecord) -> str:
    host, target = record.host, record.config.target
    sets = host.get("instruction_sets")
    present = [name for name, has in sets.items() if has] if isinstance(sets, Mapping) else []
    versions = host.get("versions")
    shown = (
        ", ".join(f"{k} {v}" for k, v in versions.items() if v)
        if isinstance(versions, Mapping)
        else ""
    )

    def fact(name: str, unknown: str) -> str:
        return markdown(host.get(name, unknown))

    return "\n".join(
        [
            (
                f"- {fact('cpu', 'unknown CPU')}, {fact('cores', '?')} cores,"
                f" {fact('memory_gb', '?')} GiB;"
                f" {markdown(', '.join(present)) or 'no vector extensions recorded'};"
                f" {fact('os', '')}"
            ),
            (
                f"- {target.threads} thread{'s' if target.threads > 1 else ''}, latency at batch"
                f" {target.batch}, throughput at batch {target.throughput_batch}"
                f"{at_lengths(record.interface)}"
            ),
            f"- Python {fact('python', '?')}, {markdown(shown)}",
        ]
    )


def markdown(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no links, no HTML."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", printable(text))


def code(text: object) -> str:
    """Text for between two backticks."""
    return printable(text).replace("`", "'")


def _version(host: Mapping[str, object], name: str) -> str:
    versions = host.get("versions")
    return str(versions.get(name, "")) if isinstance(versions, Mapping) else ""
