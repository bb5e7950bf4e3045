"""What trackers of experiments are told of trials and fronts: parameters and numbers under plain
names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from petra.core.errors import MissingExtra
from petra.core.text import first_line, printable
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report.pipeline_text import pipeline_in_words

LONGEST = 500  # characters of a parameter, which every tracker takes


def require(package: str, *, extra: str) -> None:
    """Raise MissingExtra unless a package is installed; imports nothing of it."""
    if find_spec(package) is None:
        raise MissingExtra(package, extra=extra)


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """A study's settings, flat: 'budget.time' -> '600.0'. Those that say nothing are left out."""
    found: dict[str, str] = {}
    waiting = [("", config)]
    while waiting:
        path, section = waiting.pop()
        for key, value in section.items():
            where = f"{path}{printable(key)}"
            if isinstance(value, Mapping):
                waiting.append((f"{where}.", value))
            elif value not in (None, [], ()):
                found[where] = printable(value)[:LONGEST]
    return dict(sorted(found.items()))


def parameters_of(trial: Trial) -> dict[str, str]:
    """The pipeline in words, and each parameter of its stages: '0.prune.structured.ratio'."""
    found = {"pipeline": pipeline_in_words(trial.pipeline)[:LONGEST]}
    for i, stage in enumerate(trial.pipeline):
        for name, value in stage.params.items():
            found[f"{i}.{stage.kind}.{name}"] = printable(value)[:LONGEST]
    return found


def numbers_of(trial: Trial) -> dict[str, float]:
    """All finite numbers of a trial: its figures, its quality on the test split under
    'quality_test' once it is confirmed, and the seconds that it took.
    """
    found = {name: measured.mean for name, measured in figures(trial).items()}
    found |= {
        f"{name}_test": measured.mean for name, measured in trial.test.items() if name == "quality"
    }
    found["seconds"] = trial.seconds
    return {name: value for name, value in found.items() if math.isfinite(value)}


def outcome_of(trial: Trial) -> str:
    """How it ended: 'complete', or 'failed: export: no such operator'."""
    why = trial.failure
    if why is None:
        return trial.status.value
    return printable(f"{trial.status.value}: {why.stage}: {first_line(why.message)}")[:LONGEST]


def best_of(front: Front) -> dict[str, float]:
    """How many models are on the front, and for each objective the best value there."""
    found = {"front.members": float(len(front.members))}
    for objective in front.objectives if front.members else ():
        best = min(front.members, key=lambda trial: objective.cost(figures(trial)))
        found[f"best.{objective.metric}"] = figures(best)[objective.metric].mean
    return found
