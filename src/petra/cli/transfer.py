"""petra transfer: what one study found, tried on another task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from petra.cli.completion import pick_names
from petra.cli.conduct import conduct
from petra.cli.output import JsonFlag, say, say_json
from petra.cli.search import Quiet

if TYPE_CHECKING:
    from petra.core.trial import Trial
    from petra.report.record import StudyRecord
    from petra.study import Study
    from petra.transferred import Ready, Transfer


def transfer(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="The study that found them.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="STUDY.yaml", help="Where they are tried: a study file.")
    ],
    pick: Annotated[
        str | None,
        typer.Option(
            help="smallest, fastest, best, knee, or the number of a trial on the front; by default"
            " all of the front.",
            autocompletion=pick_names,
        ),
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Begin the file's own search with them.")
    ] = False,
    workdir: Annotated[
        Path | None,
        typer.Option(help="Where the results go; by default the file's workdir, '-from-DIR'."),
    ] = None,
    quiet: Quiet = False,
    as_json: JsonFlag = False,
) -> None:
    """Try the configurations that a study found on the task of another study file.

    Each is trained anew there and judged beside the untouched model and what that file has under
    `space.initial`. With --start, its search begins with them. The same command continues.

    For example:

    - `petra transfer runs/rte --to mrpc.yaml`
    - `petra transfer runs/rte --to mrpc.yaml --pick best`
    - `petra transfer runs/rte --to mrpc.yaml --start --workdir runs/mrpc`
    """
    from petra.report.record import StudyRecord

    StudyRecord.load(study)  # refused before torch is loaded

    from petra.transferred import prepare

    ready: list[Ready] = []

    def make(say: Callable[[str], None]) -> Study:
        ready.append(prepare(study, to, pick=pick, start=start, workdir=workdir, note=say))
        return ready[0].study

    conduct(make, quiet=quiet)
    found = ready[0].result()
    if as_json:
        say_json(transfer_data(found))
        return
    say(transfer_view(found))
    for number, why in found.refused.items():
        say(f"trial {number} is not legal here: {why}")
    say(f"results:   {found.here.directory}")


def transfer_data(found: Transfer) -> dict[str, object]:
    """What came of it, as plain data."""
    from petra.report.plain import trial_data

    return {
        "source": str(found.there.directory),
        "directory": str(found.here.directory),
        "metric": {"there": found.there.metric, "here": found.here.metric},
        "untouched": {
            "there": trial_data(found.there.trials[0]), "here": trial_data(found.here.trials[0])
        },
        "given": [trial_data(t) for t in found.given],
        "transferred": [
            {"there": trial_data(a.found), "here": trial_data(a.applied) if a.applied else None}
            for a in found.applied
        ],
        "refused": {str(number): why for number, why in found.refused.items()},
    }  # fmt: skip


def transfer_view(found: Transfer) -> Table:
    """A table: what is tried, its quality where it was found and here, and its costs here."""
    from petra.report.numbers_text import value_of
    from petra.report.pipeline_text import pipeline_in_words

    costs = [o.metric for o in found.here.objectives if not found.here.catalogue[o.metric].sampled]
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("found as", justify="right")
    metric = found.here.metric
    for title in (f"{found.there.metric} there", f"{metric} here", "change here", "on test items"):
        table.add_column(title, justify="right")
    for name in costs:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("configuration")
    for name, there, here in _rows(found):
        cells = [name, _quality(there), _quality(here), _change(found.here, here)]
        cells.append(_quality(here, test=True))
        known = here.metrics if here else {}
        cells += [value_of(found.here.catalogue[c], known.get(c)) for c in costs]
        pipeline = (here or there or found.here.trials[0]).pipeline
        table.add_row(*cells, Text(pipeline_in_words(pipeline)))
    return table


def _rows(found: Transfer) -> Iterator[tuple[str, Trial | None, Trial | None]]:
    """Names, and trials there and here: the untouched model, what was given here, what was found
    there.
    """
    yield "", found.there.trials[0], found.here.trials[0]
    for trial in found.given:
        yield "given", None, trial
    for one in found.applied:
        yield str(one.found.number), one.found, one.applied


def _quality(trial: Trial | None, *, test: bool = False) -> str:
    """On the validation split, or on the test split where it was confirmed there."""
    from petra.core.metric import QUALITY
    from petra.report.numbers_text import NONE, with_error

    found = None if trial is None else (trial.test if test else trial.metrics).get(QUALITY)
    if found is not None:
        return with_error(found)
    failed = trial is not None and not trial.measured and not test
    return trial.status.value.replace("_", " ") if trial is not None and failed else NONE


def _change(record: StudyRecord, trial: Trial | None) -> str:
    """Of the quality, beside the untouched model's on the same items."""
    from petra.core.metric import QUALITY
    from petra.core.paired import score_change
    from petra.report.numbers_text import NONE, difference

    if trial is None or not trial.number or not trial.measured:
        return NONE
    change = score_change(trial.metrics, record.trials[0].metrics, QUALITY)
    return NONE if change is None else difference(change)
