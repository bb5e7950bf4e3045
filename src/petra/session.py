"""The loop: ask for a pipeline whenever the results it is made from are there, run it, tell its
result, until the budget is spent; then confirm the front.

A proposal is stored before it runs. Running a study again continues it: the searcher is told what
was proposed and what came of it, nothing is proposed anew, and what was under way runs first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from petra.config import StudyConfig
from petra.confirm import Confirmation
from petra.core.errors import PetraError, StoreError
from petra.core.metric import required_metrics
from petra.core.notes import StepBegan, StepProgress, WorkerNote
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Origin, Proposal, Trial, TrialStatus
from petra.execute.base import Executor, OnNote
from petra.execute.crew import Crew
from petra.execute.training_speed import TrainingSpeed
from petra.front import Front
from petra.listener import Listener, Phase
from petra.problem import search_options
from petra.search.base import Problem
from petra.search.durations import Durations, Rates
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.settle import settled_pairs, with_seed
from petra.stopping import Stopping
from petra.store.activity import told
from petra.store.kept_files import FILES, digests_of
from petra.store.records import measurement_rows, trial_row
from petra.store.store import Store
from petra.workers.failures import MemoryLimitExceeded

NO_BETTER = "no_better"  # the note with members that are no better than a cheaper one, and which
SEEDS = "seeds"  # the note with the qualities of members that were built again; null: it failed
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
        self.proposals = {proposal.number: proposal for proposal in store.proposals()}
        self.stopping = Stopping(config, problem, store.elapsed)
        for number in sorted(self.finished):
            self.stopping.learn(self.finished[number])

    # ---- the loop --------------------------------------------------------------------------------

    def search(self) -> None:
        self.store.set_note("stop_reason", "")
        heard = told(self.store.directory, self.listener, self.store.elapsed)
        with heard as self.listener, self.make_executor() as executor:
            baseline = self._baseline(executor)
            executor.use_baseline(baseline)
            stream = self._stream(baseline)
            self._say_who_works()
            self.listener.started(baseline, self.stopping.clock())
            speed = TrainingSpeed.of(self.store)
            forecast = self.stopping.forecast(speed.epoch_s if speed else None, self._workers())
            if forecast:
                self.listener.message(forecast)
            if not self.stopping.reason():
                self.listener.message(Phase("searching"))
            self._run(executor, stream)
            reason = self.stopping.reason() or stream.searcher.stop_reason or "the budget is spent"
            self.listener.message(f"stopped: {reason}")
            Confirmation(executor, self.store, self.listener, self.finished, self._front).run()
            self._settle(executor)
        self._note_files()
        # Last of all: it says that nothing is left to do.
        self.store.set_note("stop_reason", reason)

    def _stream(self, baseline: Trial) -> Stream:
        """The searcher, as far as it was when the last session ended."""
        name, options = search_options(self.config)
        searcher = make_searcher(name, options, self.problem, baseline)
        speed = TrainingSpeed.of(self.store)
        rates = Rates.of(baseline.seconds, speed.epoch_s if speed else None)
        durations = Durations(self.problem.space, rates)
        stream = Stream(searcher, VirtualSchedule(self.config.virtual_workers, durations))
        stream.restore([p for p in self.proposals.values() if p.number], self.finished)
        self.stopping.generation = searcher.generation
        return stream

    def _workers(self) -> int:
        """Candidates built side by side, where the executor keeps to its crew."""
        speed = TrainingSpeed.of(self.store)
        threads = self.config.limits.build_threads or (speed.threads if speed else 1)
        return Crew.of(self.config).workers(threads)

    def _say_who_works(self) -> None:
        """How many workers and threads, and whether some will have nothing to do."""
        speed, workers = TrainingSpeed.of(self.store), self._workers()
        if speed:
            self.listener.message(f"workers: {workers}, {speed.in_words()}")
        if workers > self.config.virtual_workers:
            self.listener.message(
                f"{workers - self.config.virtual_workers} of {workers} workers will be idle: this"
                f" study makes proposals for {self.config.virtual_workers} at a time"
                " (virtual_workers, fixed when a study is created)"
            )

    def _run(self, executor: Executor, stream: Stream) -> None:
        """Run what was proposed and not finished, then proposals as they are made."""
        waiting = [p for p in self.proposals.values() if p.number not in self.finished]
        limit = self.stopping.most_trials()
        room = None if limit is None else max(0, limit - self.stopping.clock().trials)
        for proposal in waiting[:room] if not self.stopping.reason() else ():
            self._submit(executor, stream, proposal)
        self._propose(executor, stream)
        for trial in executor.results():
            trial = self._storable(trial)
            self._keep(replace(trial, finished_at=self.store.elapsed()))
            self.listener.finished(trial, self.stopping.clock())
            stream.put(self.finished[trial.number])
            self._propose(executor, stream)

    def _propose(self, executor: Executor, stream: Stream) -> None:
        """Make, store and submit all the proposals that can be made now."""
        limit = self.stopping.most_trials()
        while not self.stopping.reason() and (limit is None or len(self.proposals) <= limit):
            proposal = stream.next()
            if proposal is None:
                break
            self._store_proposal(proposal)
            self._submit(executor, stream, proposal)

    def _store_proposal(self, proposal: Proposal) -> None:
        self.store.propose(proposal)
        self.proposals[proposal.number] = proposal

    def _submit(self, executor: Executor, stream: Stream, proposal: Proposal) -> None:
        executor.submit(
            proposal,
            rivals=stream.rivals(proposal.number),
            remaining=self.stopping.remaining,
            on_note=self.listener.stage,
        )

    def _baseline(self, executor: Executor) -> Trial:
        """Trial 0: the untouched model on the same runtime. Its failure is the study's."""
        if 0 not in self.finished:
            self.listener.message(Phase("measuring the untouched model"))
            proposal = Proposal(0, Pipeline(), Origin(("baseline",)))
            if 0 not in self.proposals:
                self._store_proposal(proposal)
            trial, facts = executor.baseline(proposal, on_note=self._first_notes())
            trial = self._storable(trial)
            if not trial.measured:
                raise BaselineError(trial)
            for name, fact in facts.items():
                self.store.set_note(name, fact)
            self._keep(replace(trial, finished_at=self.store.elapsed()))
        return self.finished[0]

    def _first_notes(self) -> OnNote:
        """Passes on what is said of the untouched model, and says what it will take of the time as
        soon as that is known: when the first of several launches has measured it.
        """
        began = self.store.elapsed()

        def pass_on(proposal: Proposal, note: WorkerNote) -> None:
            nonlocal began
            self.listener.stage(proposal, note)
            now = self.store.elapsed()
            if isinstance(note, StepBegan):
                began = now
            elif isinstance(note, StepProgress) and note.done == 1 < note.total:
                text = self.stopping.foretold(now + (note.total - 1) * (now - began))
                if text:
                    self.listener.message(text)

        return pass_on

    def _keep(self, trial: Trial) -> None:
        self.store.add(trial)
        self.finished[trial.number] = trial
        self.stopping.learn(trial)

    def _storable(self, trial: Trial) -> Trial:
        """The trial, or a failed one that says what about it cannot be kept, or compared with
        others.
        """
        try:
            trial_row(trial)
            measurement_rows(trial.number, "val", trial.metrics)
            wanted = required_metrics(self.config.metrics_named())
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
        return self.proposals[trial.number].ended(TrialStatus.FAILED, failure=failure)

    def _front(self) -> Front:
        trials = list(self.finished.values())
        return Front.of(trials, self.problem.objectives, self.problem.constraints)

    def _note_files(self) -> None:
        """What the files of the front's members are known by: whoever changes them later is found
        out.
        """
        members = {trial.number: trial for trial in (self.finished[0], *self._front().members)}
        known = dict(self.store.note(FILES) or {})
        found = digests_of(self.store.directory, members.values(), known)
        if found != known:
            self.store.set_note(FILES, found)

    def _settle(self, executor: Executor) -> None:
        """Build members of the front again with other seeds, where that is asked, and find those
        that are no better than others.
        """
        known: dict[str, list[float | None]] = dict(self.store.note(SEEDS) or {})
        for trial in self._front().members:
            found = known.setdefault(str(trial.number), [])
            while trial.number and trial.test and len(found) < self.config.budget.confirm:
                seed, again = self.config.seed, len(found) + 1
                found.append(with_seed(trial, executor, self.listener, seed=seed, again=again))
                self.store.set_note(SEEDS, {n: values for n, values in known.items() if values})
        pairs = settled_pairs(self._front(), executor, self.listener)
        if pairs or self.store.note(NO_BETTER):
            self.store.set_note(NO_BETTER, {str(one): other for one, other in pairs.items()})
