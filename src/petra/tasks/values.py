"""What tasks with real targets share: every digit of a prediction counts."""

from __future__ import annotations

from dataclasses import dataclass

from petra.tasks.base import Task
from petra.tasks.losses import Distance, Loss
from petra.tasks.scorers import Scorer
from petra.tasks.sources import Reader
from petra.tasks.targets import real_values
from petra.tasks.unit import in_unit
from petra.tasks.value_losses import (
    AbsoluteError,
    Huber,
    LaiAbsoluteError,
    LaiSquaredError,
    SquaredError,
    SquaredPredictions,
)

LOSSES: tuple[Loss, ...] = (
    SquaredError(),
    AbsoluteError(),
    Huber(),
    LaiSquaredError(),
    LaiAbsoluteError(),
)


@dataclass(frozen=True, kw_only=True)
class ValueTask(Task):
    """Real targets. `measured` are the scorers, the quality first. `unit` is what petra's own
    losses and the distance measure residuals in.
    """

    measured: tuple[Scorer, ...]
    trained: tuple[Loss, ...] = LOSSES
    unit: float = 1.0

    @property
    def judged_by_error(self) -> bool:
        """Always: a coefficient of determination is one of the errors, too."""
        return True

    def reader(self) -> Reader:
        return real_values

    def losses(self) -> tuple[Loss, ...]:
        return in_unit(self.trained, self.unit)

    def distance(self) -> Distance:
        return SquaredPredictions(self.unit)

    def scorers(self) -> tuple[Scorer, ...]:
        return self.measured
