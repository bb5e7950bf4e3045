"""What is learnt from trials of one study holds in another of its kind, and does no harm where it
does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity, Proposal, Trial, TrialStatus
from petra.prior.learn import Course, Lesson, learn, lessons
from petra.prior.setting import Setting
from petra.search.prior import WORKS, Linear, Prior, features
from petra.search.scaling import Scaling, scale
from petra.search.surrogate.searcher import SurrogateSearcher
from petra.testing.search_suite import simulate
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_space, toy_trial

HERE = Setting(("convolutional",), 100_000, "accuracy", True, "onnxruntime", "cpu")


def scaling() -> Scaling:
    return scale(OBJECTIVES, (), toy_baseline())


def drawn(count: int, seed: int, fidelity: Fidelity = FULL) -> list[Trial]:
    rng = np.random.default_rng(seed)
    space = toy_space()
    return [toy_trial(Proposal(i + 1, space.sample(rng), fidelity=fidelity)) for i in range(count)]


def course(count: int = 150, seed: int = 0, worth: float = 1.0) -> Course:
    return Course(lessons(drawn(count, seed), scaling()), worth)


def agreement(prior: Prior, name: str, taught: tuple[Lesson, ...]) -> float:
    """Rank correlation of opinions with what pipelines that were not seen really cost."""
    known = [lesson for lesson in taught if name in lesson.costs]
    said = [prior.models[name].predict(lesson.features) for lesson in known]
    return float(spearmanr(said, [lesson.costs[name] for lesson in known]).statistic)


def test_features_say_what_a_pipeline_does_and_in_which_order() -> None:
    cut = StageSpec("prune", {"ratio": 0.5, "importance": "lamp", "layers.conv1": 3})
    found = features(Pipeline((cut, StageSpec("tune", {"epochs": 3, "lr": 1.0}), cut)))
    assert found["prune"] == found["tune"] == found["prune again"] == 1.0
    assert found["prune > tune"] == 1.0
    assert "tune > prune" not in found
    assert found["prune.ratio"] == 0.5
    assert found["log prune.ratio"] == pytest.approx(np.log(0.5))
    assert found["prune.importance=lamp"] == 1.0
    assert found["epochs"] == pytest.approx(np.log(4))
    assert found["prune then epochs"] == 0.0  # none after the last cut
    assert not any("conv1" in name for name in found)


def test_what_was_learnt_ranks_what_was_not_seen() -> None:
    prior, unseen = learn([course()]), lessons(drawn(300, seed=1), scaling())
    for metric, least in (("size_bytes", 0.8), ("latency_ratio", 0.8), ("quality", 0.5)):
        assert agreement(prior, metric, unseen) > least, metric
    assert agreement(prior, WORKS, unseen) > 0


def test_studies_of_no_worth_or_too_few_trials_teach_nothing() -> None:
    assert not learn([course(worth=0.0)]).models
    assert not learn([course(count=8)]).models
    known = learn([course()])
    assert learn([course(seed=3, worth=0.0)], known).models == known.models


def test_what_was_believed_before_gives_way_to_what_is_seen() -> None:
    """A belief that says the opposite of everything is dropped, one that is right is kept."""
    right = learn([course(count=600, seed=5)])
    turned = {n: Linear({}).plus(model, -1.0) for n, model in right.models.items()}
    few, unseen = course(count=40, seed=6), lessons(drawn(300, seed=7), scaling())
    alone = agreement(learn([few]), "size_bytes", unseen)
    assert agreement(learn([few], Prior(turned)), "size_bytes", unseen) > alone - 0.02
    assert agreement(learn([few], right), "size_bytes", unseen) > alone + 0.02


def test_only_costs_that_do_not_depend_on_training_are_learnt_from_part_of_it() -> None:
    less = replace(scaling(), objectives=OBJECTIVES)
    (lesson,) = lessons([t for t in drawn(5, 0, Fidelity(epochs=0.5)) if t.measured][:1], less)
    assert set(lesson.costs) == {"latency_ratio", "size_bytes", WORKS}
    screened = replace(drawn(1, 0)[0], status=TrialStatus.SCREENED)
    (lesson,) = lessons([screened], less)
    assert WORKS not in lesson.costs


def test_likeness_is_one_for_the_same_and_falls_with_every_difference() -> None:
    assert HERE.likeness(HERE) == 1.0
    other = [
        replace(HERE, traits=("attention",)),
        replace(HERE, maximize=False),
        replace(HERE, parameters=10_000_000),
        replace(HERE, metric="f1"),
    ]
    values = [HERE.likeness(setting) for setting in other]
    assert values[:2] == [0.0, 0.0]
    assert all(0 < value < 1 for value in values[2:])
    assert HERE.likeness(replace(HERE, runtime="litert")) == 1.0
    assert not HERE.same_place(replace(HERE, runtime="litert"))


def test_a_prior_survives_being_written() -> None:
    prior = learn([course()])
    again = Prior.from_dict(prior.as_dict())
    names = tuple(prior.models)
    for trial in drawn(20, seed=9):
        mine, other = (p.predict(trial.pipeline, names) for p in (prior, again))
        assert other == pytest.approx(mine, abs=0.02)


@given(
    st.recursive(
        st.none() | st.floats() | st.text() | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_what_is_no_prior_is_refused(data: object) -> None:
    try:
        prior = Prior.from_dict(data)
    except ConfigError:
        return
    assert prior.as_dict() == {str(k): dict(v) for k, v in dict(data).items()}  # type: ignore[call-overload]


def searched(prior: Prior | None, seed: int) -> float:
    problem = replace(toy_problem(seed=seed), prior=prior)
    return scaling().hypervolume(
        simulate(SurrogateSearcher(problem, toy_baseline()), toy_trial, trials=16).trials
    )


@pytest.mark.slow
def test_a_search_that_knows_something_finds_more_and_a_wrong_belief_costs_little() -> None:
    right = learn([course(count=400, seed=11)])
    wrong = Prior({n: Linear({}).plus(model, -1.0) for n, model in right.models.items()})
    without, told, misled = (
        np.array([searched(prior, seed) for seed in range(5)]) for prior in (None, right, wrong)
    )
    assert told.mean() > without.mean()
    assert misled.mean() > 0.93 * without.mean()
