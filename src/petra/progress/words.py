"""What happens in a study, in words: a line for a trial, what a worker does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from petra.core.metric import describe
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.text import first_line, printable
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.near_miss import Miss, misses
from petra.report.numbers_text import change, duration, value
from petra.report.pipeline_text import fidelity_in_words, pipeline_in_words, told_apart

STEPS = {
    "export": "exporting",
    "measure": "measuring",
    "compare": "comparing with PyTorch",
    "score": "scoring",
    "confirm": "confirming",
}
"""Steps after the stages of a pipeline, as people say them."""


class Names:
    """Pipelines in words, each of which says what tells it from those named before that would be
    called the same.
    """

    def __init__(self) -> None:
        self._alike: dict[str, dict[Pipeline, None]] = {}

    def of(self, pipeline: Pipeline) -> str:
        known = self._alike.setdefault(pipeline_in_words(pipeline), {})
        name = told_apart(pipeline, known)
        known[pipeline] = None
        return name


def outcome(
    trial: Trial,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    baseline: Trial | None,
) -> str:
    """'complete, accuracy 0.97, size 61 kB (-75%), 8.1 s', or which constraint is broken by how
    much, or why there is no result.
    """
    status = trial.status.value.replace("_", " ")
    if trial.status is TrialStatus.INFEASIBLE and baseline is not None:
        found = misses(trial.metrics, constraints, baseline.metrics)
        status += f" ({' and '.join(map(miss_in_words, found))})" if found else ""
    came_to = values(trial, objectives, baseline) if trial.measured else reason(trial)
    parts = (status, fidelity_in_words(trial.fidelity), came_to, duration(trial.seconds))
    return ", ".join(filter(None, parts))


def miss_in_words(miss: Miss) -> str:
    """'size_bytes 75.2 kB is 25% above 60.0 kB'."""
    metric = describe(miss.constraint.metric)
    side = "below" if miss.constraint.at_least else "above"
    by = f"{miss.by:.0%}" if miss.by >= 0.0995 else f"{miss.by:.1%}"
    beyond = f"{by} {side} {value(metric, miss.bound)}"
    return f"{metric.name} {value(metric, miss.value)} is {beyond}"


def values(trial: Trial, objectives: Sequence[Objective], baseline: Trial | None) -> str:
    """The objectives of a trial, with their changes against the untouched model."""
    return ", ".join(objective_in_words(o, trial, baseline) for o in objectives)


def objective_in_words(objective: Objective, trial: Trial, baseline: Trial | None) -> str:
    """'accuracy 0.9712', 'size 61.2 kB (-75%)'."""
    metric = describe(objective.metric)
    if trial.number == 0 and metric.over in trial.metrics:  # a ratio to itself says nothing
        metric = describe(metric.over)
    m = trial.metrics[metric.name]
    name = (m.unit or metric.title) if metric.sampled else metric.name.split("_")[0]
    text = f"{name} {value(metric, m.mean)}"
    if baseline is None or trial.number == 0 or metric.sampled or metric.form == "ratio":
        return text
    moved = change(m.mean, baseline.metrics[objective.metric].mean)
    return f"{text} ({moved})" if moved else text


def reason(trial: Trial) -> str:
    """Why a trial has no result."""
    if trial.failure is None:
        return "no result"
    said = first_line(trial.failure.message) or trial.failure.kind
    return printable(f"{trial.failure.stage}: {said}")


def activity(proposal: Proposal, note: WorkerNote, before: str) -> str:
    """What a worker's note says; `before` is what was said of the proposal last."""
    if isinstance(note, StepBegan):
        stages = len(proposal.pipeline)
        if note.index < stages:
            return f"{note.name} (stage {note.index + 1} of {stages})"
        return STEPS.get(note.name, note.name)
    stage = before.partition(": ")[0]
    return f"{stage}: {note.done}/{note.total} {note.text}".rstrip()


def counted(number: int, noun: str) -> str:
    """'1 model', '2 models'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def left_in_words(seconds: float) -> str:
    """'2 min 05 s left'; nothing is said to the second once it is nearly over."""
    if not math.isfinite(seconds):
        return ""
    return f"{duration(seconds)} left" if seconds >= 2 else "nearly done"
