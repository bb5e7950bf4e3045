"""The executor contract: who turns proposals into trials, and all that is given for it. A stream:
proposals go in as they are made, trials come out as they finish. The loop in `session.py` knows
nothing more about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from petra.config import SavingsConfig
from petra.core.measurement import Measurement
from petra.core.notes import WorkerNote
from petra.core.objective import Constraint
from petra.core.rivals import Rivals
from petra.core.trial import Proposal, Trial
from petra.execute.crew import Crew
from petra.measure.host import cores
from petra.store.layout import StudyPaths

if TYPE_CHECKING:
    from petra.execute.build import BuildPayload

Remaining = Callable[[], float | None]
OnNote = Callable[[Proposal, WorkerNote], None]


@dataclass(frozen=True)
class Limits:
    """What one trial may use."""

    time_s: float
    memory_mb: float


@dataclass(frozen=True)
class Assignment:
    """All that an executor is given.

    `payload` is what candidates are built from, wherever that is; `paths` is where the study keeps
    what comes of it. `crew` says how many candidates may be built side by side, each with `threads`
    threads; None: the study begins, and `Executor.baseline` chooses. `constraints` make a trial
    infeasible, `metrics` are what is asked of every trial beyond what is always measured, `savings`
    are what is left undone where it cannot matter, `host` is noted with every number. `held` raises
    StoreError when another process has taken the directory: to be asked before anything in it is
    removed.
    """

    payload: BuildPayload
    paths: StudyPaths
    limits: Limits
    constraints: tuple[Constraint, ...] = ()
    metrics: tuple[str, ...] = ()
    savings: SavingsConfig = field(default_factory=SavingsConfig)
    host: str = ""
    crew: Crew = field(default_factory=lambda: Crew(cores()))
    threads: int | None = 1
    held: Callable[[], None] = lambda: None


class Executor(ABC):
    """Used as a context manager; leaving it ends whatever still runs."""

    @abstractmethod
    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        """Trial 0 and facts worth keeping with the study (JSON data), among them how many threads
        candidates are built with (`petra.execute.training_speed`).

        Its trial may be a failed one.
        """

    @abstractmethod
    def use_baseline(self, baseline: Trial) -> None:
        """Candidates are paired with, and judged against, this trial from now on.

        Comes before `submit` and `confirm`.
        """

    @abstractmethod
    def submit(
        self, proposal: Proposal, *, rivals: Rivals, remaining: Remaining, on_note: OnNote
    ) -> None:
        """Take a proposal and return at once. It begins when there is room, those submitted first
        before later ones, or never, when `remaining()` seconds are used up by then (None: no
        limit). It may be screened, or measured no further than it matters, in the light of
        `rivals`, and of nothing that other candidates measure meanwhile.
        """

    @abstractmethod
    def results(self) -> Iterator[Trial]:
        """Trials as they finish, in any order, also of what is submitted meanwhile. Ends when
        nothing is left that was submitted; what the time did not suffice for is left out.
        """

    @abstractmethod
    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        """Measure a finished trial again, thoroughly, with its quality on the test split; speed as
        one launch has it.

        Raises StoreError when the study's directory is unusable. Anything else that it raises is
        why this one model is not confirmed.
        """

    @abstractmethod
    def time_again(self, trial: Trial) -> dict[str, Measurement]:
        """The speed of a trial that was confirmed, in a further launch. Raises as `confirm`."""

    @abstractmethod
    def difference(self, ours: Trial, theirs: Trial) -> Measurement:
        """How much more of the quality one confirmed trial has than another on the test split, with
        the error of that difference for the same items. Raises as `confirm`.
        """

    @abstractmethod
    def repeat(self, trial: Trial, seed: int) -> dict[str, Measurement]:
        """Build a trial's pipeline again with another seed than the study's: its quality on the
        test split, and its size. Raises as `confirm`.
        """

    @abstractmethod
    def close(self) -> None:
        """End everything at once."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


MakeExecutor = Callable[[Assignment], Executor]
