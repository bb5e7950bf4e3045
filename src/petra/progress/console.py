"""Consoles on which text from files and other people can do nothing."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from petra.core.text import printable

PIPED_WIDTH = 100  # columns where output goes to a file or a pipe and nobody says otherwise


class PlainConsole(Console):
    """A console on which what is not printable is shown escaped."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                yield Segment(printable(segment.text, lines=True), segment.style)
            else:
                yield segment
