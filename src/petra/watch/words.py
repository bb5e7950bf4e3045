"""What came of candidates, and what is being done with others, each on one line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from petra.core.metric import describe
from petra.core.text import first_line, printable
from petra.core.trial import Failure, Trial, TrialStatus
from petra.front import Front, broken, figures
from petra.report.numbers_text import duration, value
from petra.report.pipeline_text import fidelity_in_words, pipeline_in_words
from petra.watch.look import Look


@dataclass(frozen=True)
class Running:
    """A candidate that has not ended: what it is, what is being done with it, and for how many
    seconds, where that is said.
    """

    number: int
    words: str
    doing: str
    for_s: float | None

    def __str__(self) -> str:
        spent = "" if self.for_s is None else f", for {duration(self.for_s)}"
        return f"trial {self.number}: {self.doing}{spent}: {self.words}"


def running(look: Look) -> list[Running]:
    """The candidates in the workers' hands, as far as the session says so; of one that was killed,
    as it was. Where nothing is said, all that have not ended.
    """
    if look.seen is None:
        return []
    waiting = {p.number: p.pipeline for p in look.seen.waiting}
    if look.activity is None:
        how = "waiting or under way" if look.holder else "not evaluated"
        return [Running(n, pipeline_in_words(p), how, None) for n, p in sorted(waiting.items())]
    ended = {t.number: t.pipeline for t in look.seen.trials if t.number in look.activity.running}
    words = {n: pipeline_in_words(p) for n, p in (waiting | ended).items()}
    now = look.at if look.holder else look.activity.at
    return [
        Running(n, words.get(n, ""), printable(step), max(0.0, now - step.since))
        for n, step in sorted(look.activity.running.items())
    ]


def outcome(trial: Trial, front: Front) -> str:
    """What a trial was found to be, or why it was not: 'accuracy 0.9712, latency ratio 0.53x'."""
    if trial.failure:
        return failure_in_words(trial.failure)
    found = figures(trial)
    parts = [
        f"{metric.column} {value(metric, m.mean)}"
        for o in front.objectives
        if (metric := front.catalogue[o.metric]) and (m := found.get(o.metric))
    ]
    parts += [*misses(trial, front), fidelity_in_words(trial.fidelity)]
    return printable(", ".join(filter(None, parts)))


def failure_in_words(failure: Failure) -> str:
    """'export: no such operator'."""
    return printable(f"{failure.stage}: {first_line(failure.message) or failure.kind}")


def misses(trial: Trial, front: Front) -> list[str]:
    """By how much a measured trial breaks which constraints: '151 kB is 152% beyond size_bytes <=
    60000'.
    """
    if trial.status is not TrialStatus.INFEASIBLE or front.baseline is None:
        return []
    base = front.baseline  # both as they were measured at one time, as `broken` compares them
    mine, of_base = (figures(trial), figures(base)) if trial.test else (trial.metrics, base.metrics)
    found = []
    for constraint in broken(front.constraints, trial, base):
        by = constraint.violation(mine, of_base)
        beyond = f"{by:.0%} beyond" if math.isfinite(by) else "beyond"
        shown = value(describe(constraint.metric), mine[constraint.metric].mean)
        found.append(f"{shown} is {beyond} {constraint}")
    return found


@dataclass(frozen=True)
class Ending:
    """Trials that came to nothing for one reason, with an example."""

    how: str
    why: str
    count: int
    example: Trial


def endings(trials: Sequence[Trial], front: Front) -> list[Ending]:
    """Infeasible, screened and failed trials by reason, the most frequent first. One that breaks
    two constraints counts for both.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        for reason in _reasons(trial, front) if trial.number else ():
            counts[reason] += 1
            first.setdefault(reason, trial)
    return [Ending(*reason, count, first[reason]) for reason, count in counts.most_common()]


def _reasons(trial: Trial, front: Front) -> list[tuple[str, str]]:
    how = trial.status.value.replace("_", " ")
    if trial.failure:
        screened = trial.status is TrialStatus.SCREENED
        kind = trial.failure.kind if screened else f"{trial.failure.stage}: {trial.failure.kind}"
        return [(how, printable(kind))]
    if trial.status is not TrialStatus.INFEASIBLE or front.baseline is None:
        return []
    return [(how, str(c)) for c in broken(front.constraints, trial, front.baseline)]


def latest(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The trials that ended last, the newest first; without the untouched model."""
    ended = sorted((t for t in trials if t.number), key=lambda t: (t.finished_at, t.number))
    return ended[::-1][:count]
