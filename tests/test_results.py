"""The committed figures against what is promised of them: a table that is written anew and falls
short fails here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from petra.testing.coverage import ACTS, FAILS, REFUSES, UNAVAILABLE, Cell

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PRIMARY = ("prune.structured", "lowrank.", "quantize.static", "quantize.dynamic")
"""Stages, or families of them, that are to act on most architectures, taken together."""

Row = Mapping[str, str]


def cells(name: str) -> list[Cell]:
    return [Cell.from_dict(found) for found in json.loads((RESULTS / f"{name}.json").read_text())]


def text(name: str) -> str:
    return (RESULTS / f"{name}.md").read_text()


def rows(markdown: str) -> list[Row]:
    """Of the first table, by the titles of its columns."""
    table = re.search(r"(?:^\|.*\|\n)+", markdown, re.MULTILINE)
    assert table
    titles, _, *body = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()
    )
    return [dict(zip(titles, values, strict=True)) for values in body]


def sections(name: str) -> Iterator[tuple[str, str]]:
    """Runtimes and what is said of each."""
    for part in text(name).split("\n## ")[1:]:
        runtime, _, rest = part.partition("\n")
        yield runtime.split()[0], rest


def number(value: str) -> float:
    """The first of a cell: "0.97 (0.96-0.98)", "93.17 ± 0.40", "1,161,531"."""
    found = re.match(r"[+-]?[\d,.]+", value)
    assert found, value
    return float(found[0].replace(",", ""))


def test_methods_act_on_the_zoo_or_say_why_not() -> None:
    found = cells("coverage")
    assert not [cell for cell in found if cell.outcome == FAILS]
    assert all(cell.reason for cell in found if cell.outcome == REFUSES)
    assert len({cell.architecture for cell in found}) >= 40
    last = [(cell.pipeline.stages[-1].kind, cell) for cell in found if len(cell.pipeline)]
    primary = [
        cell for kind, cell in last if kind.startswith(PRIMARY) and cell.outcome != UNAVAILABLE
    ]
    for family in PRIMARY:
        assert len({cell.architecture for kind, cell in last if kind.startswith(family)}) >= 40
    assert sum(cell.outcome == ACTS for cell in primary) >= 0.85 * len(primary)


def test_random_chains_act_or_say_why_not() -> None:
    found = cells("chains")
    assert len(found) >= 300
    assert {cell.outcome for cell in found} <= {ACTS, REFUSES}
    assert all(cell.reason for cell in found if cell.outcome == REFUSES)
    assert len({cell.architecture for cell in found}) >= 10
    assert all(2 <= len(cell.pipeline) <= 5 for cell in found)


@pytest.mark.parametrize("model", ["resnet20", "resnet56"])
def test_static_int8_holds_against_the_quantizers_of_others(model: str) -> None:
    """In each runtime the file named in the comparison: no less accurate within its standard error,
    at most 1.02 of the latency of the fastest other, timed in turns, and at most 0.8 of the bytes
    of ONNX Runtime's.
    """
    runtimes = dict(sections(f"int8-reference-{model}"))
    assert set(runtimes) == {"onnxruntime", "openvino"}
    for said in runtimes.values():
        table = {row["file"]: row for row in rows(said)}
        compared = re.search(
            r"^(petra, \w+) against .*, timed in turns: ([\d.]+) ", said, re.MULTILINE
        )
        assert compared
        ours, ratio = table[compared[1]], float(compared[2])
        others = [row for file, row in table.items() if not file.startswith(("petra", "fp32"))]
        accuracy, error = map(number, ours["test accuracy"].split(" ± "))
        assert accuracy + error >= max(number(row["test accuracy"]) for row in others)
        assert ratio <= 1.02
        theirs = [
            number(row["bytes"])
            for file, row in table.items()
            if file.startswith("ONNX Runtime's quantizer")
        ]
        assert number(ours["bytes"]) <= 0.8 * min(theirs)


def test_static_int8_of_resnet8_is_within_half_a_point() -> None:
    for _, said in sections("int8-reference-resnet8"):
        table = {row["file"]: number(row["test accuracy"]) for row in rows(said)}
        assert all(
            accuracy >= table["fp32"] - 0.5
            for file, accuracy in table.items()
            if file.startswith("petra")
        )


@pytest.mark.parametrize("kind", ["dynamic int8", "static int8, smoothed"])
def test_minilm_is_a_quarter_in_half_the_time_within_a_point(kind: str) -> None:
    def meets(row: Row, fp32: Row) -> bool:
        return (
            number(row["bytes"]) <= 0.25 * number(fp32["bytes"])
            and number(row["latency ratio (95%)"]) <= 0.5
            and number(row["accuracy"]) >= number(fp32["accuracy"]) - 1.0
        )

    tables = [rows(said) for _, said in sections("minilm-sst2")]
    assert any(
        meets(row, table[0]) for table in tables for row in table if row["model"].endswith(kind)
    )
    assert all(table[0]["model"] == "fp32" for table in tables)


def test_resnet56_goes_far_beyond_int8() -> None:
    """Within a point of its test accuracy at 0.15 of the bytes and 0.33 of the latency, found by a
    search from recipes that miss this; and a best attempt at less.
    """

    def smaller(name: str, size: float, latency: float) -> list[Row]:
        untouched, *found = rows(text(name))
        assert untouched["pipeline"] == "(untouched model)"
        return [
            row
            for row in found
            if number(row["kB"]) <= size * number(untouched["kB"])
            and number(row["latency ratio"]) <= latency
        ]

    found = [row for row in smaller("cifar10-resnet56", 0.15, 0.33) if number(row["diff"]) >= -1.0]
    assert any(row["from"] != "given" for row in found), "made by the search"
    trials = json.loads((RESULTS / "cifar10-resnet56.json").read_text())
    assert {t["status"] for t in trials if t["from"][0] == "given"} == {"infeasible"}, (
        "from what misses the limits"
    )
    assert smaller("cifar10-resnet56-small", 0.10, 0.25)


def test_what_adding_something_touches_is_what_the_architecture_says() -> None:
    script = RESULTS.parent / "touched.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    named = [line.rsplit("|", 2)[1].strip() for line in done.stdout.splitlines()[2:]]
    assert set(named) <= {"0", ""}, "petra knows a plugin by name"
