"""What the page says of every trial: once, with its reason, and with one figure for one thing."""

from __future__ import annotations

import json
import math
import re
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_trials import BASE, front, made
from test_report_html import Page

from petra.core.measurement import Measurement
from petra.core.metric import METRICS
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Fidelity, Trial, TrialStatus
from petra.front import broken, figures
from petra.report import svg
from petra.report.entries import entries
from petra.report.glossary import TERMS, anchor
from petra.report.html import render, write_report
from petra.report.page import data, script
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.report.trial_data import trials_json
from petra.report.verdicts import Kind, verdicts
from petra.testing.studies import toy_study


@pytest.fixture(scope="module")
def text(study: Path) -> str:
    return write_report(study).read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    """The data of the page's script, each row by its fields' names."""
    found: dict[str, Any] = json.loads(Page(text).data["trials-data"])
    found["rows"] = [dict(zip(found["fields"], row, strict=True)) for row in found["rows"]]
    return found


# ---- the document --------------------------------------------------------------------------------


def test_ids_are_unique_and_every_link_has_one(text: str) -> None:
    ids = re.findall(r'\bid="?([^"\s>]+)', text.split("<script>")[0])
    assert max(Counter(ids).values()) == 1
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(ids)
    assert {anchor(word) for word in TERMS} <= set(ids)


def test_headings_are_in_order_and_tables_say_what_they_are(text: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", text.split("<script>")[0])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    page = Page(text)
    assert page.tags["table"] == page.tags["caption"] == page.tags["thead"]
    assert not re.search(r"<th(?![^>]*scope=)[\s>]", text.split("<script>")[0])
    assert "@media print" in text
    assert "prefers-color-scheme: dark" in text


def test_the_file_is_small_and_grows_little(text: str, tmp_path: Path) -> None:
    assert len(text) < 300_000
    many = write_report(toy_study(tmp_path, trials=300)).read_text(encoding="utf-8")
    assert len(many) < 900_000


def test_charts_are_drawings_that_a_parser_reads_and_have_words(text: str) -> None:
    charts = re.findall(r"<svg class=chart.*?</svg>", text, re.DOTALL)
    assert len(charts) >= 4
    for chart in charts:
        words = re.search(r'aria-label="([^"]+)"', chart)
        assert words is not None
        assert len(words[1]) > 40
        strict = re.sub(r"(\s[\w-]+)=([^\s\"'>]+)", r'\1="\2"', chart)
        for place in ET.fromstring(strict).iter("text"):
            assert 0 <= float(place.attrib["x"]) <= svg.WIDTH
            assert 0 <= float(place.attrib["y"]) <= svg.HEIGHT


def test_the_script_is_one_function_that_sets_no_markup() -> None:
    found = script("report.js", "trial.js")
    assert found.startswith("(function () {")
    for way in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
        assert way not in found
    assert "</script" not in found


# ---- every trial once ----------------------------------------------------------------------------


def test_every_trial_is_in_the_data_and_in_the_table_once(text: str, study: Path) -> None:
    found = StudyFront.load(study)
    numbers = [t.number for t in found.trials]
    rows = data_of(text)["rows"]
    assert [row["number"] for row in rows] == numbers
    table = re.search(r'<table id="trials">.*?</table>', text, re.DOTALL)
    assert table is not None
    assert [int(n) for n in re.findall(r'href="#trial-(\d+)"', table[0])] == numbers


def test_outcomes_are_those_of_the_front_and_reasons_are_true(study: Path) -> None:
    found = StudyFront.load(study)
    said = verdicts(found)
    members = {t.number for t in found.members if t.number}
    assert {n for n, v in said.items() if v.kind is Kind.FRONT} == members
    assert found.baseline is not None
    for trial in found.trials:
        kind, reason = said[trial.number].kind, said[trial.number].reason
        if kind is Kind.DOMINATED:
            number = int(re.findall(r"\d+", reason)[0]) if "untouched" not in reason else 0
            other = next(t for t in found.members if t.number == number)
            costs = [[o.cost(figures(t)) for o in found.objectives] for t in (other, trial)]
            assert all(a <= b for a, b in zip(*costs, strict=True))
            assert costs[0] != costs[1]
        elif kind is Kind.INFEASIBLE:
            assert broken(found.constraints, trial, found.baseline)
            assert re.match(r"accuracy 0\.\d{4}, \d+\.\d% below 0\.7", reason)
        elif kind is Kind.FAILED:
            assert trial.failure is not None
            assert trial.failure.kind in reason
    assert {Kind.FRONT, Kind.DOMINATED, Kind.INFEASIBLE, Kind.UNTOUCHED} <= {
        v.kind for v in said.values()
    }


def test_each_way_to_end_has_its_word_and_its_reason() -> None:
    ended = [
        (TrialStatus.FAILED, Failure("export", "ParityError", "0.3 apart\nmore")),
        (TrialStatus.TIMED_OUT, Failure("tune", "TimeLimit", "took 9 min")),
        (TrialStatus.SCREENED, Failure("screen", "dominated", "no chance")),
    ]
    trials = [
        Trial(n, Pipeline((StageSpec("x", {"n": n}),)), status, failure=failure)
        for n, (status, failure) in enumerate(ended, 1)
    ]
    low = made(4, 0.99, 0.1, 10.0, fidelity=Fidelity(epochs=0.5))
    lost, worse = made(5, math.nan, 0.1, 10.0), made(6, 0.85, 1.2, 1200.0)
    big = made(7, 0.99, 0.1, 2500.0, status=TrialStatus.INFEASIBLE)
    found = verdicts(front(BASE, *trials, low, lost, worse, big, constraints=("size <= 2 kB",)))
    assert {n: (v.kind, v.reason) for n, v in found.items()} == {
        0: (Kind.UNTOUCHED, ""),
        1: (Kind.FAILED, "in export: ParityError: 0.3 apart"),
        2: (Kind.FAILED, "in tune: TimeLimit: took 9 min"),
        3: (Kind.SCREENED, "dominated: no chance"),
        4: (Kind.PARTLY, "0.5 of epochs"),
        5: (Kind.DOMINATED, "one of its figures is not a number"),
        6: (Kind.DOMINATED, "the untouched model is nowhere worse and somewhere better"),
        7: (Kind.INFEASIBLE, "size of the files 2.50 kB, 25.0% above 2.00 kB"),
    }


# ---- one figure ----------------------------------------------------------------------------------


def test_a_confirmed_figure_stands_everywhere_and_the_searchs_only_as_such() -> None:
    base = replace(BASE, test={"quality": Measurement(0.88, 0.02, 100)})
    again = {
        "quality": Measurement(0.7, 0.02, 100),
        "latency_ratio": Measurement(0.53, 0.002, 45, "x"),
        "latency_ms": Measurement(0.0499, 0.0, 45, "ms"),
    }
    trial = made(1, 0.8, 0.645, 250.0, test=again)
    found = front(base, trial)
    (entry,) = [e for e in entries(found) if e.number == 1]
    assert entry.value_texts == ["0.8000", "0.53x", "250 B"]
    by_name = {f.name: f for f in entry.figures()}
    ratio = by_name["latency (times the untouched model's)"]
    assert (ratio.value, ratio.search) == ("0.53x (0.53-0.53)", "0.65x")
    assert by_name["quality, test"].value == "0.700 ± 0.020"
    assert by_name["quality, validation"].value == "0.800 ± 0.010"
    assert max(Counter(f.name for f in entry.figures()).values()) == 1
    assert "0.65x" not in found._repr_html_()
    assert "0.53x" in found._repr_html_()
    assert "-90%" not in found._repr_html_(), "milliseconds of two moments are not divided"
    shown = json.loads(trials_json(entries(found), [METRICS.get("size_bytes")], Path("a b")))
    row = dict(zip(shown["fields"], shown["rows"][1], strict=True))
    assert row["values"] == [0.8, 0.53, 250.0]
    assert shown["export"] == "petra export 'a b' --pick "


def test_charts_put_members_where_the_data_says(text: str, study: Path) -> None:
    """A point's link and the place at which the script looks for it are one place."""
    rows = {row["number"]: row for row in data_of(text)["rows"]}
    charts = re.findall(r"<svg class=chart[^>]*data-x=.*?</svg>", text, re.DOTALL)
    checked = 0
    for chart in charts:
        axes = [re.search(rf'data-{a}="([^"]+)"', chart) for a in "xy"]
        (x, y) = ([float(v) for v in found[1].split()] for found in axes if found)
        for number, place in re.findall(
            r'href="#trial-(\d+)".*?<path class="(?:front|untouched)" d="M([\d. ]+)', chart
        ):
            values = rows[int(number)]["values"]
            across, upward = (
                a[3] + (values[int(a[0])] - a[1]) / (a[2] - a[1]) * (a[4] - a[3]) for a in (x, y)
            )
            drawn_x, drawn_y = map(float, place.split())
            assert abs(drawn_x - across) < 0.2
            assert 5 < upward - drawn_y < 9, "the tip of its mark"
            checked += 1
    assert checked >= 6


# ---- data and size ------------------------------------------------------------------------------


def test_data_cannot_end_its_element() -> None:
    evil = "</script><!--\u2028"
    made_of = data("d", json.dumps({"a": evil}, ensure_ascii=False))
    inside = made_of.removeprefix('<script type="application/json" id="d">')
    inside = inside.removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == {"a": evil}


@pytest.mark.slow
def test_ten_thousand_trials_are_written_in_seconds(tmp_path: Path) -> None:
    record = StudyRecord.load(toy_study(tmp_path, trials=40))
    measured = [t for t in record.trials if t.number and t.measured]

    def worse(number: int) -> Trial:
        like = measured[number % len(measured)]
        quality = like.metrics["quality"]
        lower = replace(quality, mean=quality.mean - 1e-6 * number)
        return replace(like, number=number, metrics={**like.metrics, "quality": lower}, test={})

    whole = (*record.trials, *(worse(number) for number in range(41, 10_001)))
    big = replace(record, trials=whole, leading=whole)
    began = time.process_time()
    body = render(big)
    assert time.process_time() - began < 10
    assert body.count('href="#trial-') < 1000
    assert len(body) < 4_000_000
