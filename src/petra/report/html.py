"""The report of a study as one HTML file that can be mailed, archived and opened without a
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from petra.core.errors import ConfigError
from petra.core.whole import write_whole
from petra.front import Front, confirmed
from petra.report import page
from petra.report.card import subject
from petra.report.doubts import doubts
from petra.report.entries import entries
from petra.report.glossary import glossary_section
from petra.report.history import hypervolume_reached
from petra.report.html_charts import charts_section
from petra.report.html_front import front_section
from petra.report.html_outcomes import (
    explained_section,
    failures_section,
    moves_section,
    screened_section,
)
from petra.report.html_trials import members_section, trials_section
from petra.report.metric_text import constraint_words, metric_words, renamed
from petra.report.numbers_text import change, duration, value, with_error
from petra.report.page import esc
from petra.report.pipeline_text import count_statuses
from petra.report.record import StudyRecord
from petra.store.layout import StudyPaths
from petra.store.schema import petra_version


def write_report(directory: str | Path, out: Path | None = None) -> Path:
    """Write the report of the study in `directory` to `out` (default: ``report.html`` in it) and
    return its path.

    About 100 kB, and some hundred bytes for every trial. Works for a study that is still running.
    Raises StoreError when there is no study, ConfigError when the file cannot be written.
    """
    record = StudyRecord.load(directory)
    target = out or StudyPaths(record.directory).report
    title = f"{subject(record)}: petra study"
    text = page.page(title, render(record), script=page.script("report.js", "trial.js"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():  # a device or a pipe that somebody names
            target.write_text(text, encoding="utf-8")
        else:
            write_whole(target.resolve(), text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"report: cannot write {target}: {error}", hint="give another --out"
        ) from error
    return target


def render(record: StudyRecord) -> str:
    """The body of the report."""
    front = record.front()
    trials, reached = entries(front), hypervolume_reached(front)
    sections = [
        _summary(record, front),
        front_section(front),
        charts_section(front, trials, reached),
        trials_section(front, trials, record.directory),
        members_section(trials, record.directory),
        screened_section(front),
        explained_section(front),
        failures_section(front),
        moves_section(reached),
        _host(record),
        _reproduce(record),
        glossary_section(front),
        f"<p class=soft>Written by petra {esc(petra_version())}.</p>",
    ]
    return "\n".join(s for s in sections if s)


# ---- summary -------------------------------------------------------------------------------------


def _summary(record: StudyRecord, front: Front) -> str:
    config = record.config
    objectives = ", ".join(
        f"{'more' if o.maximize else 'less'} {metric_words(front.catalogue[o.metric])}"
        for o in front.objectives
    )
    reason = record.stop_reason
    stopped = f"Stopped: {reason}." if reason else "The search has not ended yet."
    parts = [
        f"<h1>{esc(subject(record))}</h1>",
        f"<p class=lead>{esc(renamed(front.catalogue, _headline(front)))}</p>",
        (
            f"<p>Searched for {esc(objectives)} on {esc(config.target.name)} with"
            f" {esc(_search_name(record))}, seed "
            f"{config.seed}. {esc(_constraints(front))} {esc(_budget(record))} "
            f"{esc(stopped)}</p>"
        ),
        *(
            f"<p>{esc(f'Trial {n} is not confirmed: {reason}')}</p>"
            for n, reason in front.unconfirmed.items()
        ),
        *(f"<p>{esc(renamed(front.catalogue, f'Trial {line}.'))}</p>" for line in doubts(front)),
        page.tiles(_tiles(record, front)),
    ]
    return "".join(parts)


def _headline(front: Front) -> str:
    """The result in a sentence: what the knee costs and gains."""
    compressed = [t for t in front.members if t.number]
    if not front.members:
        return f"No model to ship: {front.why_empty()}."
    if not compressed:
        return (
            "Nothing that was tried beats the untouched model: it is the only member of the front."
        )
    knee = front.choose("knee")
    base = front.baseline
    if base is None or not knee.number:
        return f"{len(compressed)} compressed models on the front."
    split = "test" if "quality" in knee.test and "quality" in base.test else "validation"
    mine, old = (knee.test, base.test) if split == "test" else (knee.metrics, base.metrics)
    size = change(knee.metrics["size_bytes"].mean, base.metrics["size_bytes"].mean)
    return (
        f"{len(compressed)} compressed model{'s' if len(compressed) > 1 else ''} on the front. At"
        f" its knee: size {size}, {confirmed(knee, 'latency_ratio').mean:.2f}x the latency,"
        f" {front.metric} {with_error(mine['quality'])} against {with_error(old['quality'])} on the"
        f" {split} split."
    )


def _search_name(record: StudyRecord) -> str:
    return str(record.config.search.get("name", "evolution"))


def _constraints(front: Front) -> str:
    return (
        f"Demanded: {'; '.join(constraint_words(front.catalogue, c) for c in front.constraints)}."
        if front.constraints
        else "No constraints."
    )


def _budget(record: StudyRecord) -> str:
    budget = record.config.budget
    limits = [duration(budget.time)] if budget.time is not None else []
    limits += [f"{budget.trials} trials"] if budget.trials is not None else []
    limits += [f"{budget.generations} generations"] if budget.generations is not None else []
    goal = f" or until {', '.join(budget.goal)}" if budget.goal else ""
    return f"Budget: {' or '.join(limits)}{goal}; {duration(record.elapsed_s)} spent."


def _tiles(record: StudyRecord, front: Front) -> dict[str, str]:
    searched = [t for t in front.trials if t.number]
    facts = {f"trials: {count_statuses(front.trials)}": str(len(searched))}
    if front.baseline:
        base = front.baseline
        split, found = (
            ("test", base.test) if "quality" in base.test else ("validation", base.metrics)
        )
        title = f"{front.metric} of the untouched model, {split} split"
        facts[title] = esc(with_error(found["quality"]))
        facts["its latency on this runtime"] = esc(
            value("latency_ms", confirmed(base, "latency_ms").mean)
        )
        facts["its size"] = esc(value("size_bytes", base.metrics["size_bytes"].mean))
    if record.eager_latency_ms is not None:
        facts["its latency in eager PyTorch"] = esc(value("latency_ms", record.eager_latency_ms))
    return facts


# ---- where and how -------------------------------------------------------------------------------


def _host(record: StudyRecord) -> str:
    rows = []
    for name, fact in record.host.items():
        if isinstance(fact, Mapping):
            if all(isinstance(v, bool) for v in fact.values()):
                shown = ", ".join(k for k, has in fact.items() if has) or "none"
            else:
                shown = ", ".join(f"{k} {v}" for k, v in fact.items() if v)
        else:
            shown = str(fact)
        rows.append([esc(name.replace("_", " ")), esc(shown)])
    table = page.table(
        ["what", "which"],
        rows,
        caption="Where every figure above was taken",
        classes=("name", "text"),
    )
    return f"<h2>Machine and versions</h2>{table}"


def _reproduce(record: StudyRecord) -> str:
    settings = record.config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    if record.config.has_source:
        how = (
            "Save this as <code>study.yaml</code> and run <code>petra run study.yaml</code>. The"
            " same seed on the same machine proposes the same pipelines."
        )
    else:
        how = (
            "The model and the data were given as live Python objects: call"
            " <code>petra.compress(model, task, ...)</code> with the same objects and these"
            " settings."
        )
    return f"<h2>How to reproduce</h2><p>{how}</p><pre><code>{esc(text)}</code></pre>"
