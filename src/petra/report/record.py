"""All that a study directory knows, read once and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petra.config import StudyConfig, parse_config
from petra.core.announced import BROUGHT_NOTE, missing_error
from petra.core.errors import ConfigError, StoreError
from petra.core.interface import Interface
from petra.core.meaning import Meaning
from petra.core.metric import (
    METRICS,
    PETRA_METRICS,
    QUALITY,
    Catalogue,
    Metric,
    required_metrics,
    task_metric,
    task_metrics,
)
from petra.core.objective import Constraint, Objective, named_objectives
from petra.core.text import printable
from petra.core.trial import Trial, TrialStatus
from petra.front import Front
from petra.moo.dominance import front_mask
from petra.store.checked import DAMAGE_HINT, mapping, number, sequence, text, whole
from petra.store.kept_files import FILES, Digests, read_digests
from petra.store.points import Points
from petra.store.store import Store
from petra.store.stored_trials import StoredTrials

MOST_LEADING = 10_000  # more are read with all others


@dataclass(frozen=True)
class StudyRecord:
    """A study as it lies on disk: finished, interrupted or still running.

    `task` are the metrics that the task measures, the quality first. `stop_reason` is '' until the
    search has ended and its front has been confirmed; `eager_latency_ms` is the untouched model in
    eager PyTorch, None before it was measured. `unconfirmed` are members of the front that could
    not be measured on the test split, and why; `no_better` those whose quality cannot be told from
    which model of lower costs; `measured_again` what the search had measured otherwise; `seeds` the
    quality of those that were built again with other seeds. `interface` is what the model takes and
    returns, `meaning` what that means, None in studies that do not say. `digests` are the SHA-256
    of members' files as the search left them, by trial and name. `leading` are the trials among
    which the front is, the untouched model first: all, where all were read.
    """

    directory: Path
    config: StudyConfig
    host: Mapping[str, object]
    trials: Sequence[Trial]
    leading: Sequence[Trial]
    task: tuple[Metric, ...]
    stop_reason: str
    eager_latency_ms: float | None
    elapsed_s: float
    unconfirmed: Mapping[int, str] = field(default_factory=dict)
    no_better: Mapping[int, int] = field(default_factory=dict)
    seeds: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    measured_again: Mapping[int, str] = field(default_factory=dict)
    interface: Interface | None = None
    meaning: Meaning | None = None
    digests: Digests = field(default_factory=dict)

    @staticmethod
    def load(directory: str | Path, *, whole: bool = True) -> StudyRecord:
        """Read a study. Raises StoreError when there is none or anything in it makes no sense.

        Where that is enough, `whole` may be False: then only the trials among which the front is
        are read and checked now (`Store.open` says how), and all others once `trials` is looked
        at.
        """
        directory = Path(directory)
        with Store.open(directory, write=False, whole=whole) as store:
            _check_metrics(store)
            config = _config(store, directory)
            try:
                task = _task(store.note("task"), config)
                trials, leading = _trials(store, named_objectives(config.objectives, task=task))
                record = StudyRecord(
                    directory=directory,
                    config=config,
                    host=store.host,
                    trials=trials,
                    leading=leading,
                    task=task,
                    stop_reason=text(store.note("stop_reason") or "", "note 'stop_reason'"),
                    eager_latency_ms=_latency(store.note("eager_latency_ms")),
                    elapsed_s=store.elapsed(),
                    unconfirmed=_reasons(store, "unconfirmed"),
                    measured_again=_reasons(store, "measured_again"),
                    no_better=_numbers(store.note("no_better")),
                    seeds=_seeds(store.note("seeds")),
                    interface=_interface(store.note("interface")),
                    meaning=_meaning(store.note("meaning")),
                    digests=read_digests(store.note(FILES)),
                )
                _check_trials(record)
            except ValueError as error:
                raise StoreError(f"{directory} is damaged: {error}", hint=DAMAGE_HINT) from error
        return record

    @property
    def metric(self) -> str:
        """The title of the quality."""
        return self.task[0].title

    @property
    def maximize(self) -> bool:
        """Whether more of the quality is better."""
        return bool(self.task[0].maximize)

    @property
    def catalogue(self) -> Catalogue:
        """How every metric of the study is shown."""
        return Catalogue(self.task)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return named_objectives(self.config.objectives, task=self.task)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self.config.parsed_constraints()

    def front(self) -> Front:
        """The Pareto set of its trials."""
        front = Front.of(
            self.leading,
            self.objectives,
            self.constraints,
            task=self.task,
            unconfirmed=self.unconfirmed,
            no_better=self.no_better,
            seeds=self.seeds,
            measured_again=self.measured_again,
        )
        return front if self.leading is self.trials else replace(front, trials=self.trials)


def _trials(
    store: Store, objectives: Sequence[Objective]
) -> tuple[Sequence[Trial], Sequence[Trial]]:
    """All trials, and those among which the front is."""
    numbers = [] if store.points is None else leading_numbers(store.points, objectives)
    if store.points is None or len(numbers) > MOST_LEADING:
        everything = tuple(store.trials())
        return everything, everything
    directory = store.directory
    later = StoredTrials(store.points, lambda: StudyRecord.load(directory).trials)
    return later, tuple(store.trials(numbers))


def leading_numbers(points: Points, objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the trials among which the front is, whatever of them is confirmed: the untouched
    model, all with measurements on the test split, and of all others that are complete those that
    none of them dominates.
    """
    confirmed = np.zeros(len(points), dtype=bool)
    for column in points.test.values():
        confirmed |= ~np.isnan(column)
    complete = np.array([s == TrialStatus.COMPLETE.value for s in points.statuses], dtype=bool)
    others = complete & points.full & ~confirmed
    unknown = np.full(len(points), np.nan)
    costs = np.array([o.costs(points.val.get(o.metric, unknown)) for o in objectives]).T
    others &= np.isfinite(costs).all(axis=1)
    if others.any():
        others[np.flatnonzero(others)] = front_mask(costs[others])
    found = set(points.numbers[confirmed | others].tolist())
    return sorted(found | {0} & set(points.numbers.tolist()))


def _by_trial(note: object, name: str) -> dict[int, object]:
    """A note that says something of some trials, by number."""
    found = mapping(note or {}, f"note {name!r}")
    if not all(n.isdecimal() and n.isascii() and len(n) < 10 for n in found):
        raise ValueError(f"note {name!r} is not about trials")
    return {int(n): said for n, said in found.items()}


def _reasons(store: Store, name: str) -> dict[int, str]:
    """Trial number -> what a note says of it, on one line."""
    return {
        n: printable(" ".join(text(why, f"note {name!r} about {n}").split()))
        for n, why in _by_trial(store.note(name), name).items()
    }


def _numbers(note: object) -> dict[int, int]:
    """Trial number -> trial number."""
    found = _by_trial(note, "no_better")
    return {n: whole(other, "note 'no_better'") for n, other in found.items()}


def _seeds(note: object) -> dict[int, tuple[float, ...]]:
    """Trial number -> its quality with each seed with which it was built again and did not fail."""
    name = "note 'seeds'"
    return {
        n: tuple(number(q, name) for q in sequence(found, name) if q is not None)
        for n, found in _by_trial(note, "seeds").items()
    }


def _config(store: Store, directory: Path) -> StudyConfig:
    try:
        return parse_config(store.config, where=f"{directory}: stored settings")
    except ConfigError as error:
        raise StoreError(error.message, hint=error.hint or DAMAGE_HINT) from error


def _check_metrics(store: Store) -> None:
    """Raise PluginError where a metric that the study is about is of a package that is not there:
    nothing else of a package is needed to read what was measured.
    """
    note = store.note(BROUGHT_NOTE)
    for key, package in note.items() if isinstance(note, dict) else ():
        noun, _, name = key.partition(" ")
        if noun == METRICS.noun and name not in METRICS:
            raise missing_error(store.directory, [(key, str(package))])


def _task(note: object, config: StudyConfig) -> tuple[Metric, ...]:
    """The metrics that the task measures, as the study's first run described them."""
    named = [name for name in config.metrics_named() if name not in METRICS]
    if note is None:  # before the first run: not known yet
        return tuple(task_metric(name, maximize=True) for name in (QUALITY, *named))
    task = mapping(note, "note 'task'")
    metric, maximize = text(task.get("metric"), "the metric"), task.get("maximize")
    if not 0 < len(metric) <= 200 or metric != printable(metric) or not isinstance(maximize, bool):
        raise ValueError("note 'task' is not a metric and its direction")
    listed = sequence(task.get("metrics") or [], "the task's metrics")
    try:
        found = task_metrics(mapping(one, "a metric of the task") for one in listed)
    except ConfigError as error:
        raise ValueError(f"note 'task': {error.message}") from None
    found = found or (task_metric(QUALITY, maximize=maximize, title=metric),)
    if lacking := [name for name in named if name not in Catalogue(found)]:
        raise ValueError(f"note 'task' does not know the metric {lacking[0]}")
    return found


def _interface(note: object) -> Interface | None:
    if note is None:
        return None
    try:
        return Interface.from_dict(mapping(note, "note 'interface'"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"note 'interface' describes no model: {error}") from error


def _meaning(note: object) -> Meaning | None:
    return None if note is None else Meaning.from_dict(mapping(note, "note 'meaning'"))


def _latency(note: object) -> float | None:
    name = "note 'eager_latency_ms'"
    return None if note is None else number(note, name, negative=False)


def _check_trials(record: StudyRecord) -> None:
    """Refuse measured trials that lack a metric, and trials without the untouched model."""
    named = required_metrics(record.config.metrics_named())
    wanted = {*named, *(m.name for m in record.task[1:])}
    # What everything else is compared with cannot be zero.
    positive = {m.name for m in PETRA_METRICS if m.positive}
    for trial in record.leading:
        lacking = sorted(wanted - trial.metrics.keys()) if trial.measured else []
        if lacking:
            raise ValueError(f"trial {trial.number} has no {', '.join(lacking)}")
        for name in positive & trial.metrics.keys():
            if not trial.metrics[name].mean > 0:
                raise ValueError(f"{name} of trial {trial.number} is {trial.metrics[name].mean:g}")
    if record.trials:
        first = record.leading[0]
        if first.number or first.pipeline.stages or not first.measured:
            raise ValueError("trial 0, the untouched model, is missing")
