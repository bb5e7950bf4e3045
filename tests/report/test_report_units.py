"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.report.numbers_text import (
    change,
    difference,
    duration,
    si,
    significant,
    value,
    with_error,
)
from petra.report.pipeline_text import pipeline_in_words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (61234, "61.2 kB"),
        (999_600, "1.00 MB"),
        (123.4, "123 B"),
    ],
)
def test_si(number: float, text: str) -> None:
    assert si(number, "B") == text


@given(st.floats(1e-3, 1e17))
def test_si_is_right_to_three_digits(number: float) -> None:
    text = si(number, "B")
    figure, unit = text.split(" ")
    back = float(figure) * 1000.0 ** ("", "k", "M", "G", "T", "P").index(unit.removesuffix("B"))
    assert math.isclose(back, number, rel_tol=0.0051)


def test_noise_decides_the_digits() -> None:
    assert with_error(Measurement(0.91234, 0.0071)) == "0.9123 ± 0.0071"
    assert with_error(Measurement(12.345, 1.2)) == "12.3 ± 1.2"
    assert with_error(Measurement(0.5)) == "0.5"
    assert difference(Measurement(-0.012, 0.0092)) == "-0.0120 ± 0.0092"
    assert difference(Measurement(-0.012, 0.0092), noise=False) == "-0.0120"
    assert difference(Measurement(0.0, 0.003)) == "="


def test_changes() -> None:
    assert change(25, 100) == "-75%"
    assert change(103.1, 100) == "+3.1%"
    assert change(100.01, 100) == "="
    assert change(1, 0) == ""


def test_units_of_metrics() -> None:
    assert value("latency_ms", 0.42) == "0.420 ms"
    assert value("latency_ratio", 0.314) == "0.31x"
    assert value("throughput", 12_345) == "12.3 k/s"
    assert value("params", 271_098) == "271 k"
    assert significant(1234.5) == "1234"
    assert duration(8.34) == "8.3 s"
    assert duration(125) == "2 min 05 s"
    assert duration(4800) == "1 h 20 min"
    assert duration(59.96) == "1 min 00 s"


def test_pipelines_in_words() -> None:
    assert pipeline_in_words(Pipeline()) == "untouched model"
    prune = StageSpec(
        "prune.structured",
        {"importance": "taylor", "ratio": 0.4, "round_to": 8, "spread": "global"},
    )
    plugin = StageSpec("mine", {"on": True, "off": False, "mode": "slow"})
    assert (
        pipeline_in_words(Pipeline((prune, plugin, StageSpec("half"))))
        == "prune.structured (ratio 0.4, taylor) → mine (mode slow, on) → half"
    )
