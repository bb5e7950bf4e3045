"""The loop: ask for pipelines, run them, tell the results, until the budget is spent; then confirm the front.

A study is a directory. Running it again continues it: stored trials are replayed into the searcher, which then proposes
exactly what it would have proposed without the interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from torch import nn

from petra.checks import check_problem, fingerprint
from petra.config import StudyConfig
from petra.core.errors import ConfigError, PetraError, StoreError
from petra.core.objective import Constraint, Objective, named_objectives, violation
from petra.core.pipeline import Pipeline
from petra.core.trial import Origin, Proposal, Trial, TrialStatus
from petra.execute.across import OnRuntime, compare_runtimes
from petra.execute.base import Executor
from petra.execute.build import BuildPayload
from petra.execute.evaluate import Limits
from petra.execute.local import LocalExecutor
from petra.measure.host import cores, describe_host
from petra.methods.table import STAGES
from petra.problem import build_space, initial_pipelines, objections, search_options
from petra.progress import Clock, Listener, Silent
from petra.report.front import Front
from petra.runtimes.base import Target
from petra.runtimes.table import RUNTIMES
from petra.search.base import Problem, Searcher
from petra.search.table import make_searcher
from petra.store.store import Store
from petra.tasks.base import Task


class BaselineError(PetraError):
    """The untouched model cannot be exported, run or verified on the target, so nothing can be compared with it."""

    def __init__(self, trial: Trial) -> None:
        reason = f"{trial.failure.stage}: {trial.failure.message}" if trial.failure else trial.status
        super().__init__(
            f"the untouched model fails on the target: {reason}",
            hint="replace the operator, choose another runtime (target.runtime), or see `petra doctor`",
        )


class Study:
    """A search and its results. Reading needs only the directory; running needs the model and the task as well."""

    def __init__(self, directory: Path, config: StudyConfig, *, model: nn.Module | None, task: Task | None) -> None:
        self.directory = directory
        self.config = config
        self._model = model
        self._task = task

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[Trial]:
        """All finished trials by number; trial 0 is the untouched model."""
        with Store.open(self.directory, write=False) as store:
            return store.trials()

    @property
    def front(self) -> Front:
        """The Pareto set of feasible trials, with tables, plots, `pick` and `export`."""
        return Front.load(self.directory)

    # ---- running -------------------------------------------------------------------------------------------------

    def run(self, listener: Listener | None = None, *, executor: Callable[[], Executor] | None = None) -> Study:
        """Search until the budget is spent, then confirm the front on the test split.

        Continues where an earlier session stopped. Ctrl-C keeps what is finished and raises KeyboardInterrupt.
        Candidates run in local worker processes unless an `executor` is given. Raises DataError when model and data do
        not fit each other, BaselineError when the untouched model cannot be judged on the target at all, StoreError
        when the directory cannot be used.
        """
        with Store.open(self.directory, write=True) as store:
            problem, mark = self._prepare(store)
            listener = listener or Silent()
            for name, reason in self.left_out.items():
                listener.message(f"searching without {name}: {reason}")
            make_executor = executor or partial(self._local_executor, problem, mark)
            _Session(self, store, problem, make_executor, listener).search()
        return self

    def _prepare(self, store: Store) -> tuple[Problem, str]:
        """Check model and data, and that they are those the study was started with; the problem and their mark."""
        model, task = self._live()
        RUNTIMES.get(self.config.target.runtime)().require()
        check_problem(model, task)
        problem = self.problem()
        mark = fingerprint(model, task)
        self._check_mark(store, mark)
        store.set_note("fingerprint", mark)
        store.set_note("task", {"metric": task.metric, "maximize": task.maximize})
        return problem, mark

    def compare_runtimes(
        self,
        runtimes: Sequence[str],
        *,
        pick: str | int = "knee",
        target: Target | None = None,
        note: Callable[[object], None] = lambda note: None,
    ) -> list[OnRuntime]:
        """Build a member of the front again and measure it on each of `runtimes`; ratios are over the first that works.

        The exported files stay in ``runtimes/<trial>/<runtime>/`` of the study's directory. `target` says threads and
        batch sizes, by default the study's; `note` receives what the worker is doing. Stages whose results are in the
        cache do not run again. Raises StoreError when model or data are not those of the study.
        """
        model, task = self._live()
        member, mark = self.front.pick(pick), fingerprint(model, task)
        with Store.open(self.directory, write=False) as store:
            self._check_mark(store, mark)
        payload = self._payload(mark)
        return compare_runtimes(
            replace(payload, target=target or payload.target),
            member.trial.pipeline,
            tuple(dict.fromkeys(runtimes)),
            self.directory / "runtimes" / f"{member.number:05d}",
            limits=self._limits(),
            threads=self._build_threads(),
            host=str(describe_host()["id"]),
            note=note,
        )

    def _check_mark(self, store: Store, mark: str) -> None:
        if store.note("fingerprint") not in (None, mark):
            raise StoreError(
                f"{self.directory}: this study was started with another model or other data",
                hint="give the same model and data, or another workdir",
            )

    def _local_executor(self, problem: Problem, mark: str) -> Executor:
        return LocalExecutor(
            self._payload(mark),
            limits=self._limits(),
            constraints=problem.constraints,
            host=str(describe_host()["id"]),
            workers=self.config.limits.workers,
            threads=self._build_threads(),
        )

    def _payload(self, mark: str) -> BuildPayload:
        """What a worker needs to build candidates; `mark` is the fingerprint of model and data."""
        model, task = self._live()
        target = self.config.target
        return BuildPayload(
            model=model,
            task=task,
            target=Target(target.runtime, target.threads, target.batch, target.throughput_batch),
            seed=self.config.seed,
            directory=self.directory.resolve(),
            cache_bytes=self.config.limits.cache,
            fingerprint=mark[:16],
            device=self.config.device,
            plugins={"stages": STAGES.added(), "runtimes": RUNTIMES.added()},
        )

    def _limits(self) -> Limits:
        return Limits(self.config.limits.trial_time, self.config.limits.trial_memory / 2**20)

    def _build_threads(self) -> int:
        limits = self.config.limits
        return limits.build_threads or max(1, cores() // limits.workers)

    def _live(self) -> tuple[nn.Module, Task]:
        if self._model is None or self._task is None:
            raise ConfigError(
                f"{self.directory}: this study was started from live Python objects",
                hint="call petra.compress(model, task, workdir=...) with the same model and task to continue it",
            )
        return self._model, self._task

    @property
    def objectives(self) -> tuple[Objective, ...]:
        _, task = self._live()
        return named_objectives(self.config.objectives, maximize_quality=task.maximize)

    @cached_property
    def left_out(self) -> Mapping[str, str]:
        """Stages that the search does without, because none of their settings can treat this model, and why."""
        return objections(self.config, *self._live())

    def problem(self) -> Problem:
        """What the searcher is given: space, objectives, constraints, seed."""
        _, task = self._live()
        space = build_space(self.config, task, without=self.left_out)
        return Problem(
            space=space,
            objectives=self.objectives,
            constraints=self.config.parsed_constraints(),
            seed=self.config.seed,
            initial=initial_pipelines(self.config, space),
        )


class _Session:
    """One run of a study by one process."""

    def __init__(
        self, study: Study, store: Store, problem: Problem, executor: Callable[[], Executor], listener: Listener
    ) -> None:
        self.study, self.store, self.problem, self.listener = study, store, problem, listener
        self.config = study.config
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
                    f"{self.study.directory}: trial {p.number} is stored with another pipeline than is proposed now",
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
            list(self.finished.values()), self.problem.objectives, self.problem.constraints, self.study.directory
        )
        members = {trial.number: trial for trial in (self.finished[0], *front.members)}
        todo = [trial for trial in members.values() if not trial.test]
        if todo:
            self.listener.message(f"confirming {len(todo)} models on the test split")
        for trial in todo:
            metrics = executor.confirm(trial)
            self.store.set_test(trial.number, metrics)
            self.finished[trial.number] = replace(trial, test=metrics)
