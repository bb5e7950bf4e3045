"""What counts as worse when outputs move: how far they move, or what a task's error rises by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from petra.tasks.base import Task
from petra.tasks.inputs import Outputs, comparable, main_output

Worse = Callable[[Outputs, Outputs], float]
"""Outputs by name as they have become, and as they were, (n, ...) each -> how much worse."""


def relative_distance(prediction: Tensor, reference: Tensor) -> float:
    """||p - r||^2 / ||r - mean over items of r||^2 of two sets of predictions, both (n, ...)."""
    spread = (reference - reference.mean(0, keepdim=True)).square().sum()
    return float((prediction - reference).square().sum() / spread.clamp_min(1e-12))


def moved(after: Outputs, before: Outputs) -> float:
    """`relative_distance` of the one output that is judged."""
    return relative_distance(comparable(main_output(after)), comparable(main_output(before)))


@dataclass(frozen=True)
class RiseOfError:
    """By how much the error E of a task rises on items with these `targets` (n, ...):

        (E(p + d) + E(p - d)) / 2 - E(p)

    for outputs p that move by d. By the rise for d alone layers could not be ranked: to first order
    it is as often a fall, by chance. That part has the other sign for -d, and cancels. What is left
    of a squared error is d^2; of an absolute one, what d exceeds the residual by: an error that is
    judged so hides what is smaller than itself. Outputs of which the error is undefined count by
    how far they move. Costs three values of the error.
    """

    task: Task
    targets: Tensor

    def __call__(self, after: Outputs, before: Outputs) -> float:
        mirrored = {
            name: 2 * t - after[name] if t.is_floating_point() else t for name, t in before.items()
        }
        down, up, now = (self._error(outputs) for outputs in (after, mirrored, before))
        rise = (down + up) / 2 - now
        return rise if math.isfinite(rise) else moved(after, before)

    def _error(self, outputs: Outputs) -> float:
        quality = float(self.task.quality_of(outputs, self.targets))
        return -quality if self.task.maximize else quality
