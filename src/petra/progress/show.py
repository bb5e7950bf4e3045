"""Which way a study is shown here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from petra.progress.console import PIPED_WIDTH, PlainConsole
from petra.progress.follow import Progress
from petra.progress.notebook import in_a_notebook, kernel
from petra.progress.terminal import in_a_terminal, in_lines


class _Nowhere:
    """Lines that nobody wants to see."""

    def line(self, text: str, status: str = "", done: float | None = None) -> None: ...


@contextmanager
def showing(wanted: bool | Progress, console: Console | None = None) -> Iterator[Progress]:
    """A listener that shows a study for as long as this lasts: in a notebook as a box, on a
    terminal as a block below lines, elsewhere as lines; on `console`, or standard error. Nothing is
    shown where it is not `wanted`; what is shown already goes on.
    """
    if isinstance(wanted, Progress):
        yield wanted
    elif not wanted or (console is None and sys.stderr is None):
        yield Progress(_Nowhere())
    elif console is None and kernel() is not None:
        with in_a_notebook() as progress:
            yield progress
    else:
        used = console or _standard_error()
        with (in_a_terminal if used.is_terminal else in_lines)(used) as progress:
            yield progress


def _standard_error() -> Console:
    width = None if sys.stderr.isatty() else PIPED_WIDTH
    return PlainConsole(file=sys.stderr, width=width, highlight=False, emoji=False)
