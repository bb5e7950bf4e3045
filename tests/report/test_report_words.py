"""The words of the page: metrics, constraints, moves, and what stands in its charts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_report_html import Page

from petra.core.metric import METRICS, Catalogue
from petra.core.objective import Constraint
from petra.report import svg
from petra.report.glossary import ORIGINS, TERMS, origin_doc, term
from petra.report.html import write_report
from petra.report.labels import Label, placed
from petra.report.metric_text import constraint_words, metric_words, renamed
from petra.report.verdicts import Kind
from petra.space.table import MOVES


def test_every_move_and_origin_is_explained() -> None:
    for name in (*MOVES.names(), *ORIGINS, "given", "perturb", "resample"):
        assert len(origin_doc(name)) > 10
    assert origin_doc("somebody's own") == ""


def test_every_outcome_is_a_word_of_the_glossary() -> None:
    assert {kind.value for kind in Kind} - set(TERMS) == {"on the front"}
    assert term("dominated").startswith('<a class=term href="#term-dominated" title="')


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("size <= 300 kB", "size of the files at most 300 kB"),
        ("latency <= 0.6", "latency at most 0.60x the untouched model's"),
        ("latency <= 0.5 * baseline", "latency at most 0.50x the untouched model's"),
        ("quality >= baseline - 0.02", "quality at least the untouched model's minus 0.02"),
        ("quality >= 0.9", "quality at least 0.9"),
        ("latency_ms <= 0.5 * baseline", "median latency at most 0.5 times the untouched model's"),
    ],
)
def test_constraints_in_words(constraint: str, words: str) -> None:
    assert constraint_words(Catalogue(), Constraint.parse(constraint)) == words


def test_no_name_of_a_column_of_ours_is_left_in_the_page(study: Path) -> None:
    text = write_report(study).read_text(encoding="utf-8")
    body = re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", text.split("<script>")[0], flags=re.S)
    seen = Page(body).text
    assert "latency_ratio" not in seen
    assert "size_bytes" not in seen
    assert metric_words(METRICS.get("latency_ratio")) in seen


def test_ticks_are_round_and_say_their_unit() -> None:
    assert svg.ticks(0.0, 1.0, 6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.ticks(1.0, 1.0) == []
    size = METRICS.get("size_bytes")
    write = svg.tick_text(size, 0.0, 230_000.0)
    assert [write(v) for v in svg.ticks(0.0, 230_000.0, 5)] == [
        "0 kB", "50 kB", "100 kB", "150 kB", "200 kB",
    ]  # fmt: skip
    assert svg.tick_text(METRICS.get("latency_ratio"), 0, 1)(0.25) == "0.25x"
    for low, high in ((3.1, 3.2), (-1e-9, 1e-9), (0, 1e12), (0.1, 97.0)):
        assert 2 <= len(svg.ticks(low, high, 6)) <= 6


def test_labels_do_not_cover_each_other() -> None:
    apart = [Label(100.0 + 70 * i, 100.0, f"{i} knee") for i in range(4)]
    assert placed(apart, kind="label").count("<text") == 4
    crowd = [Label(200.0 + i, 150.0, f"{i} smallest") for i in range(40)]
    assert 1 <= placed(crowd, kind="label").count("<text") < 5


def test_sentences_name_metrics_in_words() -> None:
    known = Catalogue()
    assert renamed(known, "size_bytes 6.421e+05 at best: size_bytes <= 0.15 * baseline") == (
        "size of the files 642 kB at best: size of the files <= 0.15 * baseline"
    )
    words = renamed(known, "latency_ratio was 0.65x, size_bytes 3, own_name 4; quality 5")
    assert words.startswith("latency (times the untouched model's) was 0.65x, ")
    assert words.endswith(", size of the files 3 B, own_name 4; quality 5")
