"""petra compare: two or more studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petra.cli.output import JsonFlag, note, say, say_json


def compare(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Directories of studies.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Also write a page with figures.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare studies: settings that differ, all fronts in one table, progress, failures.

    A model is beaten where one of another study's is certainly better in an objective and in none
    worse, by the errors of both measurements. What does not mean the same in all studies is left
    out, and why is said: latency of other machines or runtimes, quality of other data. Hypervolume
    is taken below one reference point for all. The studies may still be running.

    For example:

    - `petra compare runs/first runs/second`
    - `petra compare runs/seed-* --out compare.html`
    - `petra compare runs/first runs/second --json | jq '.studies[].hypervolume'`
    """
    from petra.report.comparison import compare as compared
    from petra.report.comparison_data import comparison_data
    from petra.report.comparison_tables import comparison_view

    found = compared(directories)
    if out is not None:
        from petra.report.comparison_page import write_comparison

        missing = [place for place in out.parents if not place.exists()]
        page = write_comparison(found, out)
        if missing:
            note(f"made the directory {missing[0]}")
        note(f"page: {page}")
    if as_json:
        say_json(comparison_data(found))
        return
    say(comparison_view(found))
