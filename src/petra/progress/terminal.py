"""A study on a terminal: lines that stay, and below them a block that is redrawn. In a pipe or a
file, the lines alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from petra.progress.follow import Progress, Snapshot

_STYLES = {
    "best": "green",
    "infeasible": "yellow",
    "screened": "dim",
    "failed": "red",
    "timed_out": "red",
    "": "dim",
}


@contextmanager
def in_a_terminal(console: Console) -> Iterator[Progress]:
    """A block at the bottom for as long as this lasts, lines above it."""
    progress = Progress(LinesAbove(console))
    block = Block(progress.snapshot)
    beside = sys.stdout is not None and sys.stdout.isatty()  # what is printed would tear it
    with Live(block, console=console, refresh_per_second=4, transient=True, redirect_stdout=beside):
        yield progress


@contextmanager
def in_lines(console: Console) -> Iterator[Progress]:
    """A line for every event worth keeping in a log."""
    yield Progress(Lines(console))


class Lines:
    """Every line as it comes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, status: str = "", done: float | None = None) -> None:
        share = "" if done is None else f"{done:4.0%} "
        self._console.print(f"{share}{text}", markup=False, soft_wrap=True)


class LinesAbove:
    """Lines in the colour of how a trial ended. The block says what begins and how far all is."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, status: str = "", done: float | None = None) -> None:
        if status != "phase":
            self._console.print(Text(text, style=_STYLES.get(status, "")), soft_wrap=True)


class Block:
    """The budget used, what is being done, how trials ended, the best values so far."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def __rich__(self) -> Group:
        now = self._snapshot()
        lines: list[Table | Text] = [_bar(now)]
        lines += [_cut(f"  {text}") for text in now.running]
        if now.counts:
            lines.append(_cut(f"  {now.counts}"))
        if now.best:
            lines.append(_cut(f"  best so far: {now.best}", style="dim"))
        return Group(*lines)


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _bar(now: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    if now.done is None:
        grid.add_row(Text(now.phase), ProgressBar(pulse=True), now.left)
    else:
        share = f"{now.done:.0%}  {now.left}"
        grid.add_row(Text(now.phase), ProgressBar(completed=100 * now.done), share)
    return grid
