"""How far a stage trains, and where it goes on from what an earlier evaluation trained.

A shortened training is the true beginning of the whole one: the learning rate follows the schedule
of all epochs, and stops early. So whoever trains it further continues, and trains no step twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class TrainingState:
    """All that a training goes on from: tensors by name, and JSON data."""

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """How many it has behind it."""
        return int(self.record["steps"])


Watch = Callable[[Sequence[float], int], None]


class States(Protocol):
    """Where the states of one stage's trainings are kept, each by its place among them, from 0."""

    def load(self, training: int) -> TrainingState | None:
        """None where there is none, or it is damaged."""

    def save(self, training: int, state: TrainingState) -> None:
        """Keep it in the place of an earlier one, if there is room."""


class Effort:
    """What one run of a stage trains: `epochs` passes in all, over as many trainings as it takes
    (iterative stages have several); None: all that the stage asks for.

    With `states`, each training goes on from where an earlier run of the same stage was stopped,
    and where it is stopped itself, its state is kept. `watch` is told validation scores, of the
    weights before a training and after each epoch so far, and the epochs of all of it; what it
    raises ends the training.
    """

    def __init__(
        self,
        epochs: Fraction | None = None,
        states: States | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._left = epochs
        self._states = states
        self.watch: Watch = watch or (lambda scores, epochs: None)
        self._training = -1

    def begin(self, total: int, per_epoch: int) -> int:
        """The next training begins, of `total` steps: how many it is to make, at least one while
        anything is left.
        """
        self._training += 1
        if self._left is None:
            return total
        steps = min(total, math.ceil(self._left * per_epoch))
        self._left = max(Fraction(0), self._left - Fraction(steps, per_epoch))
        return steps

    def found(self, steps: int) -> TrainingState | None:
        """The state that this training may go on from to its `steps`, if one was kept."""
        state = self._states.load(self._training) if self._states else None
        return state if state and state.steps <= steps else None

    @property
    def keeps(self) -> bool:
        """Whether this training's state is asked for when it ends."""
        return self._states is not None and self._left is not None

    def keep(self, state: TrainingState) -> None:
        if self._states is not None:
            self._states.save(self._training, state)
