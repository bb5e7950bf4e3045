"""Which figures of several studies mean the same, and in what the studies differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from petra.core.metric import Metric, describe
from petra.core.objective import Objective
from petra.core.text import printable
from petra.core.trial import Trial
from petra.report.record import StudyRecord
from petra.runtimes.table import RUNTIMES

_SAME_MODEL = ("size_bytes", "params", "macs")
_NOT_SETTINGS = ("workdir", "executor")  # where and by what, not what


@dataclass(frozen=True)
class Axes:
    """The objectives that the studies are compared by; `left_out` says why others are none, by
    name, and `notes` what to know.
    """

    objectives: tuple[Objective, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def axes_of(records: Sequence[StudyRecord]) -> Axes:
    """The objectives that all studies have and that mean the same in all of them.

    What a task measures does so where metric, number of items and source agree; what is timed, on
    one host under one target with the same versions of its libraries. Ratios to untouched models
    that differ are replaced by what they are ratios of.
    """
    same_model = _same_model(records)
    chosen: list[Objective] = []
    left_out: dict[str, str] = {}
    notes = list(_notes(records, same_model=same_model))
    every = dict.fromkeys(o for record in records for o in record.objectives)
    for objective in every:
        metric = describe(objective.metric)
        reason = _unlike(objective, metric, records)
        if not reason and metric.form == "ratio" and not same_model:
            objective = Objective(metric.over, describe(metric.over).maximize or False)
            if not all(metric.over in t.metrics for r in records for t in r.front().members):
                reason = f"the untouched models differ, and {metric.over} was not measured"
        if reason:
            left_out[objective.metric] = reason
        else:
            chosen.append(objective)
    return Axes(tuple(dict.fromkeys(chosen)), left_out, tuple(notes))


def _unlike(objective: Objective, metric: Metric, records: Sequence[StudyRecord]) -> str:
    """Why an objective cannot be compared; '' where it can."""
    if any(objective.metric not in record.config.objectives for record in records):
        return "not an objective of all"
    if metric.sampled:
        return _unlike_tasks(records)
    return _unlike_machines(records) if metric.timed else ""


def _unlike_tasks(records: Sequence[StudyRecord]) -> str:
    first, *others = records
    for other in others:
        if (first.metric, first.maximize) != (other.metric, other.maximize):
            return f"the tasks measure {first.metric} and {other.metric}"
        if _source(first) != _source(other):
            return f"the tasks differ: {_source(first)} and {_source(other)}"
        mine, theirs = (_baseline(r).metrics["quality"].n for r in (first, other))
        if mine != theirs:
            return f"measured on {mine} and on {theirs} validation items"
    return ""


def _source(record: StudyRecord) -> str:
    config = record.config
    if config.workload is not None:
        return config.workload.name
    return config.task.call if config.task is not None else "live Python objects"


def _unlike_machines(records: Sequence[StudyRecord]) -> str:
    first, *others = records
    target = first.config.target
    libraries = RUNTIMES.get(target.runtime).libraries if target.runtime in RUNTIMES else ()
    for other in others:
        theirs = other.config.target
        if target != theirs:
            return f"the targets differ: {_named(first)} and {_named(other)}"
        if first.host.get("id") != other.host.get("id"):
            return (
                f"timed on other machines: {first.host.get('cpu')}, {first.host.get('cores')} cores"
                f" and {other.host.get('cpu')}, {other.host.get('cores')} cores"
            )
        for library in libraries:
            mine, its = (_versions(r).get(library, "none") for r in (first, other))
            if mine != its:
                return f"timed with {library} {mine} and {its}"
    return ""


def _named(record: StudyRecord) -> str:
    t = record.config.target
    return f"{t.name}, {t.threads} thread(s), batch {t.batch}/{t.throughput_batch}"


def _versions(record: StudyRecord) -> Mapping[str, object]:
    found = record.host.get("versions")
    return found if isinstance(found, Mapping) else {}


def _baseline(record: StudyRecord) -> Trial:
    return record.leading[0]


def _same_model(records: Sequence[StudyRecord]) -> bool:
    """Whether the untouched models are of one size, with as many parameters and operations."""
    found = {tuple(_baseline(r).metrics[name].mean for name in _SAME_MODEL) for r in records}
    return len(found) == 1


def _notes(records: Sequence[StudyRecord], *, same_model: bool) -> Iterator[str]:
    if not same_model:
        yield ("the untouched models differ: what is a ratio to them is compared in absolute terms")
    configs = [r.config for r in records]
    if not any(c.has_source for c in configs):
        yield "they were started from live Python objects: whether their data agree is not known"
    arguments = {
        json.dumps(dict(call.args), sort_keys=True, default=str)
        for c in configs
        if (call := c.workload or c.task) is not None
    }
    if len(arguments) > 1:
        yield "the data were made with other arguments: see what differs"


# ---- settings ------------------------------------------------------------------------------------


def differences(records: Sequence[StudyRecord]) -> dict[str, tuple[str, ...]]:
    """What differs between the studies: settings by their paths in a study file, then machine and
    versions, then the untouched models; each as text for every study, '-' where it has none.
    """
    tables = [_facts(record) for record in records]
    names = dict.fromkeys(name for table in tables for name in table)
    found = {name: tuple(table.get(name, "-") for table in tables) for name in names}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _facts(record: StudyRecord) -> dict[str, str]:
    settings = record.config.model_dump(mode="json", exclude=set(_NOT_SETTINGS))
    facts = dict(_flat(settings))
    facts |= {
        f"machine: {name}": _text(record.host.get(name)) for name in ("cpu", "cores", "memory_gb")
    }
    facts |= {f"version: {name}": _text(v) for name, v in _versions(record).items() if v}
    base = _baseline(record).metrics
    known = record.catalogue
    for name in ("quality", *_SAME_MODEL):
        facts[f"untouched model: {known.label(name)}"] = f"{base[name].mean:.6g}"
    return facts


def _flat(data: Mapping[str, object], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", _text(value)


def _text(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, default=str))
