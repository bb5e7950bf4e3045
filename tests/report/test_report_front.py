"""The front against brute force, what each name picks, and what is said when there is nothing to
pick.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_trials import BASE, OBJECTIVES, front, made

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives, violation
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Failure, Fidelity, StageTrace, Trial, TrialStatus
from petra.report import plots
from petra.report.outcomes import failure_counts, screening
from petra.report.pipeline_text import count_statuses, fidelity_in_words
from petra.report.study_front import StudyFront
from petra.report.tables import to_text, trials_view
from petra.testing.studies import toy_study


@pytest.mark.parametrize(
    "low", [Fidelity(epochs=0.5), Fidelity(data=0.1), Fidelity(zero_shot=True)]
)
def test_only_full_fidelity_reaches_the_front(low: Fidelity) -> None:
    """And what is shown beside it: figures of another kind are not put in one picture."""
    full, better = made(1, 0.85, 0.5, 500.0), made(2, 0.99, 0.1, 10.0, fidelity=low)
    found = front(BASE, full, better)
    assert [t.number for t in found.members] == [1, 0]
    again = front(BASE, full, replace(better, number=3, fidelity=FULL))
    assert [t.number for t in again.members] == [3]
    drawn = plots.single_figure(front(BASE, full, better, objectives=OBJECTIVES[2:]))
    assert not any(10.0 in (trace.y if trace.y is not None else ()) for trace in drawn.data)
    assert count_statuses(found.trials) == "2 complete, 1 of them at reduced fidelity"
    with pytest.raises(ConfigError, match="trial 2 was evaluated at a reduced fidelity"):
        found.choose(2)
    assert f"complete, {fidelity_in_words(low)}" in to_text(
        trials_view(found, width=200), width=200
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "constraints", [(), ("quality >= baseline - 0.1",), ("size <= 30 kB", "latency <= 0.8")]
)
def test_members_are_those_that_no_feasible_trial_dominates(
    tmp_path: Path, seed: int, constraints: tuple[str, ...]
) -> None:
    found = StudyFront.load(toy_study(tmp_path, trials=30, seed=seed, constraints=constraints))
    assert found.baseline is not None
    bounds = [Constraint.parse(c) for c in constraints]
    candidates = [
        t
        for t in found.trials
        if t.measured and violation(bounds, t.metrics, found.baseline.metrics) == 0
    ]

    def beats(a: Trial, b: Trial) -> bool:
        x, y = ([o.cost(t.metrics) for o in OBJECTIVES] for t in (a, b))
        return all(i <= j for i, j in zip(x, y, strict=True)) and x != y

    expected = {t.number for t in candidates if not any(beats(other, t) for other in candidates)}
    assert {t.number for t in found.members} == expected
    sizes = [t.metrics["size_bytes"].mean for t in found.members]
    assert sizes == sorted(sizes)


def test_the_untouched_model_is_on_the_front_exactly_when_feasible_and_not_dominated() -> None:
    smaller = made(1, 0.8, 0.5, 500.0)
    assert [t.number for t in front(BASE, smaller).members] == [1, 0]
    assert [
        t.number for t in front(BASE, smaller, constraints=("size <= 0.9 * baseline",)).members
    ] == [1]
    better = made(1, 0.95, 0.5, 500.0)
    assert [t.number for t in front(BASE, better).members] == [1]


def test_infeasible_failed_and_unfinished_numbers_never_reach_the_front() -> None:
    tiny = made(1, 0.99, 0.1, 10.0, status=TrialStatus.INFEASIBLE)
    broken = Trial(
        2, Pipeline((StageSpec("x"),)), TrialStatus.FAILED, failure=Failure("x", "E", "no")
    )
    lost = made(3, math.nan, 0.1, 10.0)
    assert [t.number for t in front(BASE, tiny, broken, lost).members] == [0]


def test_members_follow_the_first_cost_when_size_is_no_objective() -> None:
    objectives = named_objectives(("quality", "latency_ratio"), maximize_quality=True)
    found = front(BASE, made(1, 0.8, 0.2, 900.0), made(2, 0.85, 0.6, 100.0), objectives=objectives)
    assert [t.number for t in found.members] == [1, 2, 0]


def left(number: int, reason: str, **metrics: float) -> Trial:
    """A trial that was screened, with what was known of it by then."""
    return made(
        number,
        1.0,
        1.0,
        1.0,
        status=TrialStatus.SCREENED,
        metrics={name: Measurement(mean) for name, mean in metrics.items()},
        failure=Failure("screen", "constraint", reason),
    )


def test_what_was_screened_is_shown_with_its_costs_and_reason_and_is_no_failure() -> None:
    found = front(BASE, made(1, 0.8, 0.5, 500.0), left(2, "size <= 300: 420", size_bytes=420.0))
    assert [t.number for t in found.members] == [1, 0]
    with pytest.raises(ConfigError, match="trial 2 was screened: size <= 300: 420"):
        found.choose(2)
    shown = to_text(trials_view(found, width=120), width=120)
    assert "screened" in shown
    assert "420 B" in shown
    assert "screen: size <= 300: 420" in shown
    assert "1 complete, 1 screened" in shown
    assert failure_counts(found.trials) == []
    none = front(BASE, left(1, "too big"), left(2, "too slow"), constraints=("size <= 1",))
    assert none.why_empty() == (
        "none of 2 trials is feasible: 2 screened before they were trained or timed"
    )


def test_how_often_screening_was_wrong_is_said_by_those_that_were_audited() -> None:
    audit = (StageTrace("tune"), StageTrace("screen", details={"audit": "dominated"}))
    trials = [
        made(1, 0.8, 0.5, 500.0, seconds=20.0, trace=audit),
        made(2, 0.7, 0.6, 600.0, seconds=10.0, trace=audit),
        replace(left(3, "too big"), seconds=2.0),
        replace(left(4, "too slow"), seconds=3.0),
    ]
    found = screening(front(BASE, *trials))
    assert (found.left, found.audited, found.wrong) == ({"constraint": 2}, 2, 1)
    assert found.saved_s == 2 * 15.0 - 5.0
    assert str(found) == (
        "2 screened (2 by constraint), which saved about 25 s; 2 more were evaluated in full to"
        " check, of which 1 (50%) should not have been screened."
    )
    assert str(found) in " ".join(str(front(BASE, *trials)).split())
    assert str(screening(front(BASE, trials[0]))).startswith("0 screened; 1 more")
    assert str(screening(front(BASE, made(1, 0.8, 0.5, 500.0)))) == ""


def test_a_misspelt_pick_is_corrected() -> None:
    with pytest.raises(ConfigError, match="smalest") as error:
        front(BASE).choose("smalest")
    assert "did you mean 'smallest'" in error.value.hint


def test_an_empty_front_says_why() -> None:
    bad = [made(n, 0.2, 0.5, 10.0 * n, status=TrialStatus.INFEASIBLE) for n in (1, 2)]
    dead = [
        Trial(
            n,
            Pipeline((StageSpec("x", {"n": n}),)),
            TrialStatus.FAILED,
            failure=Failure("quantize", "Refused", "?"),
        )
        for n in (3, 4, 5)
    ]
    found = front(BASE, *bad, *dead, constraints=("quality >= 0.95",))
    assert found.members == []
    with pytest.raises(ConfigError) as error:
        found.choose("best")
    assert "none of 5 trials" in error.value.message
    assert "2 violate quality >= 0.95" in error.value.message
    assert "3 failed in quantize: Refused" in error.value.message
    assert "loosen the constraints" in error.value.hint
    assert "empty" in str(found)
    assert found.table().empty


def test_a_study_whose_baseline_never_finished_has_an_empty_front() -> None:
    found = front()
    assert found.baseline is None
    assert "has not been measured" in str(found)
    with pytest.raises(ConfigError, match="has not been measured"):
        found.choose("knee")


# ---- tables --------------------------------------------------------------------------------------


def test_table_is_relative_to_the_untouched_model_and_prefers_confirmed_speed() -> None:
    test = {
        "quality": Measurement(0.78, 0.02, 100),
        "latency_ratio": Measurement(0.45, 0.01, 50, "x"),
    }
    found = front(
        replace(BASE, test={"quality": Measurement(0.88, 0.02, 100)}),
        made(1, 0.8, 0.5, 250.0, test=test),
    )
    row = found.table().set_index("number").loc[1]
    assert row["quality_val"] == 0.8
    assert row["quality_test"] == 0.78
    assert row["size_ratio"] == 0.25
    assert row["params_ratio"] == 0.25
    assert row["latency_ratio"] == 0.45
    assert row["latency_ratio_low"] == pytest.approx(0.45 - 1.96 * 0.01)
    assert row["pipeline"] == "tune (epochs 1)"


def test_text_and_notebook_forms_name_every_member(tmp_path: Path) -> None:
    found = StudyFront.load(toy_study(tmp_path, trials=20))
    text, html = str(found), found._repr_html_()
    for member in found.members:
        assert f"\n{member.number:>2}  " in text
        assert f">{member.number}" in html
    assert max(map(len, text.splitlines())) <= 100


def test_notebook_form_escapes_what_users_named() -> None:
    evil = Pipeline((StageSpec("tune", {"loss": "<script>alert(1)</script>"}),))
    html = front(BASE, replace(made(1, 0.8, 0.5, 500.0), pipeline=evil))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
