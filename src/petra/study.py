"""A study: a directory, the settings that it was started with, and what to run it needs, model and
task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from torch import nn

from petra.callbacks.hub import Ear, Hub, ears_of, told
from petra.config import StudyConfig
from petra.core.errors import ConfigError, StoreError
from petra.core.notes import WorkerNote
from petra.core.objective import Objective, named_objectives
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.core.trial import Trial
from petra.execute.assemble import assemble
from petra.execute.base import MakeExecutor
from petra.execute.builder import ignore
from petra.execute.compare_runtimes import OnRuntime, compare_runtimes
from petra.execute.table import EXECUTORS
from petra.execute.training_speed import TrainingSpeed
from petra.intake import Examined, examine, fingerprint, meaning_of
from petra.listener import Listener, Phase
from petra.measure.host import cores, load, load_warning
from petra.prior import Knowledge, Setting
from petra.problem import LEFT_OUT, build_space, initial_pipelines, left_out_of, objections
from petra.progress.ending import conclude
from petra.progress.follow import Progress
from petra.progress.show import showing
from petra.recipes import circumstances, make_recipes, stored_recipes, those_that_act
from petra.report.notebook import study_card, study_line
from petra.report.study_front import StudyFront
from petra.runtimes.table import runtime_for
from petra.search.base import Problem
from petra.search.durations import trained_epochs
from petra.session import Session
from petra.space.space import Space
from petra.store.layout import StudyPaths
from petra.store.store import Store
from petra.tasks.base import Task

EXAMINING = Phase("examining model and data")


class Study:
    """A search and its results.

    Reading needs only the directory; running needs the model and the task as well.
    """

    def __init__(
        self, directory: Path, config: StudyConfig, *, model: nn.Module | None, task: Task | None
    ) -> None:
        self.directory = directory
        self.config = config
        self.paths = StudyPaths(directory.resolve())
        self._model = model
        self._task = task

    # ---- reading ---------------------------------------------------------------------------------

    @property
    def trials(self) -> list[Trial]:
        """All finished trials by number; trial 0 is the untouched model."""
        with Store.open(self.directory, write=False) as store:
            return store.trials()

    @property
    def front(self) -> StudyFront:
        """The Pareto set of feasible trials, with tables, plots, `pick` and `export`."""
        return StudyFront.load(self.directory)

    def __repr__(self) -> str:
        return study_line(self.directory)

    def _repr_html_(self) -> str:
        return study_card(self.directory)

    # ---- running ---------------------------------------------------------------------------------

    def run(
        self,
        listener: Listener | None = None,
        *,
        executor: MakeExecutor | None = None,
        callbacks: Sequence[object] = (),
        progress: bool | Progress = True,
    ) -> Study:
        """Search until the budget is spent, then confirm the front on the test split.

        Continues where an earlier session stopped. Ctrl-C keeps what is finished and raises
        KeyboardInterrupt. `executor` makes what runs candidates of an `Assignment`, instead of the
        executor that the configuration names. `callbacks` hear of it (`petra.Callback`), after
        those that the configuration names. With `progress`, what happens is shown on standard
        error, or in the notebook that calls this, whatever else listens.

        Raises DataError when model and data do not fit each other, BaselineError when the untouched
        model cannot be judged on the target at all, StoreError when the directory cannot be used.
        """
        with showing(progress) as shown:
            ears = ears_of([shown, listener], self.config.callbacks, callbacks)
            with Store.open(self.directory, write=True) as store:
                self._search(store, ears, shown, executor)
            if progress is True:
                conclude(shown, self.directory)
        return self

    def _search(
        self, store: Store, ears: Sequence[Ear], shown: Progress, executor: MakeExecutor | None
    ) -> None:
        if warning := load_warning(load(), cores()):
            told(ears, f"note: {warning}")
        told(ears, EXAMINING)
        mark, config = self._prepare(store), self.config
        shown.about(self.objectives, config.parsed_constraints())
        store.set_note(LEFT_OUT, dict(self.left_out))
        with Hub.of(self, store, ears) as hub:
            for remark in self.examined.remarks:
                hub.message(f"note: {remark}")
            for name, reason in self.left_out.items():
                hub.message(f"searching without {name}: {reason}")
            if self.knowledge.about:
                hub.message(self.knowledge.about)
            stages, threads = tuple(self.problem.space.cards), self._threads(store)
            given = assemble(
                config, self.paths, self.examined, mark=mark, threads=threads, stages=stages
            )
            make = partial(
                executor or EXECUTORS.get(config.executor), replace(given, held=store.check_held)
            )
            Session(config, store, self.problem, make, hub).search()

    def _prepare(self, store: Store) -> str:
        """Examine model and data, and see that the study was started with them; their mark."""
        runtime_for(self.config.target).require()
        task = self.examined.task
        mark = fingerprint(*self._given())
        self._check_mark(store, mark)
        store.set_note("fingerprint", mark)
        described = [metric.as_dict() for metric in task.metrics()]
        store.set_note(
            "task", {"metric": task.metric, "maximize": task.maximize, "metrics": described}
        )
        store.set_note("interface", self.examined.interface.as_dict())
        store.set_note("meaning", meaning_of(self.examined.model, task).as_dict())
        return mark

    def compare_runtimes(
        self,
        runtimes: Sequence[str],
        *,
        pick: str | int = "knee",
        target: Target | None = None,
        note: Callable[[WorkerNote], None] = ignore,
    ) -> list[OnRuntime]:
        """Build a member of the front again and measure it on each of `runtimes`; ratios are over
        the first that works.

        The exported files stay in ``runtimes/<trial>/<runtime>/`` of the study's directory.
        `target` says threads and batch sizes, by default the study's; `note` receives what the
        worker is doing. Stages whose results are in the cache do not run again. Raises StoreError
        when model or data are not those of the study.
        """
        member, mark = self.front.pick(pick), fingerprint(*self._given())
        with Store.open(self.directory, write=False) as store:
            self._check_mark(store, mark)
            threads = self._threads(store)
        return compare_runtimes(
            assemble(
                self.config, self.paths, self.examined, mark=mark, threads=threads, target=target
            ),
            member.trial.pipeline,
            tuple(dict.fromkeys(runtimes)),
            self.paths.on_runtimes(member.number),
            note=note,
        )

    def _check_mark(self, store: Store, mark: str) -> None:
        if store.note("fingerprint") not in (None, mark):
            raise StoreError(
                f"{self.directory}: this study was started with another model or other data",
                hint="give the same model and data, or another workdir",
            )

    def _threads(self, store: Store) -> int | None:
        """Of each candidate, whatever the workers: as the user says, or as when the study began.
        None: it begins now.
        """
        limits, speed = self.config.limits, TrainingSpeed.of(store)
        if limits.build_threads:
            return limits.build_threads
        if speed:
            return speed.threads
        return max(1, cores() // (limits.workers or 1)) if store.proposals() else None

    @cached_property
    def examined(self) -> Examined:
        """Model and task as petra works on them; `petra.intake.examine` says what is looked at and
        raised.
        """
        return examine(*self._given())

    def _given(self) -> tuple[nn.Module, Task]:
        """Model and task as the user gave them, which nothing changes."""
        if self._model is None or self._task is None:
            raise ConfigError(
                f"{self.directory}: this study was started from live Python objects",
                hint=(
                    "call petra.compress(model, task, workdir=...) with the same model and task to"
                    " continue it"
                ),
            )
        return self._model, self._task

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return named_objectives(self.config.objectives, task=self._given()[1].metrics())

    @cached_property
    def left_out(self) -> Mapping[str, str]:
        """Stages that the search does without, because none of their settings can treat this model,
        and why; of a study that was loaded, those that it was run without. Raises ConfigError for
        one that was run before this was kept.
        """
        if self._model is None:
            with Store.open(self.directory, write=False) as store:
                if (kept := left_out_of(store)) is not None:
                    return kept
        return objections(self.config, self.examined.model, self.examined.task)

    @cached_property
    def problem(self) -> Problem:
        """What the searcher is given: space, objectives, constraints, seed."""
        examined = self.examined
        space = build_space(self.config, examined.task, examined.model, without=self.left_out)
        given = initial_pipelines(self.config, space)
        recipes = self._recipes(space, given)
        untrained = [p for p in recipes if not sum(map(trained_epochs, p))]
        past = self._past(space)
        return Problem(
            space=space,
            objectives=self.objectives,
            constraints=self.config.parsed_constraints(),
            seed=self.config.seed,
            initial=tuple(dict.fromkeys((*given, *untrained, *past, *recipes))),
            recipes=recipes,
            past=past,
            prior=self.knowledge.prior,
        )

    def _recipes(self, space: Space, given: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        """Petra's own pipelines to begin with: those that the study was created with, so that
        another version of petra changes nothing about it.
        """
        if not self.config.space.recipes:
            return ()
        if Store.exists(self.directory):
            with Store.open(self.directory, write=False) as store:
                return stored_recipes(store)
        return make_recipes(space, *self._examined_for(), without=given)

    def _past(self, space: Space) -> tuple[Pipeline, ...]:
        """Pipelines of past studies that act here; once the study is created, those it has."""
        past = self.knowledge.past
        if not past or Store.exists(self.directory):
            return past
        return those_that_act(space, *self._examined_for(), past)

    def _examined_for(self) -> tuple[nn.Module, Task, Target]:
        return self.examined.model, self.examined.task, self.config.target

    @cached_property
    def knowledge(self) -> Knowledge:
        """What was known before the first trial, or is now where there is no study yet."""
        if Store.exists(self.directory):
            with Store.open(self.directory, write=False) as store:
                return Knowledge.stored(store)
        model, task, target = self._examined_for()
        here = circumstances(model, task, target)
        setting = Setting(
            traits=tuple(sorted(here.traits)),
            parameters=here.outline.modules[0].parameters,
            metric=task.metric,
            maximize=task.maximize,
            runtime=target.runtime,
            device=target.device,
        )
        wanted = {o.metric for o in self.objectives}
        wanted |= {c.metric for c in self.config.parsed_constraints()}
        return Knowledge.gathered(self.config.prior, setting, wanted, besides=self.directory)
