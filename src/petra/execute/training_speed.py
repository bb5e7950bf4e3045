"""How fast a study's own model trains, and with how many threads its candidates are built: tried
once, when the study begins, and kept with it. What candidates come out as depends on the number of
threads, so it must not depend on how many workers happen to be there later.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from petra.core.errors import PetraError, StoreError
from petra.execute.base import Limits
from petra.execute.build import BuildPayload, Note
from petra.execute.builder import Caller
from petra.execute.crew import Crew
from petra.model.attention.separate import unfuse
from petra.model.copies.copying import copy_model
from petra.model.trainability import unfreeze
from petra.store import checked
from petra.store.checked import DAMAGE_HINT
from petra.store.records import DEFECTS
from petra.store.store import Store
from petra.training.loop import TrainConfig, fit
from petra.workers.failures import WorkerDied

SPEED_NOTE = "training_speed"
BLOCK = 4  # steps with one number of threads before the next; the first is not timed
BATCH = 128
_SECONDS = 0.5  # for each number of threads, where steps are short
_LIMIT_S = 120.0


@dataclass(frozen=True)
class TrainingSpeed:
    """`threads` for each candidate; `epoch_s` seconds of an epoch of plain training with so many,
    and `step_s` those of a step by number of threads tried: None, and empty, where the model could
    not be trained.
    """

    threads: int
    epoch_s: float | None = None
    step_s: Mapping[int, float] = field(default_factory=dict)

    def as_note(self) -> dict[str, object]:
        """JSON data, which `of_note` reads."""
        steps = {str(n): round(s, 6) for n, s in self.step_s.items()}
        return {"threads": self.threads, "epoch_s": self.epoch_s, "step_s": steps}

    @staticmethod
    def of(store: Store) -> TrainingSpeed | None:
        """What was noted when the study began; None for a study of an earlier petra, or one that
        has not begun. Raises StoreError for what petra did not write.
        """
        noted = store.note(SPEED_NOTE)
        try:
            return None if noted is None else _speed(checked.mapping(noted, SPEED_NOTE))
        except DEFECTS as error:
            raise StoreError(
                f"{store.directory}: note {SPEED_NOTE!r} is damaged: {error}", hint=DAMAGE_HINT
            ) from error

    def in_words(self) -> str:
        """For the person who waits."""
        text = f"{self.threads} thread{'s' if self.threads > 1 else ''} for each candidate"
        least, most = min(self.step_s, default=1), max(self.step_s, default=1)
        if least < most:
            gain = self.step_s[least] / self.step_s[most]
            text += f": this model trains {gain:.2g} times as fast with {most} as with {least}"
        return text


def _speed(noted: Mapping[str, Any]) -> TrainingSpeed:
    threads = checked.whole(noted["threads"], "threads")
    steps = checked.mapping(noted["step_s"], "step_s")
    step_s = {int(n): checked.number(s, "step_s", negative=False) for n, s in steps.items()}
    epoch_s = noted["epoch_s"]
    if epoch_s is not None and checked.number(epoch_s, "epoch_s") <= 0:
        raise ValueError(f"epoch_s is {epoch_s}")
    if not 1 <= threads <= 1024 or 0.0 in step_s.values():
        raise ValueError("threads or seconds are out of range")
    return TrainingSpeed(threads, epoch_s, step_s)


def try_training(
    caller: Caller, counts: Sequence[int], crew: Crew, limits: Limits
) -> TrainingSpeed:
    """The speed where `caller` builds, with the best of `counts` threads for the crew. Takes half a
    second for each, longer where a step does; what cannot be trained is built with the most
    threads.

    Raises WorkerDied when the caller was closed by its owner.
    """
    try:
        steps, seconds = caller.call(
            time_steps,
            tuple(counts),
            time_limit_s=min(_LIMIT_S, limits.time_s),
            memory_limit_mb=limits.memory_mb,
        )
    except PetraError as error:
        if isinstance(error, WorkerDied) and caller.closed:
            raise
        return TrainingSpeed(max(counts))
    return speed_of(steps, dict(zip(counts, seconds, strict=True)), crew)


def speed_of(steps: int, step_s: Mapping[int, float], crew: Crew) -> TrainingSpeed:
    """What to do where an epoch has so many `steps`, of seconds by number of threads."""
    threads = crew.threads(step_s)
    return TrainingSpeed(threads, step_s[threads] * steps, step_s)


class _Enough(Exception):
    """Steps were timed."""


def time_steps(
    payload: BuildPayload, note: Note, counts: tuple[int, ...]
) -> tuple[int, tuple[float, ...]]:
    """Steps of an epoch, and median seconds of one with each number of threads, by turns: real
    steps on a copy of the model. Raises what training raises.
    """
    clock = _Turns(counts)
    model = copy_model(payload.model)
    unfuse(model)
    unfreeze(model)
    val = replace(payload.task.val, limit=min(payload.task.val.limit or BATCH, BATCH))
    config = TrainConfig(epochs=10, lr=1e-6, batch_size=BATCH)
    task, before = replace(payload.task, val=val), torch.get_num_threads()
    torch.set_num_threads(counts[0])
    try:
        with contextlib.suppress(_Enough):
            fit(model, task, config, seed=0, device=payload.device, progress=clock.tick)
    finally:
        torch.set_num_threads(before)
    return clock.total // config.epochs, clock.medians()


class _Turns:
    """Gives each number of threads its turn of `BLOCK` steps, again and again, and times them."""

    def __init__(
        self, counts: tuple[int, ...], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.total = 0
        self._counts, self._now = counts, now
        self._seconds: dict[int, list[float]] = {n: [] for n in counts}
        self._began = self._last = now()

    def tick(self, done: int, total: int, text: str) -> None:
        """A step was made, `done` of `total`. Raises _Enough."""
        self.total = total
        turn, at = divmod(done - 1, BLOCK)
        if at:  # the first one also pays for the change
            self._seconds[self._counts[turn % len(self._counts)]].append(self._now() - self._last)
        if at == BLOCK - 1:
            spent = self._now() - self._began
            if turn + 1 >= len(self._counts) and spent >= _SECONDS * len(self._counts):
                raise _Enough
            torch.set_num_threads(self._counts[(turn + 1) % len(self._counts)])
        self._last = self._now()

    def medians(self) -> tuple[float, ...]:
        """Raises StatisticsError, a ValueError, where training ended too soon."""
        return tuple(statistics.median(self._seconds[n]) for n in self._counts)
