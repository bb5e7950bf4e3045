"""What a candidate is up against: the front as it was known when the candidate was proposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petra.core.objective import Constraint, Metrics, Objective


@dataclass(frozen=True)
class Rivals:
    """All that may decide how far a candidate is worth evaluating, besides itself.

    `baseline` is what the untouched model measures; `front` what the best do among the untouched
    model and the trials that the searcher had been told when the candidate was proposed: measured
    at full fidelity, within the constraints, and not dominated. Results that came in since are not
    among them, so that no decision depends on how many workers there are, or on who was first.
    `worst` bounds the region of interest: values of objectives, by metric, beyond which a candidate
    counts for nothing (`petra.search.scaling`). `curves` are the learning curves of whole trainings
    among the trials told, the latest last: validation scores before and after each epoch.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    baseline: Metrics
    front: tuple[Metrics, ...] = ()
    worst: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[tuple[float, ...], ...] = ()
