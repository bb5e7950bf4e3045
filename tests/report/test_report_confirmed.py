"""Fronts whose members were confirmed: their costs decide, and what was missing is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from test_report_front import BASE, front, made

from petra.core.measurement import Measurement
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study


def test_what_was_not_measured_is_a_dash_until_it_is_confirmed(tmp_path: Path) -> None:
    rows = {}
    for confirm in (False, True):
        directory = toy_study(tmp_path / str(confirm), trials=20, confirm=confirm)
        found = StudyFront.load(directory)
        compressed = [t for t in found.members if t.number]
        assert not any("throughput" in t.metrics for t in compressed)
        table = found.table().set_index("number")
        numbers = [t.number for t in compressed]
        rows[confirm] = table.loc[numbers, "throughput"].isna().tolist()
        assert ("<td>-</td>" in found._repr_html_()) is not confirm
        assert found.plot().data
    assert all(rows[False])
    assert not any(rows[True])


def test_a_study_about_throughput_has_it_in_every_trial(tmp_path: Path) -> None:
    found = StudyFront.load(
        toy_study(tmp_path, trials=20, objectives=("quality", "throughput_ratio"), confirm=False)
    )
    assert all("throughput_ratio" in t.metrics for t in found.members)


def test_confirmed_costs_decide_who_is_on_the_front() -> None:
    """By the search, 1 is faster than 2 and as good; confirmed, it is slower."""
    base = replace(BASE, test={"quality": Measurement(0.88, 0.02, 100)})
    one, two = made(1, 0.8, 0.5, 250.0), made(2, 0.8, 0.6, 250.0)
    assert [t.number for t in front(base, one, two).members] == [1, 0]
    quality = {"quality": Measurement(0.7, 0.02, 100)}  # whose test split decides nothing
    slow, fast = (
        replace(t, test={**quality, "latency_ratio": Measurement(ratio, 0.01, 45, "x")})
        for t, ratio in ((one, 0.65), (two, 0.58))
    )
    assert [t.number for t in front(base, slow, fast).members] == [2, 0]
    assert [t.number for t in front(base, slow, two).members] == [2, 0]


def test_a_member_that_is_confirmed_beyond_a_bound_leaves_the_front() -> None:
    bound = ("latency <= 0.6",)
    base = replace(BASE, test={"quality": Measurement(0.88, 0.02, 100)})
    inside = made(1, 0.8, 0.5, 250.0)
    outside = replace(inside, test={"latency_ratio": Measurement(0.7, 0.01, 45, "x")})
    assert [t.number for t in front(base, inside, constraints=bound).members] == [1]
    found = front(base, outside, constraints=bound)
    assert found.members == []
    assert "violates latency_ratio <= 0.6" in found._why_not(1)
