"""Which results a proposal is made from. Decided here alone, and not by what real workers happen to
have finished: so any number of them gets the same proposals, and none waits for the slowest.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from petra.core.errors import StoreError
from petra.core.rivals import Rivals
from petra.core.trial import Proposal, Trial
from petra.search.base import Searcher
from petra.search.durations import Durations
from petra.search.rivalry import Rivalry


class Schedule(ABC):
    """A function of the proposals made and of the trials that it had told, both in their order. It
    knows nothing of workers, clocks or results that are not told yet.
    """

    @abstractmethod
    def due(self, number: int) -> Sequence[int]:
        """Trials to tell before proposal `number` is made, in the order of telling, those told
        before left out. Changes nothing: it is asked until all of them are there.
        """

    @abstractmethod
    def proposed(self, proposal: Proposal) -> None:
        """A proposal was made."""

    @abstractmethod
    def told(self, trial: Trial) -> None:
        """The searcher learned a result."""


class VirtualSchedule(Schedule):
    """Virtual workers run the proposals, in order, each for its predicted seconds; a proposal is
    made from the trials that have virtually finished when one of them is free for it.

    `workers` proposals are virtually under way at any time: as many real workers are never idle
    where the predictions are right, twice as many where they are off by a third. Proposals are made
    from older results the more there are. Where all take equally long, a proposal is made from all
    trials up to its number less `workers`.
    """

    def __init__(self, workers: int, durations: Durations) -> None:
        """Raises ValueError for no worker."""
        if workers < 1:
            raise ValueError(f"workers: got {workers}, somebody has to do it")
        self.workers = workers
        self._durations = durations
        self._now = 0.0
        self._running: dict[int, tuple[float, int]] = {}  # by number: its end, and its number

    def due(self, number: int) -> Sequence[int]:
        over = len(self._running) - self.workers + 1
        return [n for _, n in heapq.nsmallest(over, self._running.values())]

    def proposed(self, proposal: Proposal) -> None:
        end = self._now + self._durations.predict(proposal)
        self._running[proposal.number] = (end, proposal.number)

    def told(self, trial: Trial) -> None:
        end, _ = self._running.pop(trial.number)
        self._now = max(self._now, end)
        self._durations.learn(trial)


class Stream:
    """The proposals of a searcher, each as soon as the results it is made from are there, and what
    each of them is up against.
    """

    def __init__(self, searcher: Searcher, schedule: Schedule) -> None:
        self.searcher = searcher
        self._schedule = schedule
        self._results: dict[int, Trial] = {}  # finished and not told yet
        self._rivalry = Rivalry(searcher.problem, searcher.baseline)
        self._rivals: dict[int, Rivals] = {}  # of proposals that have not finished

    def restore(self, made: Iterable[Proposal], finished: Mapping[int, Trial]) -> None:
        """Go on from stored proposals, by number, and those of their trials that are stored.

        Raises StoreError when a proposal was made from a trial that is not there.
        """
        self._results = {number: trial for number, trial in finished.items() if number}
        for proposal in made:
            self._tell(proposal.told, proposal.number)
            self.searcher.restore(proposal)
            self._made(proposal)
            if proposal.number in finished:
                del self._rivals[proposal.number]

    def put(self, trial: Trial) -> None:
        """Hand in a finished trial; it is told when it is due."""
        self._results[trial.number] = trial
        self._rivals.pop(trial.number, None)

    def rivals(self, number: int) -> Rivals:
        """What proposal `number`, which has not finished, is up against: a function of what the
        searcher was told before it, so the same in every session.
        """
        return self._rivals[number]

    def next(self) -> Proposal | None:
        """The next proposal; None while results are awaited, and when the search has ended
        (`searcher.stop_reason`).
        """
        due = self._schedule.due(self.searcher.number)
        if self.searcher.stop_reason or not all(number in self._results for number in due):
            return None
        self._tell(due, self.searcher.number)
        proposal = self.searcher.ask()
        if proposal is not None:
            self._made(proposal)
        return proposal

    def _made(self, proposal: Proposal) -> None:
        self._schedule.proposed(proposal)
        self._rivals[proposal.number] = self._rivalry.rivals

    def _tell(self, numbers: Sequence[int], asking: int) -> None:
        for number in numbers:
            trial = self._results.pop(number, None)
            if trial is None:
                raise StoreError(
                    f"proposal {asking} was made from trial {number}, which is not there",
                    hint="the study was changed by something other than petra; restore a copy",
                )
            self.searcher.tell(trial)
            self._rivalry.learn(trial)
            self._schedule.told(trial)
