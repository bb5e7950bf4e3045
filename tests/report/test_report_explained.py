"""What is said of an error that exploded stands where failures are explained."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_trials import BASE, front, made

from petra.core.trial import EXPLAINED, Failure, StageTrace, TrialStatus
from petra.report.html_outcomes import explained_section
from petra.report.outcomes import explanation
from petra.report.plain import trial_data
from petra.report.tables import front_view, to_text, trials_view

WORDS = "rmse 0.1 -> 0.5 (+400%): it begins in layer 'stem': <b>12% of its inputs lie beyond</b>"


def exploded(said: object) -> StageTrace:
    return StageTrace("quantize.static", details={"samples": 3, EXPLAINED: said})


def test_it_is_shown_beside_the_trial_in_text_html_and_json() -> None:
    trial = made(1, 0.2, 0.5, 500.0, status=TrialStatus.INFEASIBLE)
    trial = replace(trial, trace=(StageTrace("tune"), exploded({"words": WORDS})))
    left = made(2, 0.2, 0.5, 500.0, status=TrialStatus.SCREENED)
    left = replace(
        left, failure=Failure("screen", "quality", "too bad"), trace=(exploded({"words": WORDS}),)
    )
    found = front(BASE, trial, left, made(3, 0.9, 0.5, 500.0))
    shown = to_text(trials_view(found, width=300), width=300)
    assert shown.count(WORDS) == 2
    assert "screen: too bad" in shown
    page = explained_section(found)
    assert page.count("&lt;b&gt;12% of its inputs") == 2
    assert "<b>" not in page
    assert trial_data(trial)["explanation"] == WORDS
    assert trial_data(BASE)["explanation"] is None
    json.dumps(trial_data(left))


def test_an_empty_front_says_it_of_the_nearest_miss() -> None:
    near = made(1, 0.5, 0.5, 500.0, status=TrialStatus.INFEASIBLE)
    near = replace(near, trace=(exploded({"words": WORDS}),))
    far = made(2, 0.1, 0.5, 500.0, status=TrialStatus.INFEASIBLE)
    found = front(BASE, near, far, constraints=("quality >= 0.95",))
    assert f"trial 1: {WORDS}" in to_text(front_view(found, width=300), width=300)
    found = front(BASE, replace(near, trace=()), far, constraints=("quality >= 0.95",))
    assert "it begins in" not in to_text(front_view(found, width=300), width=300)


def test_nothing_is_shown_where_nothing_exploded() -> None:
    assert explained_section(front(BASE, made(1, 0.2, 0.5, 500.0))) == ""


@pytest.mark.parametrize("said", [None, 3, [], {}, {"words": 7}, {"words": None}, "words"])
def test_what_petra_did_not_write_is_not_shown(said: object) -> None:
    trial = replace(made(1, 0.2, 0.5, 500.0), trace=(exploded(said),))
    assert explanation(trial) == ""


def test_it_is_one_line_that_can_be_printed() -> None:
    trial = replace(made(1, 0.2, 0.5, 500.0), trace=(exploded({"words": "\n\x1b[31mred\nmore"}),))
    assert "\x1b" not in explanation(trial)
    assert "\n" not in explanation(trial)
