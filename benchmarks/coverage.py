"""Every method on every architecture of the zoo: ``python benchmarks/coverage.py``, about a quarter
of an hour.

Writes ``results/coverage.md`` and ``.json``. A cell *acts* when the stage changed the model and the
exported file computes what the model computes, *refuses* when the stage said why it cannot, and
*fails* otherwise. Finished cells are kept in a journal and not run again, except as ``--again``
says; with ``--only`` and ``--stage``, which look at a part, nothing but the journal is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cells import header, options, reasons, run, write

from petra.core.pipeline import Pipeline
from petra.methods.table import STAGES
from petra.testing.architectures import ARCHITECTURES
from petra.testing.coverage import (
    ACTS,
    FAILS,
    OUTCOMES,
    REFUSES,
    UNAVAILABLE,
    Cell,
    shortest_pipeline,
)

UNTOUCHED = "untouched"
PRIMARY = ("prune.structured", "lowrank.", "quantize.static", "quantize.dynamic")
"""Stages, or families of them, that are to act on at least `GOAL` of all architectures, taken
together.
"""
GOAL = 0.85


def main() -> None:
    parser = options(__doc__ or "", "coverage.jsonl")
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES.names(), metavar="ARCHITECTURE")
    parser.add_argument("--stage", nargs="+", choices=[UNTOUCHED, *STAGES.names()], metavar="STAGE")
    given = parser.parse_args()
    partly = bool(given.only or given.stage)
    pipelines = {UNTOUCHED: Pipeline(), **{kind: shortest_pipeline(kind) for kind in STAGES}}
    columns = given.stage or list(pipelines)
    rows = given.only or sorted(ARCHITECTURES.names())
    cells = run([(row, pipelines[column]) for row in rows for column in columns], given)
    table = {(cell.architecture, cell.pipeline.key): cell for cell in cells}
    grid = {row: [table[row, pipelines[column].key] for column in columns] for row in rows}
    lines = [*matrix(grid, columns), "", *totals(grid, columns), "", "## Notes and reasons", ""]
    for index, column in enumerate(columns):
        if why := reasons((row[index] for row in grid.values()), lambda cell: cell.architecture):
            lines += [f"### {column}", "", *why, ""]
    lines += ["## What ran", "", *(f"- {column}: `{pipelines[column]}`" for column in columns)]
    if partly:
        print("\n".join(lines))
    else:
        write(
            "coverage",
            [*header("Every method on every architecture", cells), *INTRODUCTION, *lines],
            cells,
        )
        print("\n".join(totals(grid, columns)))


INTRODUCTION = [
    "Small networks with random weights, built from code. *acts*: the stage changed the",
    "model, and the exported, reloaded file computes what the PyTorch model computes, for one",
    "item and for many (root mean square difference at most 0.1% of the outputs' spread for",
    "float models, 5% for quantized ones). *refuses*: it said why it cannot. *fails*:",
    "anything else. *acts\\**: a quantized file is further off than 5%, but by no more than",
    "twice what input noise of 1e-6 moves the PyTorch model itself; the figures are below.",
    "",
    "Batch norms have settled statistics with a floor under their variances, so that signals",
    "do not fade in random layers. `mobilenet-v2` (output stride) and `mobilevit` (range of",
    "initial weights) were adjusted after quantized files of their first versions were 7.0%",
    "and 9.8% off.",
    "",
]


def matrix(grid: Mapping[str, Sequence[Cell]], columns: Sequence[str]) -> list[str]:
    shown = {ACTS: "acts", REFUSES: "refuses", FAILS: "**fails**", UNAVAILABLE: "n/a"}
    return [
        "| architecture | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {row} | "
            + " | ".join(
                shown[c.outcome] + "*" * (c.outcome == ACTS and c.reason != "") for c in cells
            )
            + " |"
            for row, cells in grid.items()
        ),
        *_counts(grid),
    ]


def _counts(grid: Mapping[str, Sequence[Cell]]) -> list[str]:
    found = [
        Counter(cell.outcome for cell in column) for column in zip(*grid.values(), strict=True)
    ]
    return [
        f"| *{outcome}* | " + " | ".join(str(counter[outcome]) for counter in found) + " |"
        for outcome in OUTCOMES
        if any(counter[outcome] for counter in found)
    ]


def totals(grid: Mapping[str, Sequence[Cell]], columns: Sequence[str]) -> list[str]:
    every = [cell for cells in grid.values() for cell in cells]
    primary = [
        cell
        for cells in grid.values()
        for column, cell in zip(columns, cells, strict=True)
        if column.startswith(PRIMARY) and cell.outcome != UNAVAILABLE
    ]
    acting = sum(cell.outcome == ACTS for cell in primary)
    names = ", ".join(column for column in columns if column.startswith(PRIMARY))
    counts = ", ".join(
        f"{n} {outcome}" for outcome, n in Counter(cell.outcome for cell in every).most_common()
    )
    lines = [f"- {len(grid)} architectures, {len(every)} cells: {counts}"]
    if primary:
        lines.append(
            f"- {names} taken together: {acting} of {len(primary)} act, {acting / len(primary):.1%}"
            f" (goal: {GOAL:.0%})"
        )
    return lines


if __name__ == "__main__":
    main()
