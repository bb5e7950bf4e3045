"""Trials that are read when they are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import overload

from petra.core.trial import Trial, TrialStatus
from petra.store.points import Points

MEASURED = (TrialStatus.COMPLETE.value, TrialStatus.INFEASIBLE.value)


class StoredTrials(Sequence[Trial]):
    """All trials of a study by number. Their number, and how they ended, is known by its points;
    anything else reads, and checks, all of them once.
    """

    def __init__(self, points: Points, read: Callable[[], Sequence[Trial]]) -> None:
        self.points = points
        self._read = read

    @cached_property
    def statuses(self) -> Mapping[str, int]:
        """How often each status occurs, the untouched model left out."""
        pairs = zip(self.points.numbers, self.points.statuses, strict=True)
        return Counter(status for number, status in pairs if number)

    @cached_property
    def reduced(self) -> int:
        """How many were measured at a reduced fidelity."""
        pairs = zip(self.points.statuses, self.points.full, strict=True)
        return sum(status in MEASURED and not full for status, full in pairs)

    @cached_property
    def _all(self) -> Sequence[Trial]:
        return self._read()

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, at: int) -> Trial: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Trial]: ...

    def __getitem__(self, at: int | slice) -> Trial | Sequence[Trial]:
        return self._all[: len(self)][at]


def statuses_of(trials: Sequence[Trial]) -> Mapping[str, int]:
    """How often each status occurs, the untouched model left out."""
    if isinstance(trials, StoredTrials):
        return trials.statuses
    return Counter(trial.status.value for trial in trials if trial.number)


def reduced_of(trials: Sequence[Trial]) -> int:
    """How many were measured at a reduced fidelity."""
    if isinstance(trials, StoredTrials):
        return trials.reduced
    return sum(trial.measured and not trial.comparable for trial in trials)
