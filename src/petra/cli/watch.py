"""petra watch, and petra show --watch: a study while it runs, in a browser or in the terminal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petra.cli.output import console, note, say
from petra.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from petra.core.trial import Trial
    from petra.watch.look import Look, Watched
    from petra.watch.server import Server

_LATEST = 3  # trials that are listed in a terminal
_LEAST_EVERY_S, _MOST_EVERY_S = 0.5, 3600.0


def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The study's directory.")],
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="By default 8642, or any that is free; so is 0."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Watch a study in the browser while it runs: a page on this machine, for this machine only.

    It is kept up until Ctrl-C, whether the study runs, ends or goes on, and never disturbs it.

    For example:

    - `petra watch petra-demo --open`
    - `petra watch runs/first --port 9000`
    """
    import webbrowser

    server = _serving(directory, port)
    _step_back()
    note(f"watching {directory} at {server.url}")
    note("Ctrl-C ends the page; the study is not touched")
    if open_page and not webbrowser.open(server.url):
        note("there is no browser here; open the address by hand")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            note("\nstopped watching")


def _serving(directory: Path, port: int | None) -> Server:
    """The server. Raises what is wrong with the study, or with the port, if one was asked for."""
    from petra.watch.look import Watched
    from petra.watch.server import PORT, Server

    if trouble := Watched(directory).look().trouble:
        raise trouble
    try:
        return Server(directory, PORT if port is None else port)
    except ConfigError:
        if port is not None:
            raise
        return Server(directory, 0)


def _step_back() -> None:
    """Leave the processor to whoever wants it: candidates may be being timed."""
    if hasattr(os, "nice"):
        os.nice(10)


# ---- in the terminal -----------------------------------------------------------------------------


def seconds_between(text: str) -> float:
    """The value of --every. Raises ConfigError."""
    from petra.core.quantities import parse_duration

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--every: {error}") from None
    if not _LEAST_EVERY_S <= found <= _MOST_EVERY_S:
        raise ConfigError(f"--every: got {text!r}", hint="from half a second to an hour")
    return found


def follow(directory: Path, every_s: float) -> None:
    """Show a study until it has finished or Ctrl-C is pressed: kept up in a terminal, elsewhere a
    line for every change.
    """
    from petra.watch.look import Watched
    from petra.watch.state import State, state_of

    watched = Watched(directory)
    if trouble := watched.look().trouble:
        raise trouble
    if state_of(watched.look()) is not State.FINISHED:
        _step_back()
    try:
        if console().is_terminal:
            _live(watched, every_s)
        else:
            _lines(watched, every_s)
    except KeyboardInterrupt:
        return  # the last state stays on the screen


def _live(watched: Watched, every_s: float) -> None:
    from rich.live import Live

    from petra.watch.state import State, state_of

    screen = console()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            look = watched.look()
            live.update(view(look, width=screen.width), refresh=True)
            if state_of(look) is State.FINISHED:
                return
            time.sleep(every_s)


def view(look: Look, *, width: int) -> RenderableType:
    """A look at a study, for a terminal: how it is, what is under way, what ended last, the
    front.
    """
    from rich.console import Group
    from rich.text import Text

    from petra.report.card import subject
    from petra.report.pipeline_text import count_statuses
    from petra.report.tables import front_view
    from petra.watch.state import State, advice, headline, how_far, state_of
    from petra.watch.words import latest, running

    style = "green" if look.holder else "bold" if state_of(look) is State.FINISHED else "bold red"
    parts: list[RenderableType] = [Text(headline(look), style=style)]
    if (said := advice(look)) and state_of(look) is not State.FINISHED:
        parts.append(Text(said, style="dim"))
    if look.seen is None:
        return Group(*parts)
    counts = count_statuses(look.seen.front.trials)
    parts.append(Text(f"{subject(look.seen.record)}: {how_far(look)}; {counts}"))
    parts += [_one_line(f"  {hand}") for hand in running(look)]
    last = latest(look.seen.trials, _LATEST)
    parts += [_one_line(f"  {_ended(t, look)}", style="dim") for t in last]
    return Group(*parts, Text(""), front_view(look.seen.front, width=width))


def _one_line(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _ended(trial: Trial, look: Look) -> str:
    """'trial 12: infeasible, ..., 8.3 s: tune -> quantize.static'."""
    from petra.report.numbers_text import duration
    from petra.report.pipeline_text import pipeline_in_words
    from petra.watch.words import outcome

    assert look.seen is not None
    status = trial.status.value.replace("_", " ")
    came = outcome(trial, look.seen.front)
    words = pipeline_in_words(trial.pipeline)
    return f"trial {trial.number}: {status}, {came}, {duration(trial.seconds)}: {words}"


def _lines(watched: Watched, every_s: float) -> None:
    """What is new, a line each; of the trials that ended before, their number alone."""
    from petra.report.pipeline_text import count_statuses
    from petra.watch.state import State, headline, how_far, state_of

    known: frozenset[int] | None = None
    said = members = ""
    while True:
        look = watched.look()
        if (now := headline(look)) != said:
            say(now)
        said = now
        if look.seen:
            ended = {t.number: t for t in look.seen.trials}
            if known is None:
                say(f"{how_far(look)}; {count_statuses(look.seen.front.trials)}")
            for number in sorted(ended.keys() - known) if known is not None else ():
                say(_ended(ended[number], look))
            known = frozenset(ended)
            front = "on the front: " + ", ".join(str(t.number) for t in look.seen.front.members)
            if front != members:
                say(front)
            members = front
        if state_of(look) is State.FINISHED:
            return
        time.sleep(every_s)
