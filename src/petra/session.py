"""The loop: ask for pipelines, run them, tell the results, until the budget is spent; then confirm the front.

Running a study again continues it: stored trials are replayed into the searcher, which then proposes exactly what it
would have proposed without the interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from petra.config import StudyConfig
from petra.core.errors import PetraError, StoreError
from petra.core.objective import Constraint, violation
from petra.core.pipeline import Pipeline
from petra.core.trial import Origin, Proposal, Trial, TrialStatus
from petra.execute.base import Executor
from petra.problem import search_options
from petra.progress import Clock, Listener
from petra.report.front import Front
from petra.search.base import Problem, Searcher
from petra.search.table import make_searcher
from petra.store.store import Store


class BaselineError(PetraError):
    """The untouched model cannot be exported, run or verified on the target, so nothing can be compared with it."""

    def __init__(self, trial: Trial) -> None:
        reason = f"{trial.failure.stage}: {trial.failure.message}" if trial.failure else trial.status
        super().__init__(
            f"the untouched model fails on the target: {reason}",
            hint="replace the operator, choose another runtime (target.runtime), or see `petra doctor`",
        )


class Session:
    """One run of a study by one process; `store` is open for writing."""

    def __init__(
        self, config: StudyConfig, store: Store, problem: Problem, executor: Callable[[], Executor], listener: Listener
    ) -> None:
        self.config, self.store, self.problem, self.listener = config, store, problem, listener
        self.make_executor = executor
        self.finished = {trial.number: trial for trial in store.trials()}
        self.generation = 0

    # ---- time and budget -----------------------------------------------------------------------------------------

    def remaining(self) -> float | None:
        limit = self.config.budget.time
        return None if limit is None else limit - self.store.elapsed()

    def clock(self) -> Clock:
        budget = self.config.budget
        searched = sum(number > 0 for number in self.finished)
        return Clock(searched, self.store.elapsed(), budget.trials, budget.time, self.generation, budget.generations)

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

    # ---- the loop ------------------------------------------------------------------------------------------------

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
            self.store.set_note("stop_reason", reason)
            self.listener.message(f"stopped: {reason}")
            self._confirm(executor)

    def _searcher(self, baseline: Trial) -> Searcher:
        name, options = search_options(self.config)
        return make_searcher(name, options, self.problem, baseline)

    def _baseline(self, executor: Executor) -> Trial:
        """Trial 0: the untouched model on the same runtime. Its failure is the study's."""
        if 0 not in self.finished:
            self.listener.message("measuring the untouched model")
            proposal = Proposal(0, Pipeline(), Origin("baseline"))
            trial, facts = executor.baseline(proposal, on_note=self.listener.stage)
            if not trial.measured:
                raise BaselineError(trial)
            for name, fact in facts.items():
                self.store.set_note(name, fact)
            self._keep(replace(trial, finished_at=self.store.elapsed()))
        return self.finished[0]

    def _run_generation(self, executor: Executor, generation: list[Proposal]) -> list[Trial]:
        """Its trials, stored ones replayed, sorted by number; fewer when the budget ended within it."""
        budget = self.config.budget.trials
        missing = [p for p in generation if p.number not in self.finished]
        for p in generation:
            if p.number in self.finished and self.finished[p.number].pipeline != p.pipeline:
                raise StoreError(
                    f"{self.store.directory}: trial {p.number} is stored with another pipeline than is proposed now",
                    hint="the study was made by another version of petra; start a new one",
                )
        if budget is not None:
            missing = [p for p in missing if p.number <= budget]
        for trial in executor.run(missing, remaining=self.remaining, on_note=self.listener.stage):
            self._keep(replace(trial, finished_at=self.store.elapsed()))
            self.listener.finished(trial, self.clock())
        return [self.finished[p.number] for p in generation if p.number in self.finished]

    def _keep(self, trial: Trial) -> None:
        self.store.add(trial)
        self.finished[trial.number] = trial

    def _confirm(self, executor: Executor) -> None:
        """Read the test split, once, for the members of the final front that have not been confirmed before."""
        front = Front.of(
            list(self.finished.values()), self.problem.objectives, self.problem.constraints, self.store.directory
        )
        members = {trial.number: trial for trial in (self.finished[0], *front.members)}
        todo = [trial for trial in members.values() if not trial.test]
        if todo:
            self.listener.message(f"confirming {len(todo)} models on the test split")
        for trial in todo:
            metrics = executor.confirm(trial)
            self.store.set_test(trial.number, metrics)
            self.finished[trial.number] = replace(trial, test=metrics)
