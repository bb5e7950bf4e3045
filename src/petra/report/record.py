"""All that a study directory knows, read once and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petra.config import StudyConfig, parse_config
from petra.core.errors import ConfigError, StoreError
from petra.core.objective import METRICS, Constraint, Objective, named_objectives
from petra.core.text import printable
from petra.core.trial import Trial
from petra.front import Front
from petra.store.checked import mapping, number, text
from petra.store.records import DAMAGE_HINT
from petra.store.store import Store


@dataclass(frozen=True)
class StudyRecord:
    """A study as it lies on disk: finished, interrupted or still running.

    `metric` is the name of the task's quality metric. `stop_reason` is '' until the search has
    ended and its front has been confirmed; `eager_latency_ms` is the untouched model in eager
    PyTorch, None before it was measured. `unconfirmed` are members of the front that could not be
    measured on the test split, and why.
    """

    directory: Path
    config: StudyConfig
    host: Mapping[str, object]
    trials: tuple[Trial, ...]
    metric: str
    maximize: bool
    stop_reason: str
    eager_latency_ms: float | None
    elapsed_s: float
    unconfirmed: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def load(directory: str | Path) -> StudyRecord:
        """Read a study. Raises StoreError when there is none or anything in it makes no sense."""
        directory = Path(directory)
        with Store.open(directory, write=False) as store:
            try:
                record = StudyRecord(
                    directory=directory,
                    config=_config(store, directory),
                    host=store.host,
                    trials=tuple(store.trials()),
                    **_task(store.note("task")),
                    stop_reason=text(store.note("stop_reason") or "", "note 'stop_reason'"),
                    eager_latency_ms=_latency(store.note("eager_latency_ms")),
                    elapsed_s=store.elapsed(),
                    unconfirmed=_reasons(store.note("unconfirmed")),
                )
                _check_trials(record)
            except ValueError as error:
                raise StoreError(f"{directory} is damaged: {error}", hint=DAMAGE_HINT) from error
        return record

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return named_objectives(self.config.objectives, maximize_quality=self.maximize)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self.config.parsed_constraints()

    def front(self) -> Front:
        """The Pareto set of its trials."""
        return Front.of(
            self.trials,
            self.objectives,
            self.constraints,
            metric=self.metric,
            maximize_quality=self.maximize,
            unconfirmed=self.unconfirmed,
        )


def _reasons(note: object) -> dict[int, str]:
    """Trial number -> why it could not be confirmed, on one line."""
    reasons = mapping(note or {}, "note 'unconfirmed'")
    if not all(n.isdecimal() and n.isascii() and len(n) < 10 for n in reasons):
        raise ValueError("note 'unconfirmed' is not a mapping of trials to reasons")
    lines = {n: " ".join(text(why, f"the reason for {n}").split()) for n, why in reasons.items()}
    return {int(n): printable(line) for n, line in lines.items()}


def _config(store: Store, directory: Path) -> StudyConfig:
    try:
        return parse_config(store.config, where=f"{directory}: stored settings")
    except ConfigError as error:
        raise StoreError(error.message, hint=error.hint or DAMAGE_HINT) from error


def _task(note: object) -> dict[str, Any]:
    if note is None:  # before the first trial
        return {"metric": "quality", "maximize": True}
    task = mapping(note, "note 'task'")
    metric, maximize = text(task.get("metric"), "the metric"), task.get("maximize")
    if not 0 < len(metric) <= 200 or metric != printable(metric) or not isinstance(maximize, bool):
        raise ValueError("note 'task' is not a metric and its direction")
    return {"metric": metric, "maximize": maximize}


def _latency(note: object) -> float | None:
    name = "note 'eager_latency_ms'"
    return None if note is None else number(note, name, negative=False)


def _check_trials(record: StudyRecord) -> None:
    """Refuse measured trials that lack a metric, and trials without the untouched model."""
    for trial in record.trials:
        lacking = sorted(METRICS.keys() - trial.metrics.keys()) if trial.measured else []
        if lacking:
            raise ValueError(f"trial {trial.number} has no {', '.join(lacking)}")
        for name in _POSITIVE & trial.metrics.keys():
            if not trial.metrics[name].mean > 0:
                raise ValueError(f"{name} of trial {trial.number} is {trial.metrics[name].mean:g}")
    if record.trials:
        first = record.trials[0]
        if first.number or first.pipeline.stages or not first.measured:
            raise ValueError("trial 0, the untouched model, is missing")


# What everything else is compared with: none of it can be zero.
_POSITIVE = frozenset({"latency_ratio", "latency_ms", "throughput", "size_bytes"})
