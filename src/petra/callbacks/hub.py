"""Everybody who hears of a session: one listener to the session, which passes events on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

from petra.callbacks.base import EVENTS, HEARD, Callback, StudyRun
from petra.callbacks.check import check_listener, has_any, named_and_given
from petra.callbacks.table import make_callbacks
from petra.config import CallbackConfig
from petra.core.notes import StepBegan, WorkerNote
from petra.core.text import printable
from petra.core.trial import Proposal, Trial
from petra.front import Front
from petra.listener import Clock, Listener
from petra.store.checked import to_json

if TYPE_CHECKING:
    from petra.store.store import Store
    from petra.study import Study

MOST_SAID = 500  # characters of what a callback raised


class Keeps(Protocol):
    """What the notes of a study are, see `petra.store.store.Store`."""

    def note(self, name: str) -> object: ...

    def set_note(self, name: str, value: object) -> None: ...


class Ear:
    """One callback or listener, under a name. It is told one thing at a time; of what it raises,
    the first is said, and then it hears no more.
    """

    def __init__(
        self, given: object, name: str, events: Mapping[str, tuple[str, ...]] = EVENTS
    ) -> None:
        self.name = name
        self.kept: object = None  # to be kept with the study
        self._given = given
        self._events = events
        self._lock = threading.RLock()
        self._deaf = False

    @property
    def calls_back(self) -> bool:
        """Whether it is told as a callback is, not as a listener."""
        return self._events is EVENTS

    def wants(self, event: str) -> bool:
        """Whether telling it would do anything."""
        method = getattr(self._given, event, None) if event in self._events else None
        nothing = getattr(Callback, event, None)
        return method is not None and getattr(method, "__func__", None) is not nothing

    def tell(self, event: str, *args: object) -> None:
        if not self.wants(event):
            return
        with self._lock:
            if self._deaf:
                return
            try:
                getattr(self._given, event)(*args)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it only hears
                self._deaf = True
                with contextlib.suppress(Exception):  # its text and stderr may be as broken
                    self._say(event, error)

    def _say(self, event: str, error: BaseException) -> None:
        kind = "callback" if self.calls_back else "listener"
        text = f"{type(error).__name__}: {error}"[:MOST_SAID]
        said = f"petra: the {kind} {self.name} failed in {event}: {printable(text)}"
        sys.stderr.write(f"{said}\npetra: it hears no more of this session, which goes on\n")


class Hub:
    """The listener of a session; a context manager around all of it.

    `begun` is what callbacks are told in the beginning, `notes` keeps what they keep, `last` makes
    the final front and the reason for the end.
    """

    def __init__(
        self,
        ears: Sequence[Ear],
        begun: StudyRun,
        notes: Keeps,
        last: Callable[[], tuple[Front | None, str]],
    ) -> None:
        self._ears, self._begun, self._notes, self._last = ears, begun, notes, last
        self._trials = {trial.number: trial for trial in begun.finished}
        self._members: list[object] = []  # of the front that was told last
        self._started: set[int] = set()
        self._lock = threading.Lock()

    @staticmethod
    def of(study: Study, store: Store, ears: Sequence[Ear]) -> Hub:
        """Of a study that has been examined; `store` is open for writing."""
        called = any(ear.calls_back for ear in ears)
        run = StudyRun(
            directory=study.directory,
            config=study.config.model_dump(mode="json"),
            objectives=study.objectives,
            constraints=study.config.parsed_constraints(),
            task=study.examined.task.metrics(),
            finished=tuple(store.trials()) if called else (),
        )

        def last() -> tuple[Front | None, str]:
            front = study.front
            return front if front.baseline else None, str(store.note("stop_reason") or "")

        return Hub(ears, run, store, last)

    # ---- a listener --------------------------------------------------------------------------

    def started(self, baseline: Trial, clock: Clock) -> None:
        self._tell("started", baseline, clock)
        if baseline.number not in self._trials:
            self._tell("on_trial_end", baseline, clock)
            self._trials[baseline.number] = baseline
        self._front(self._found)
        self._keep()

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        self._tell("stage", proposal, note)
        with self._lock:
            number = proposal.number
            first = number not in self._started and number not in self._trials
            self._started.add(number)
        if first:
            self._tell("on_trial_start", proposal)
        began = isinstance(note, StepBegan)
        self._tell("on_stage" if began else "on_progress", proposal, note)

    def finished(self, trial: Trial, clock: Clock) -> None:
        self._tell("finished", trial, clock)
        self._tell("on_trial_end", trial, clock)
        self._trials[trial.number] = trial
        if trial.comparable:
            self._front(self._found)
        self._keep()

    def message(self, text: str) -> None:
        self._tell("message", text)
        self._tell("on_message", text)

    # ---- around it ---------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            for ear in self._ears:
                if ear.wants("on_study_start"):
                    self._start(ear)
            self._keep()
        except BaseException:  # such as Ctrl-C: what has begun ends
            self._tell("on_study_end", None, "")
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        if not any(ear.wants(event) for ear in self._ears for event in _AT_THE_END):
            return
        front, reason = None, ""
        with contextlib.suppress(Exception):  # the study is gone: what went wrong first is raised
            front, reason = self._last()
        if front is not None:
            self._front(lambda: front)
        self._tell("on_study_end", front, reason if raised[0] is None else "")
        with contextlib.suppress(Exception):
            self._keep()

    def _start(self, ear: Ear) -> None:
        where = f"what the callback {ear.name} keeps"

        def keep(value: object) -> None:
            to_json(value, where=where)
            ear.kept = value

        kept = self._notes.note(_note(ear))
        ear.tell("on_study_start", replace(self._begun, kept=kept, keep=keep))

    def _tell(self, event: str, *args: object) -> None:
        for ear in self._ears:
            ear.tell(event, *args)

    def _keep(self) -> None:
        """Write down what callbacks keep, where the session's own thread is between two events."""
        for ear in self._ears:
            if ear.kept is not None:
                value, ear.kept = ear.kept, None
                self._notes.set_note(_note(ear), value)

    def _found(self) -> Front:
        run = self._begun
        return Front.of(list(self._trials.values()), run.objectives, run.constraints, task=run.task)

    def _front(self, make: Callable[[], Front]) -> None:
        if any(ear.wants("on_front_change") for ear in self._ears):
            front = make()
            members: list[object] = [(t.number, t.metrics, t.test) for t in front.members]
            if members != self._members:
                self._members = members
                self._tell("on_front_change", front)


_AT_THE_END = ("on_front_change", "on_study_end")


def _note(ear: Ear) -> str:
    return f"callback {ear.name}"


def told(ears: Iterable[Ear], text: str) -> None:
    """A message before there is a hub: callbacks hear of nothing before a study's start."""
    for ear in ears:
        ear.tell("message", text)


def ears_of(
    listeners: Iterable[Listener | None],
    named: Sequence[CallbackConfig] = (),
    given: Iterable[object] = (),
) -> tuple[Ear, ...]:
    """Listeners, callbacks that a study file names, and given ones, each under a name of its own.

    Raises ConfigError for what hears nothing or cannot be made, MissingExtra.
    """
    ears: list[Ear] = []
    for listener in (one for one in listeners if one is not None):
        check_listener(listener)
        ears.append(Ear(listener, type(listener).__name__, HEARD))
    taken: dict[str, int] = {}
    for callback in (*make_callbacks(named), *named_and_given(given)[1]):
        own: object = getattr(callback, "name", "")
        name = own if isinstance(own, str) and own else type(callback).__name__
        taken[name] = taken.get(name, 0) + 1
        distinct = name if taken[name] == 1 else f"{name} {taken[name]}"
        ears.append(Ear(callback, distinct, EVENTS if has_any(callback, EVENTS) else HEARD))
    return tuple(ears)
