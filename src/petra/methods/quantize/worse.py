"""What counts as worse when outputs move: how far they move, or what a task's error rises by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from petra.core.interface import judged_output
from petra.core.measurement import LARGEST
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs, comparable

Worse = Callable[[Outputs, Outputs], float]
"""Outputs by name as they have become, and as they were, (n, ...) each -> how much worse."""


def relative_distance(prediction: Tensor, reference: Tensor) -> float:
    """||p - r||^2 / ||r - mean over items of r||^2 of two sets of predictions, both (n, ...); of
    decisions, which are whole numbers or booleans, the share that differs. `LARGEST` where
    predictions are not finite.
    """
    if not reference.is_floating_point():
        return float((prediction != reference).double().mean())
    spread = (reference - reference.mean(0, keepdim=True)).square().sum()
    found = float((prediction - reference).square().sum() / spread.clamp_min(1e-12))
    return found if math.isfinite(found) else LARGEST


def moved(after: Outputs, before: Outputs) -> float:
    """`relative_distance` of the one output that tasks look at unless they say otherwise."""
    return _distances(after, before, (judged_output(tuple(before)),))


def _distances(after: Outputs, before: Outputs, names: Iterable[str]) -> float:
    """`relative_distance`, summed over outputs."""
    return sum(relative_distance(comparable(after[n]), comparable(before[n])) for n in names)


@dataclass(frozen=True)
class Moved:
    """How far those outputs move that a task looks at: `relative_distance`, summed."""

    task: Task

    def __call__(self, after: Outputs, before: Outputs) -> float:
        return _distances(after, before, self.task.judged(tuple(before)))


@dataclass(frozen=True)
class RiseOfError:
    """By how much the error E of a task rises on items with these `targets` (n, ...):

        (E(p + d) + E(p - d)) / 2 - E(p)

    for outputs p that move by d. By the rise for d alone layers could not be ranked: to first order
    it is as often a fall, by chance. That part has the other sign for -d, and cancels. What is left
    of a squared error is d^2; of an absolute one, what d exceeds the residual by: an error that is
    judged so hides what is smaller than itself. Outputs of which the error is undefined count by
    how far they move (`Moved`). Costs three values of the error.
    """

    task: Task
    targets: Tensor

    def __call__(self, after: Outputs, before: Outputs) -> float:
        mirrored = {
            name: 2 * t - after[name] if t.is_floating_point() else t for name, t in before.items()
        }
        down, up, now = (
            self.task.error_of(outputs, self.targets) for outputs in (after, mirrored, before)
        )
        rise = (down + up) / 2 - now
        return rise if math.isfinite(rise) else Moved(self.task)(after, before)
