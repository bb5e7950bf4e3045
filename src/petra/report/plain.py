"""Fronts and trials as plain data, for JSON."""

from __future__ import annotations

from dataclasses import asdict

from petra.core.objective import Metrics
from petra.core.trial import Trial
from petra.report.outcomes import explanation, screening
from petra.report.pipeline_text import pipeline_in_words
from petra.report.study_front import StudyFront
from petra.store.stored_trials import statuses_of


def front_data(front: StudyFront) -> dict[str, object]:
    """The front, the untouched model, and how the trials ended."""
    labels = front.labels()
    return {
        "directory": str(front.directory),
        "metric": front.metric,
        "metrics": [metric.as_dict() for metric in front.task],
        "objectives": [{"metric": o.metric, "maximize": o.maximize} for o in front.objectives],
        "constraints": [str(c) for c in front.constraints],
        "trials": dict(statuses_of(front.trials)),
        "baseline": trial_data(front.baseline) if front.baseline else None,
        "front": [trial_data(t) | {"picks": labels.get(t.number, [])} for t in front.members],
        "why_empty": front.why_empty(),
        "nearest": nearest.as_dict() if (nearest := front.nearest()) else None,
        "other_seeds": {str(number): list(found) for number, found in front.seeds.items()},
        "no_better_than": {str(one): other for one, other in front.no_better.items()},
        "measured_again": {str(n): text for n, text in front.measured_again.items()},
        "screening": screening(front).as_dict(),
        "not_confirmed": {str(number): reason for number, reason in front.unconfirmed.items()},
    }


def trial_data(trial: Trial) -> dict[str, object]:
    """One trial."""
    failure = trial.failure
    return {
        "number": trial.number,
        "status": trial.status.value,
        "pipeline": trial.pipeline.as_list(),
        "words": pipeline_in_words(trial.pipeline),
        "origin": {"moves": list(trial.origin.moves), "parent": trial.origin.parent},
        "fidelity": asdict(trial.fidelity),
        "validation": _metrics(trial.metrics),
        "test": _metrics(trial.test),
        "parity": dict(trial.parity),
        "artifact": trial.artifact,
        "failure": (
            {"stage": failure.stage, "kind": failure.kind, "message": failure.message}
            if failure
            else None
        ),
        "explanation": explanation(trial) or None,
        "seconds": trial.seconds,
        "finished_at": trial.finished_at,
    }


def _metrics(metrics: Metrics) -> dict[str, object]:
    return {name: m.as_dict() for name, m in metrics.items()}
