"""The search contract: ask for a generation of proposals, tell its finished trials.

A generation is proposed whole, and the next one only after all of it has been told, in order of
trial number. So proposals depend on the seed and on the results told, never on the number of
workers or on who finished first; and resuming is replaying: ask, tell the stored trials, go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial
from petra.search.options import SearchOptions
from petra.space.space import Space


@dataclass(frozen=True)
class Problem:
    """What every searcher is given. `initial` are distinct legal pipelines that it proposes before
    any of its own.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    initial: tuple[Pipeline, ...] = ()


class Searcher(ABC):
    """Proposes pipelines. Holds no state that is not a function of (problem, options, trials told).

    `Options` is the frozen dataclass of the searcher's options. `stop_reason` says, once `ask` has
    returned fewer proposals than usual or none, why the searcher has ended; '' before.
    """

    Options: ClassVar[type[SearchOptions]] = SearchOptions

    def __init__(
        self, problem: Problem, baseline: Trial, options: SearchOptions | None = None
    ) -> None:
        """`baseline` is trial 0, the untouched model, already measured; proposals are numbered from
        1.
        """
        self.problem = problem
        self.baseline = baseline
        self.stop_reason = ""

    @abstractmethod
    def ask(self) -> list[Proposal]:
        """The next generation, with consecutive numbers and no pipeline ever proposed before.
        Empty: nothing left.
        """

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """All trials of the generation last asked for, sorted by number."""
