"""What a running study looks like: a live block in a terminal, one line for every finished trial
anywhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from petra.core.metric import describe
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Objective
from petra.core.text import first_line, printable
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.listener import Clock, Listener
from petra.report.numbers_text import change, duration, value
from petra.report.pipeline_text import count_statuses, fidelity_in_words, pipeline_in_words


@contextmanager
def watching(console: Console, objectives: Sequence[Objective]) -> Iterator[Listener]:
    """A listener that shows a study on `console` for as long as the block lasts."""
    if not console.is_terminal:
        yield LineProgress(console, objectives)
        return
    listener = LiveProgress(console, objectives)
    with Live(listener, console=console, refresh_per_second=4, transient=True):
        yield listener


class LineProgress:
    """One line for every event worth keeping in a log."""

    def __init__(self, console: Console, objectives: Sequence[Objective]) -> None:
        self._console = console
        self._objectives = tuple(objectives)
        self._baseline: Trial | None = None

    def started(self, baseline: Trial, clock: Clock) -> None:
        self._baseline = baseline
        self.message(f"untouched model: {self._values(baseline)}")
        if clock.trials:
            self.message(f"continuing after {clock.trials} trials")

    def stage(self, proposal: Proposal, note: WorkerNote) -> None: ...

    def finished(self, trial: Trial, clock: Clock) -> None:
        outcome = self._values(trial) if trial.measured else _reason(trial)
        how = (trial.status.value.replace("_", " "), fidelity_in_words(trial.fidelity), outcome)
        self.message(
            f"{clock.fraction:4.0%} trial {trial.number}: {', '.join(filter(None, how))},"
            f" {duration(trial.seconds)}: {pipeline_in_words(trial.pipeline)}"
        )

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _values(self, trial: Trial) -> str:
        return ", ".join(_objective_text(o, trial, self._baseline) for o in self._objectives)


def _objective_text(objective: Objective, trial: Trial, baseline: Trial | None) -> str:
    """'accuracy 0.9712', 'size 61.2 kB (-75%)'."""
    metric = describe(objective.metric)
    if trial.number == 0 and metric.over:  # the ratio of the untouched model to itself says nothing
        metric = describe(metric.over)
    m = trial.metrics[metric.name]
    name = (m.unit or metric.title) if metric.sampled else metric.name.split("_")[0]
    text = f"{name} {value(metric, m.mean)}"
    if baseline is None or trial.number == 0 or metric.sampled or metric.form == "ratio":
        return text
    moved = change(m.mean, baseline.metrics[objective.metric].mean)
    return f"{text} ({moved})" if moved else text


def _reason(trial: Trial) -> str:
    if trial.failure is None:
        return "no result"
    return printable(
        f"{trial.failure.stage}: {first_line(trial.failure.message) or trial.failure.kind}"
    )


class LiveProgress:
    """A block that is redrawn: the budget used, what is running, how trials ended, the best values
    so far.
    """

    def __init__(self, console: Console, objectives: Sequence[Objective]) -> None:
        self._console = console
        self._objectives = tuple(objectives)
        self._lock = threading.Lock()
        self._clock: Clock | None = None
        self._heard = time.monotonic()
        self._baseline: Trial | None = None
        self._trials: list[Trial] = []
        self._running: dict[int, str] = {}
        self._said = "starting"

    # ---- events, from any thread -----------------------------------------------------------------

    def started(self, baseline: Trial, clock: Clock) -> None:
        with self._lock:
            self._baseline = baseline
            self._tick(clock)
        self.message("searching")

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        with self._lock:
            self._running[proposal.number] = _activity(
                proposal, note, self._running.get(proposal.number, "")
            )

    def finished(self, trial: Trial, clock: Clock) -> None:
        with self._lock:
            self._running.pop(trial.number, None)
            before = self._best()
            self._trials.append(trial)
            self._tick(clock)
            better = [o for o, t in self._best().items() if t is trial and o in before]
        for objective in better:
            self._console.print(
                Text(
                    f"trial {trial.number}: best"
                    f" {_objective_text(objective, trial, self._baseline)}, ",
                    style="green",
                )
                + Text(pipeline_in_words(trial.pipeline), style="dim")
            )

    def message(self, text: str) -> None:
        with self._lock:
            self._said = printable(text)

    def _tick(self, clock: Clock) -> None:
        self._clock, self._heard = clock, time.monotonic()

    # ---- drawing ---------------------------------------------------------------------------------

    def __rich__(self) -> Group:
        with self._lock:
            lines: list[Table | Text] = [self._bar()]
            lines += [
                Text(f"  trial {n}: {text}", no_wrap=True, overflow="ellipsis")
                for n, text in sorted(self._running.items())
            ]
            lines.append(Text(f"  {self._counts()}"))
            best = "   ".join(
                _objective_text(o, t, self._baseline) for o, t in self._best().items()
            )
            lines.append(
                Text(f"  best so far: {best}" if best else "  nothing finished yet", style="dim")
            )
        return Group(*lines)

    def _bar(self) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        if self._clock is None:
            grid.add_row(Text(self._said), ProgressBar(pulse=True), "")
            return grid
        now = replace(self._clock, elapsed_s=self._clock.elapsed_s + time.monotonic() - self._heard)
        left = f"{duration(now.left_s)} left" if now.left_s is not None else ""
        grid.add_row(
            Text(self._said),
            ProgressBar(completed=100 * now.fraction),
            f"{now.fraction:.0%}  {left}",
        )
        return grid

    def _counts(self) -> str:
        earlier = self._clock.trials - len(self._trials) if self._clock else 0
        return count_statuses(self._trials) + (
            f", {earlier} in earlier sessions" if earlier > 0 else ""
        )

    def _best(self) -> dict[Objective, Trial]:
        complete = [t for t in self._trials if t.status is TrialStatus.COMPLETE and t.comparable]
        return {
            o: min(complete, key=lambda t: o.cost(t.metrics)) for o in self._objectives if complete
        }


def _activity(proposal: Proposal, note: WorkerNote, before: str) -> str:
    """What a worker's note says, in words."""
    if isinstance(note, StepBegan):
        stages = len(proposal.pipeline)
        return (
            f"{note.name} (stage {note.index + 1} of {stages})"
            if note.index < stages
            else note.name
        )
    stage = before.partition(": ")[0]
    return f"{stage}: {note.done}/{note.total} {note.text}".rstrip()
