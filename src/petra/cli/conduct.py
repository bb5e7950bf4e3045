"""Running a study from a command: shown while it runs, interrupted in a way that can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from petra.cli.output import console, note

if TYPE_CHECKING:
    from petra.study import Study


def conduct(make: Callable[[Callable[[str], None]], Study], *, quiet: bool) -> Study:
    """Make a study and run it under a progress display. `make` is given what takes messages, as a
    listener does. Ctrl-C says how to continue and exits with 130.
    """
    from petra.progress.show import showing

    study: Study | None = None
    try:
        with showing(not quiet, console(stderr=True)) as shown:
            study = make(_only_remarks if quiet else shown.message)
            return study.run(progress=shown)
    except KeyboardInterrupt:
        if study is None:
            raise
        _stopped(study)
        raise typer.Exit(130) from None


def _only_remarks(text: str) -> None:
    """What must be said although no progress is wanted."""
    from petra.listener import Phase

    if not isinstance(text, Phase):
        note(text)


def _stopped(study: Study) -> None:
    finished = sum(t.number > 0 for t in study.trials)
    note(f"\nstopped: {finished} finished trials are kept in {study.directory}")
    again = (
        f"petra resume {study.directory}"
        if study.config.has_source
        else "the same call of petra.compress"
    )
    note(f"continue with: {again}")
