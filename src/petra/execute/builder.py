"""From a pipeline to files, seen from the process that keeps the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from petra.core.errors import PetraError
from petra.core.notes import StepBegan, StepProgress, WorkerNote
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.core.trial import FULL, Fidelity
from petra.execute.base import Limits
from petra.execute.built import Built
from petra.execute.costs import Costs, build_costs
from petra.execute.gate import Gate, build_if_hopeful

R = TypeVar("R")


class Caller(Protocol):
    """Where a payload is, and functions of it run: a `petra.workers.isolate.Worker`, or what stands
    in for one.
    """

    peak_memory_mb: float  # of the latest call

    @property
    def closed(self) -> bool: ...

    def call(
        self,
        function: Callable[..., R],
        *args: object,
        time_limit_s: float | None = None,
        memory_limit_mb: float | None = None,
        on_note: Callable[[object], None] | None = None,
    ) -> R:
        """``function(payload, note, *args)``; what it passes to ``note`` goes to `on_note`."""


def ignore(note: WorkerNote) -> None:
    """Nobody asked to be told."""


@dataclass(frozen=True)
class Builder:
    """Builds candidates where `caller` is, under `limits`. Knows nothing of a study's directory or
    of how files are judged: they may be moved in between, and `Built` says what belongs to them.
    """

    caller: Caller
    limits: Limits

    def build(
        self,
        pipeline: Pipeline,
        target: Target,
        place: Path,
        *,
        fidelity: Fidelity = FULL,
        gate: Gate | None = None,
        seed: int | None = None,
        time_limit_s: float | None = None,
        on_note: Callable[[WorkerNote], None] = ignore,
    ) -> Built:
        """Files in `place`, of the pipeline at `fidelity`, by default with the study's own seed.
        Raises Left for what does not pass `gate`, what stages and export raise, and what
        `Caller.call` does.
        """
        (built,) = self._call(
            pipeline, ((target, place),), fidelity, gate, time_limit_s, on_note, seed
        )
        assert isinstance(built, Built)
        return built

    def build_for(
        self,
        pipeline: Pipeline,
        exports: Sequence[tuple[Target, Path]],
        *,
        on_note: Callable[[WorkerNote], None] = ignore,
    ) -> list[Built | PetraError]:
        """The model once, its files for each target in a place of their own; an error where it
        cannot be exported.
        """
        return list(self._call(pipeline, tuple(exports), FULL, None, None, on_note))

    def costs(
        self,
        pipeline: Pipeline,
        fidelity: Fidelity,
        target: Target,
        place: Path,
        *,
        time_limit_s: float | None = None,
        on_note: Callable[[WorkerNote], None] = ignore,
    ) -> Costs:
        """What the pipeline costs, trained as little as `fidelity` says; its files in `place`.
        Raises as `build`.
        """
        return self.caller.call(
            build_costs,
            pipeline,
            fidelity,
            target,
            place,
            time_limit_s=self.limits.time_s if time_limit_s is None else time_limit_s,
            memory_limit_mb=self.limits.memory_mb,
            on_note=typed(on_note),
        )

    def _call(
        self,
        pipeline: Pipeline,
        exports: tuple[tuple[Target, Path], ...],
        fidelity: Fidelity,
        gate: Gate | None,
        time_limit_s: float | None,
        on_note: Callable[[WorkerNote], None],
        seed: int | None = None,
    ) -> tuple[Built | PetraError, ...]:
        return self.caller.call(
            build_if_hopeful,
            pipeline,
            exports,
            fidelity,
            gate,
            seed,
            time_limit_s=self.limits.time_s if time_limit_s is None else time_limit_s,
            memory_limit_mb=self.limits.memory_mb,
            on_note=typed(on_note),
        )


def typed(on_note: Callable[[WorkerNote], None]) -> Callable[[object], None]:
    """Takes what a worker says, and passes on what is a note of petra's: the rest is a stage's own
    chatter.
    """

    def heard(note: object) -> None:
        if isinstance(note, StepBegan | StepProgress):
            on_note(note)

    return heard
