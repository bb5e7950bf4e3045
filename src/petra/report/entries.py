"""One trial as the page shows it, in texts that are ready: the same for the data that the page's
script reads, for the table without a script, and for what is printed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from petra.core.measurement import Measurement
from petra.core.metric import Metric
from petra.core.objective import Metrics
from petra.core.text import printable
from petra.core.trial import SCREEN, Trial
from petra.front import Front, figures
from petra.report.metric_text import metric_words
from petra.report.numbers_text import interval, value, value_of, with_error
from petra.report.outcomes import explanation
from petra.report.pipeline_text import fidelity_in_words, pipeline_in_words, trace_in_words
from petra.report.verdicts import Kind, Verdict, verdicts

MOST_SKIPPED = 12  # layers that are named, of those that were left alone for one reason


@dataclass(frozen=True)
class Figure:
    """One metric of a trial: its name, its value, and what the search had measured where that was
    measured again and differs.
    """

    name: str
    value: str
    search: str = ""


@dataclass(frozen=True)
class Step:
    """One stage of a trial: what was asked for, what it did, and which layers it left alone."""

    kind: str
    params: Mapping[str, object]
    trace: str
    skipped: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """A trial, its pipeline in words, what became of it, and what the names pick it for."""

    trial: Trial
    words: str
    verdict: Verdict
    picks: Sequence[str]
    front: Front

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def origin(self) -> str:
        """Where it comes from: 'add + perturb of trial 7'."""
        origin = self.trial.origin
        parent = "" if origin.parent is None else f" of trial {origin.parent}"
        return f"{printable(' + '.join(origin.moves))}{parent}"

    @property
    def reason(self) -> str:
        """Why it is no member of the front, and where an error that rose much comes from."""
        said = [self.verdict.reason, explanation(self.trial)]
        effort = fidelity_in_words(self.trial.fidelity)
        if effort and self.verdict.kind is not Kind.PARTLY:
            said.append(effort)
        return "; ".join(filter(None, said))

    @cached_property
    def values(self) -> list[Measurement | None]:
        """The objectives, in their order; None for what was not measured."""
        known = figures(self.trial)
        return [known.get(o.metric) for o in self.front.objectives]

    @property
    def value_texts(self) -> list[str]:
        known = self.front.catalogue
        pairs = zip(self.front.objectives, self.values, strict=True)
        return [value_of(known[o.metric], found) for o, found in pairs]

    @property
    def exportable(self) -> bool:
        """Whether `petra export --pick NUMBER` takes it: members of the front only."""
        if self.verdict.kind is Kind.UNTOUCHED:
            return any(t.number == self.number for t in self.front.members)
        return self.verdict.kind is Kind.FRONT

    def figures(self) -> list[Figure]:
        """All that was measured, what the task measures on both splits."""
        known, trial = self.front.catalogue, self.trial
        found: list[Figure] = []
        for name in known.names():
            metric = known[name]
            if metric.sampled:
                splits = (("test", trial.test), ("validation", trial.metrics))
                found += [
                    Figure(f"{metric.title}, {split}", _text(metric, of[name]))
                    for split, of in splits
                    if name in of
                ]
            elif (now := figures(trial).get(name)) is not None:
                found.append(_cost(metric, now, trial.metrics))
        return found

    def steps(self) -> list[Step]:
        """Its stages, in order."""
        traces = [t for t in self.trial.trace if t.stage != SCREEN]
        steps = []
        for i, stage in enumerate(self.trial.pipeline):
            trace = traces[i] if i < len(traces) else None
            words = trace_in_words(trace) if trace else ""
            skipped = _left_alone(trace.skipped) if trace else []
            steps.append(Step(stage.kind, dict(stage.params), words, skipped))
        return steps


def entries(front: Front) -> list[Entry]:
    """Every trial, in order of number."""
    found, picks = verdicts(front), front.labels()

    def entry(trial: Trial) -> Entry:
        words, number = pipeline_in_words(trial.pipeline), trial.number
        return Entry(trial, words, found[number], picks.get(number, ()), front)

    return [entry(trial) for trial in front.trials]


def export_command(directory: Path) -> str:
    """What copies a member of the front out of the study, but for its number."""
    return f"petra export {shlex.quote(printable(directory))} --pick "


def _left_alone(skipped: Mapping[str, str]) -> list[str]:
    """The layers of each reason: 'stem, head and 3 more (too thin)'."""
    layers: dict[str, list[str]] = {}
    for layer, why in skipped.items():
        layers.setdefault(why, []).append(layer)
    said = []
    for why, named in layers.items():
        more = len(named) - MOST_SKIPPED
        names = ", ".join(named[:MOST_SKIPPED]) + (f" and {more} more" if more > 0 else "")
        said.append(printable(f"{names} ({why})"))
    return said


def _cost(metric: Metric, now: Measurement, search: Metrics) -> Figure:
    text = _text(metric, now)
    before = _text(metric, search[metric.name]) if metric.name in search else text
    return Figure(metric_words(metric), text, "" if before == text else before)


def _text(metric: Metric, found: Measurement) -> str:
    """The value with what is known of its error."""
    if metric.sampled:
        return f"{with_error(found)} {metric.unit}".rstrip()
    if metric.form == "ratio" and found.stderr:
        return f"{value(metric, found.mean)} ({interval(found)})"
    return value(metric, found.mean)
