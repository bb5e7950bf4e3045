"""petra workloads: the reference problems, and what of each is there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from petra.cli.completion import workload_names
from petra.cli.output import JsonFlag, say, say_json

if TYPE_CHECKING:
    from petra.core.measurement import Measurement
    from petra.workloads.workload import Workload


def workloads(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One workload, in full.", autocompletion=workload_names
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the reference problems: data found or missing, the trained model's quality, what others
    report.

    The quality is that of the model which was trained here last, on the test split; it is trained
    when a study first needs it.

    For example:

    - `petra workloads`
    - `petra workloads ucr/GunPoint`
    - `petra run --workload ucr/GunPoint --time 20m`
    """
    from petra.workloads.places import data_places, known_root
    from petra.workloads.table import PROBLEMS, WORKLOADS

    root = known_root()
    if name is not None:
        one = WORKLOADS.get(name)
        if as_json:
            say_json(_plain(one))
        else:
            say(Text(_in_full(one)))
        return
    if as_json:
        say_json(
            {
                "data": None if root is None else str(root),
                "looked_at": [str(place) for place in data_places()],
                "workloads": [_plain(one) for one in PROBLEMS],
            }
        )
        return
    say(_listed(PROBLEMS))
    say("")
    looked = ", ".join(map(str, data_places()))
    say(f"data: {root}" if root else f"data: no directory at {looked}; PETRA_DATA names it")


def _listed(problems: tuple[Workload, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("workload", "model", "data", "metric", "reached", "published"):
        table.add_column(title, overflow="fold", no_wrap=title != "model")
    for one in problems:
        table.add_row(
            one.name,
            one.about,
            _data(one),
            one.metric,
            _number(_reached(one)),
            "" if one.published is None else str(one.published),
        )
    return table


def _reached(one: Workload) -> Measurement | None:
    from petra.workloads.kept import kept_score

    return kept_score(one.kept, one.metric, one.args) if one.kept else None


def _data(one: Workload) -> str:
    from petra.workloads.places import missing

    return ("missing" if missing(one.files) else "found") if one.files else ""


def _file(name: str) -> str:
    from petra.workloads.places import missing

    return f"{name} ({'missing' if missing([name]) else 'found'})"


def _number(found: Measurement | None) -> str:
    return "" if found is None else f"{found.mean:.4g}"


def _in_full(one: Workload) -> str:
    function = one.bound()
    document = inspect.cleandoc(inspect.getdoc(getattr(function, "func", function)) or "")
    reached = _reached(one)
    facts: Mapping[str, str] = {
        "domain": one.domain,
        "model": one.about,
        "metric": f"{one.metric}, {'more' if one.maximize else 'less'} is better",
        "data": ", ".join(_file(file) for file in one.files),
        "reached": "" if reached is None else str(reached),
        "published": "" if one.published is None else f"{one.published}: {one.published.source}",
        "arguments": ", ".join(
            f"{name}={p.default!r}" for name, p in inspect.signature(function).parameters.items()
        ),
    }
    lines = [f"{title + ':':11s}{text}" for title, text in facts.items() if text]
    return "\n".join([one.name, "", document, "", *lines])


def _plain(one: Workload) -> dict[str, object]:
    from petra.workloads.places import missing

    absent, reached = missing(one.files), _reached(one)
    return {
        "name": one.name,
        "domain": one.domain,
        "about": one.about,
        "args": dict(one.args),
        "metric": one.metric,
        "maximize": one.maximize,
        "files": [{"path": file, "found": file not in absent} for file in one.files],
        "reached": None if reached is None else reached.as_dict(),
        "published": None if one.published is None else vars(one.published),
    }
