"""The loop: ask for pipelines, run them, tell the results, until the budget is spent; then confirm
the front.

Running a study again continues it: stored trials are replayed into the searcher, which then
proposes exactly what it would have proposed without the interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from petra.config import StudyConfig
from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, violation
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Origin, Proposal, Trial, TrialStatus
from petra.execute.base import Executor
from petra.front import Front
from petra.listener import Clock, Listener
from petra.problem import search_options
from petra.search.base import Problem, Searcher
from petra.search.table import make_searcher
from petra.store.records import measurement_rows, trial_row
from petra.store.store import Store
from petra.workers.failures import MemoryLimitExceeded

UNCONFIRMED = (  # the note with members of the front that could not be measured again, and why
    "unconfirmed"
)
# What to do when the untouched model fails in a step of its trial; other steps say it themselves.
_REMEDIES = {
    "start": (
        "correct what the model or the data do when they are unpickled; the worker's log has all"
        " of it"
    ),
    "export": (
        "replace the operator, choose another runtime (target.runtime), or see `petra doctor`"
    ),
    "measure": "choose another runtime (target.runtime), or see `petra doctor`",
    "compare": (
        "choose another runtime (target.runtime): this one does not compute what PyTorch does"
    ),
    "score": (
        "correct the task's `score`: it must return a finite Measurement for the untouched model"
    ),
    "record": "correct what the task, the runtime or the executor returns",
}


class BaselineError(PetraError):
    """The untouched model cannot be exported, run, verified or judged on the target: nothing
    compares with it.
    """

    def __init__(self, trial: Trial) -> None:
        failure = trial.failure or Failure("start", "unknown", trial.status)
        hint = _REMEDIES.get(failure.stage, "")
        if trial.status is TrialStatus.TIMED_OUT:
            hint = "allow a trial more time (limits.trial_time)"
        elif failure.kind == MemoryLimitExceeded.__name__:
            hint = "allow a trial more memory (limits.trial_memory)"
        super().__init__(
            f"the untouched model fails on the target: {failure.stage}: {failure.message}",
            hint=hint,
        )


class Session:
    """One run of a study by one process; `store` is open for writing, `listener` does not fail."""

    def __init__(
        self,
        config: StudyConfig,
        store: Store,
        problem: Problem,
        executor: Callable[[], Executor],
        listener: Listener,
    ) -> None:
        self.config, self.store, self.problem, self.listener = config, store, problem, listener
        self.make_executor = executor
        self.finished = {trial.number: trial for trial in store.trials()}
        self.generation = 0

    # ---- time and budget -------------------------------------------------------------------------

    def remaining(self) -> float | None:
        limit = self.config.budget.time
        return None if limit is None else limit - self.store.elapsed()

    def clock(self) -> Clock:
        budget = self.config.budget
        searched = sum(number > 0 for number in self.finished)
        return Clock(
            searched,
            self.store.elapsed(),
            budget.trials,
            budget.time,
            self.generation,
            budget.generations,
        )

    def stop_reason(self) -> str:
        """Why to stop now; '' to go on."""
        budget, clock = self.config.budget, self.clock()
        if budget.time is not None and clock.elapsed_s >= budget.time:
            return f"the time budget of {budget.time:.0f} s is spent"
        if budget.trials is not None and clock.trials >= budget.trials:
            return f"the budget of {budget.trials} trials is spent"
        if budget.generations is not None and self.generation >= budget.generations:
            return f"the budget of {budget.generations} generations is spent"
        for trial in self.finished.values():
            if trial.number and trial.status is TrialStatus.COMPLETE and self._meets_goal(trial):
                return f"trial {trial.number} meets the goal"
        return ""

    def _meets_goal(self, trial: Trial) -> bool:
        goal: tuple[Constraint, ...] = self.config.parsed_goal()
        return bool(goal) and violation(goal, trial.metrics, self.finished[0].metrics) == 0

    # ---- the loop --------------------------------------------------------------------------------

    def search(self) -> None:
        self.store.set_note("stop_reason", "")
        with self.make_executor() as executor:
            baseline = self._baseline(executor)
            executor.use_baseline(baseline)
            self.listener.started(baseline, self.clock())
            searcher = self._searcher(baseline)
            while not (reason := self.stop_reason()):
                generation = searcher.ask()
                if not generation:
                    reason = searcher.stop_reason or "the space is exhausted"
                    break
                told = self._run_generation(executor, generation)
                if len(told) < len(generation):  # the budget ran out within it
                    reason = self.stop_reason() or "the budget is spent"
                    break
                searcher.tell(told)
                self.generation += 1
            self.listener.message(f"stopped: {reason}")
            self._confirm(executor)
        self.store.set_note(
            "stop_reason", reason
        )  # last of all: it says that nothing is left to do

    def _searcher(self, baseline: Trial) -> Searcher:
        name, options = search_options(self.config)
        return make_searcher(name, options, self.problem, baseline)

    def _baseline(self, executor: Executor) -> Trial:
        """Trial 0: the untouched model on the same runtime. Its failure is the study's."""
        if 0 not in self.finished:
            self.listener.message("measuring the untouched model")
            proposal = Proposal(0, Pipeline(), Origin("baseline"))
            trial, facts = executor.baseline(proposal, on_note=self.listener.stage)
            trial = self._storable(trial)
            if not trial.measured:
                raise BaselineError(trial)
            for name, fact in facts.items():
                self.store.set_note(name, fact)
            self._keep(replace(trial, finished_at=self.store.elapsed()))
        return self.finished[0]

    def _run_generation(self, executor: Executor, generation: list[Proposal]) -> list[Trial]:
        """Its trials, stored ones replayed, sorted by number; fewer when the budget ended within
        it.
        """
        budget = self.config.budget.trials
        missing = [p for p in generation if p.number not in self.finished]
        for p in generation:
            if p.number in self.finished and self.finished[p.number].pipeline != p.pipeline:
                raise StoreError(
                    f"{self.store.directory}: trial {p.number} is stored with another pipeline than"
                    " is proposed now",
                    hint="the study was made by another version of petra; start a new one",
                )
        if budget is not None:
            missing = [p for p in missing if p.number <= budget]
        for trial in executor.run(missing, remaining=self.remaining, on_note=self.listener.stage):
            trial = self._storable(trial)
            self._keep(replace(trial, finished_at=self.store.elapsed()))
            self.listener.finished(trial, self.clock())
        return [self.finished[p.number] for p in generation if p.number in self.finished]

    def _keep(self, trial: Trial) -> None:
        self.store.add(trial)
        self.finished[trial.number] = trial

    def _storable(self, trial: Trial) -> Trial:
        """The trial, or a failed one that says what about it cannot be kept, or compared with
        others.
        """
        try:
            trial_row(trial)
            measurement_rows(trial.number, "val", trial.metrics)
            wanted = [o.metric for o in self.problem.objectives] + [
                c.metric for c in self.problem.constraints
            ]
            missing = [name for name in wanted if trial.measured and name not in trial.metrics]
            if not missing:
                return trial
            text = f"it has no {', '.join(missing)}"
        except (StoreError, TypeError, ValueError, AttributeError, OverflowError) as error:
            text = (
                error.message
                if isinstance(error, StoreError)
                else f"{type(error).__name__}: {error}"
            )
        failure = Failure("record", "StoreError", f"the result cannot be kept: {text}")
        return Trial(
            trial.number, trial.pipeline, TrialStatus.FAILED, trial.origin, failure=failure
        )

    def _confirm(self, executor: Executor) -> None:
        """Read the test split, once, for the members of the final front that have not been
        confirmed before.

        One that cannot be does not keep the others from it: it is noted with its reason.
        """
        front = Front.of(
            list(self.finished.values()),
            self.problem.objectives,
            self.problem.constraints,
        )
        members = {trial.number: trial for trial in (self.finished[0], *front.members)}
        todo = [trial for trial in members.values() if not trial.test]
        if todo:
            self.listener.message(f"confirming {len(todo)} models on the test split")
        unconfirmed: dict[str, str] = {}
        for trial in todo:
            metrics, reason = self._confirmation(executor, trial)
            if reason:
                unconfirmed[str(trial.number)] = reason
                self.listener.message(f"trial {trial.number} is not confirmed: {reason}")
                continue
            self.store.set_test(trial.number, metrics)
            self.finished[trial.number] = replace(trial, test=metrics)
        if unconfirmed or self.store.note(UNCONFIRMED):
            self.store.set_note(UNCONFIRMED, unconfirmed)

    def _confirmation(self, executor: Executor, trial: Trial) -> tuple[dict[str, Measurement], str]:
        """Measurements on the test split, or why there are none."""
        try:
            metrics = executor.confirm(trial)
        except StoreError:
            raise  # the directory, not the model
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this model's
            text = (
                error.message
                if isinstance(error, PetraError)
                else f"{type(error).__name__}: {error}"
            )
            return {}, text[:2000]
        try:
            measurement_rows(trial.number, "test", metrics)
        except (StoreError, TypeError, ValueError, AttributeError, OverflowError) as error:
            return {}, f"the result cannot be kept: {error}"[:2000]
        return metrics, "" if "quality" in metrics else "it has no quality"
