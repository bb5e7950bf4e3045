"""What was told, as arrays; and which part of it a model is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petra.core.pipeline import Pipeline
from petra.core.trial import Trial, TrialStatus
from petra.moo.dominance import ranks
from petra.search.prior import WORKS, Prior
from petra.search.scaling import Scaling
from petra.search.surrogate.gp import Rows
from petra.search.surrogate.quantities import Quantity
from petra.space.encoding import Encoding

Floats = NDArray[np.float64]
MOST = 250  # trials that hyperparameters are fitted to
GROWTH = 0.1  # they are fitted again when there are so many more trials
MOST_NEW = 100  # or at the latest after so many


@dataclass(frozen=True)
class Table:
    """Pipelines as models see them: features (n, d), and what the prior says of each quantity, and
    of working, (n, q + 1).
    """

    features: Floats
    opinions: Floats

    def of(self, index: int) -> Rows:
        """For the model of quantity `index`, or of working (q)."""
        return Rows(self.features, self.opinions[:, index])


class Memory:
    """Trials in the order of telling. A function of that order, and of the prior, alone."""

    def __init__(
        self,
        encoding: Encoding,
        scaling: Scaling,
        quantities: Sequence[Quantity],
        prior: Prior | None = None,
    ) -> None:
        self.encoding, self.scaling, self.quantities = encoding, scaling, quantities
        self._prior = prior
        self._names = (*(q.objective.metric for q in quantities), WORKS)
        self._features: list[Floats] = []
        self._opinions: list[list[float]] = []
        self.worked: list[bool | None] = []  # None where nobody knows: left before it was tried
        self.values: list[list[tuple[float, float] | None]] = []
        self.fitted = 0  # trials that there were when the hyperparameters were fitted last
        self._ranking: list[tuple[float, ...] | None] = []
        self._chosen: list[int] = []

    def __len__(self) -> int:
        return len(self._features)

    def table(self, pipelines: Sequence[Pipeline]) -> Table:
        """Of any pipelines, tried or not."""
        features = [self._row(p) for p in pipelines]
        opinions = [self._opinion(p) for p in pipelines]
        return Table(
            np.array(features).reshape(len(pipelines), len(self.encoding)),
            np.array(opinions).reshape(len(pipelines), len(self._names)),
        )

    def rows(self, members: Sequence[int], index: int) -> Rows:
        """Of the trials `members`, for the model of quantity `index`, or of working."""
        features = np.array([self._features[i] for i in members])
        opinions = np.array([self._opinions[i][index] for i in members])
        return Rows(features.reshape(len(members), len(self.encoding)), opinions)

    def _row(self, pipeline: Pipeline) -> Floats:
        """Features (d,) in [-1, 1], 0 for what a pipeline does not have."""
        return 2 * self.encoding.encode(pipeline) - 1

    def _opinion(self, pipeline: Pipeline) -> list[float]:
        if self._prior is None:
            return [0.0] * len(self._names)
        return self._prior.predict(pipeline, self._names)

    def add(self, trial: Trial) -> None:
        """Take a result in."""
        self._features.append(self._row(trial.pipeline))
        self._opinions.append(self._opinion(trial.pipeline))
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
