"""What was told, as arrays; and which part of it a model is fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from petra.core.pipeline import Pipeline
from petra.core.trial import Trial, TrialStatus
from petra.moo.dominance import ranks
from petra.search.scaling import Scaling
from petra.search.surrogate.quantities import Quantity
from petra.space.encoding import Encoding

Floats = NDArray[np.float64]
MOST = 250  # trials that hyperparameters are fitted to
GROWTH = 0.1  # they are fitted again when there are so many more trials
MOST_NEW = 100  # or at the latest after so many


class Memory:
    """Trials in the order of telling. A function of that order alone."""

    def __init__(
        self, encoding: Encoding, scaling: Scaling, quantities: Sequence[Quantity]
    ) -> None:
        self.encoding, self.scaling, self.quantities = encoding, scaling, quantities
        self.rows: list[Floats] = []
        self.worked: list[bool | None] = []  # None where nobody knows: left before it was tried
        self.values: list[list[tuple[float, float] | None]] = []
        self.fitted = 0  # trials that there were when the hyperparameters were fitted last
        self._ranking: list[tuple[float, ...] | None] = []
        self._chosen: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, pipeline: Pipeline) -> Floats:
        """Features (d,) in [-1, 1], 0 for what a pipeline does not have."""
        return 2 * self.encoding.encode(pipeline) - 1

    def add(self, trial: Trial) -> None:
        """Take a result in."""
        self.rows.append(self.features(trial.pipeline))
        failed = trial.status in (TrialStatus.FAILED, TrialStatus.TIMED_OUT)
        self.worked.append(False if failed else True if trial.measured else None)
        self.values.append([q.observe(self.scaling, trial) for q in self.quantities])
        usable = self.scaling.usable(trial)
        self._ranking.append(
            (*self.scaling.costs(trial), self.scaling.violation(trial)) if usable else None
        )
        if len(self) - self.fitted >= min(max(1, int(GROWTH * self.fitted)), MOST_NEW):
            self.fitted = len(self)
            self._chosen = self._choose()

    def used(self) -> list[int]:
        """Indices of the trials that a model is made of now, ascending."""
        return [*self._chosen, *range(self.fitted, len(self))]

    def chosen(self) -> list[int]:
        """Those of them that its hyperparameters are fitted to."""
        return self._chosen

    def _choose(self) -> list[int]:
        """All while they are few; else the best half of `MOST`, the latest quarter and, evenly
        spread over the rest, another.
        """
        count = len(self)
        if count <= MOST:
            return list(range(count))
        known = [i for i, r in enumerate(self._ranking) if r is not None]
        table = np.array([self._ranking[i] for i in known])
        rank = ranks(table[:, :-1], table[:, -1])
        order = np.lexsort((-np.array(known), rank))
        kept = {known[int(i)] for i in order[: MOST // 2]}
        kept |= set(range(count - MOST // 4, count))
        rest = [i for i in range(count) if i not in kept]
        wanted = min(MOST - len(kept), len(rest))
        kept |= {rest[int(k)] for k in np.linspace(0, len(rest) - 1, wanted)} if wanted else set()
        return sorted(kept)
