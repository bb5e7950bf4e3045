"""A study in a notebook: one box of HTML that is updated in place. No widgets, no scripts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from petra.core.cards import esc, styled
from petra.progress.follow import Progress, Snapshot

REDRAWN_S = 0.5  # seconds between two updates
MOST_LINES = 200  # of the latest events


def kernel() -> Any | None:
    """The shell of the notebook that runs us; None on a terminal, in a script, without IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


@contextmanager
def in_a_notebook() -> Iterator[Progress]:
    """A box under the cell that runs, for as long as this lasts; then the lines, folded."""
    from IPython.display import HTML, display

    box = Box()
    progress = Progress(box)
    handle = display(HTML(box.html(progress.snapshot())), display_id=True)
    try:
        with _redrawn(lambda: handle.update(HTML(box.html(progress.snapshot())))):
            yield progress
    finally:
        handle.update(HTML(box.html(None)))


@contextmanager
def _redrawn(draw: Callable[[], None]) -> Iterator[None]:
    """Draw again and again in a thread of its own. What goes wrong there ends the drawing alone."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(REDRAWN_S):
            draw()

    thread = threading.Thread(target=run, name="petra-notebook", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Box:
    """The lines of a study, and HTML of them with a moment of it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._end: list[str] = []
        self._left_out = 0

    def line(self, text: str, status: str = "", done: float | None = None) -> None:
        if status == "phase":
            return
        if status == "end":
            self._end.append(text)
            return
        self._lines.append(text)
        if len(self._lines) > MOST_LINES:
            del self._lines[0]
            self._left_out += 1

    def html(self, now: Snapshot | None) -> str:
        """The box while a study runs; `now` is None once it has ended, or was interrupted."""
        if now is None:
            return styled(_paragraphs(self._end) + self._log(opened=False))
        share = "" if now.done is None else f" value={now.done:.3f}"
        told = [*now.running, now.counts, f"best so far: {now.best}" if now.best else ""]
        return styled(
            f"<p><b>{esc(now.phase)}</b> {esc(_share(now))}</p>"
            f"<progress aria-label='share of the study that is done'{share}></progress>"
            + _paragraphs(filter(None, told))
            + self._log(opened=True)
        )

    def _log(self, *, opened: bool) -> str:
        lines = list(self._lines)
        title = f"{len(lines) + self._left_out} lines of what happened"
        if self._left_out:
            title += f", of which the last {len(lines)} are here"
        start = f"<details{' open' if opened else ''}><summary>{title}</summary>"
        return f"{start}{_paragraphs(lines)}</details>"


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p class=soft>{esc(text)}</p>" for text in texts)


def _share(now: Snapshot) -> str:
    return now.left if now.done is None else f"{now.done:.0%}, {now.left}"
