"""When the search has ended: the front's members are measured again, in further launches and on the
test split, until those that remain on it all have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.notes import StepBegan, StepProgress, WorkerNote
from petra.core.trial import Proposal, Trial
from petra.execute.base import Executor
from petra.front import Front
from petra.listener import Listener, Phase
from petra.measure.launches import LAUNCHES, spread_by, together
from petra.store.records import measurement_rows
from petra.store.store import Store

UNCONFIRMED = "unconfirmed"  # the note with members that could not be measured again, and why
MEASURED_AGAIN = "measured_again"  # the note with those that were not what the search had measured
MOST_PASSES = 5

Found = dict[str, Measurement]


class Confirmation:
    """Confirms what `front()` has, which is made of the trials in `finished`."""

    def __init__(
        self,
        executor: Executor,
        store: Store,
        listener: Listener,
        finished: dict[int, Trial],
        front: Callable[[], Front],
    ) -> None:
        self.executor, self.store, self.listener = executor, store, listener
        self.finished, self.front = finished, front
        self.unconfirmed: dict[str, str] = {}

    def run(self) -> None:
        """Read the test split, once, for the members of the front and the untouched model that have
        not been confirmed before; then for those that the front has in place of members which their
        confirmed costs make worse than others, until it stays as it is, `MOST_PASSES` at most.

        One that cannot be does not keep the others from it: it is noted with its reason.
        """
        for _ in range(MOST_PASSES):
            members = {trial.number: trial for trial in (self.finished[0], *self.front().members)}
            todo = [
                trial
                for trial in members.values()
                if not trial.test and str(trial.number) not in self.unconfirmed
            ]
            if not todo:
                break
            models = "1 model" if len(todo) == 1 else f"{len(todo)} models"
            self.listener.message(Phase(f"confirming {models} on the test split"))
            self._confirm(todo)
        if self.unconfirmed or self.store.note(UNCONFIRMED):
            self.store.set_note(UNCONFIRMED, self.unconfirmed)

    def _confirm(self, todo: Sequence[Trial]) -> None:
        """Each once; then all once more, and again, so that the launches of one are apart in time;
        then those once more that are not what the search has measured.
        """
        launches: dict[int, list[Found]] = {}
        for trial in todo:
            self._say(trial, StepBegan(len(trial.pipeline) + 1, "confirm"))
            try:
                metrics = self._launch(trial, self.executor.confirm)
                if "quality" not in metrics:
                    raise PetraError("it has no quality")
            except PetraError as error:
                self.unconfirmed[str(trial.number)] = error.message
                self.listener.message(f"trial {trial.number} is not confirmed: {error.message}")
                continue
            launches[trial.number] = [metrics]
            self._keep(trial.number, launches[trial.number])
        self._repeat(launches, LAUNCHES - 1)
        odd = {n: text for n in launches if (text := self._surprise(n, len(launches[n])))}
        for number, text in odd.items():
            self.listener.message(f"trial {number} is measured once more: {text}")
        self._repeat({number: launches[number] for number in odd}, LAUNCHES)
        self._note({n: _then(text, self.finished[n], launches[n]) for n, text in odd.items()})

    def _repeat(self, launches: Mapping[int, list[Found]], times: int) -> None:
        failed = set()
        for _ in range(times):
            for number, found in launches.items():
                if number in failed:
                    continue
                try:
                    found.append(self._launch(self.finished[number], self.executor.time_again))
                except PetraError as error:
                    failed.add(number)
                    self.listener.message(f"trial {number} cannot be timed again: {error.message}")
                else:
                    self._keep(number, found)

    def _launch(self, trial: Trial, measure: Callable[[Trial], Found]) -> Found:
        """What one launch finds. Raises StoreError, which is the directory's, and for whatever else
        goes wrong, which is this model's, PetraError.
        """
        try:
            metrics = measure(trial)
        except StoreError:
            raise
        except Exception as error:
            said = error.message if isinstance(error, PetraError) else ""
            raise PetraError((said or f"{type(error).__name__}: {error}")[:2000]) from error
        try:
            measurement_rows(trial.number, "test", metrics)
        except (StoreError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PetraError(f"the result cannot be kept: {error}"[:2000]) from error
        return metrics

    def _keep(self, number: int, launches: Sequence[Found]) -> None:
        spread = spread_by(self.finished[0].metrics["latency_ratio"])
        metrics = together(launches, spread)
        self.store.set_test(number, metrics)
        self.finished[number] = replace(self.finished[number], test=metrics)
        done = StepProgress(len(launches), max(LAUNCHES, len(launches)), "launches")
        self._say(self.finished[number], done)

    def _say(self, trial: Trial, note: WorkerNote) -> None:
        """How far a trial's final measurement is, as if its worker said so."""
        proposal = Proposal(trial.number, trial.pipeline, trial.origin, trial.fidelity)
        self.listener.stage(proposal, note)

    def _surprise(self, number: int, launches: int) -> str:
        """What was measured of a model now that cannot be what the search has measured, both to
        within their 95% intervals; '' when nothing.
        """
        trial = self.finished[number]
        for name, now in trial.test.items():
            before = trial.metrics.get(name)
            if before is None or not describe(name).timed or describe(name).form != "ratio":
                continue
            (low, high), (least, most) = before.interval, now.interval
            if most < low or high < least:
                times = f"in {launches} launches"
                return f"{name} was {_text(before)} in the search, {_text(now)} {times} afterwards"
        return ""

    def _note(self, said: Mapping[int, str]) -> None:
        if said:
            known = dict(self.store.note(MEASURED_AGAIN) or {})
            self.store.set_note(MEASURED_AGAIN, known | {str(n): text for n, text in said.items()})


def _then(text: str, trial: Trial, launches: Sequence[Found]) -> str:
    """What was said of a surprise, and what came of measuring once more."""
    ratio = trial.test[text.split(maxsplit=1)[0]]
    return f"{text}, and is {_text(ratio)} in all {len(launches)}"


def _text(found: Measurement) -> str:
    low, high = found.interval
    return f"{found.mean:.2f}x ({low:.2f}-{high:.2f})"
