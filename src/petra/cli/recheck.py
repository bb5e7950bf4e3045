"""petra recheck: a stored front under today's versions, on today's machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petra.cli.output import JsonFlag, note, say, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from petra.rechecked import Look, Recheck

MOVED = 3
"""The exit code where something has moved."""


def recheck(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The study's directory.")],
    pick: Annotated[
        list[str] | None,
        typer.Option(
            help="smallest, fastest, best, knee or a number; may be repeated. Default: the front."
        ),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed/--no-speed", help="Whether latency is measured anew.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Check a study's front again under today's versions and on this machine, and say what moved.

    Files by their digests, predictions for the stored items against the stored ones, quality on the
    validation items, and latency over the untouched model's, paired anew. Nothing in the study is
    changed and none of its code is run. Exit code 3 when anything moved beyond its interval.

    For example:

    - `petra recheck petra-demo`
    - `petra recheck petra-demo --pick knee --no-speed`
    - `petra recheck petra-demo --json | jq .moved`
    """
    from petra.rechecked import recheck as look_again

    found = look_again(directory, picks=pick or (), speed=speed, note=note)
    if as_json:
        say_json(found.as_dict())
    else:
        say(_table(found))
        for name, (then, now) in found.changed.items():
            say(f"{name}: {then or 'none'} -> {now or 'none'}")
        if not found.changed:
            say("same machine, same versions as when the study began")
        say("something moved, see above" if found.moved else "nothing moved")
    if found.moved:
        raise typer.Exit(MOVED)


def _table(found: Recheck) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "what", "then", "now", ""):
        table.add_column(title, overflow="fold")
    for model in found.models:
        for look in model.looks:
            mark = "MOVED: " if look.moved else ""
            table.add_row(str(model.number), look.name, *_figures(look), mark + look.said)
    return table


def _figures(look: Look) -> tuple[str, str]:
    then, now = (str(m) if m else "" for m in (look.then, look.now))
    return then, now
