"""Near-duplicates: recognised by evidence, and by nothing else."""

from __future__ import annotations

from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.trial import Failure, Trial, TrialStatus
from petra.search.duplicates import Duplicates


def cut(ratio: float, **others: Value) -> Pipeline:
    return Pipeline((StageSpec("prune", {"ratio": ratio, **others}), StageSpec("half")))


def trial(number: int, pipeline: Pipeline, size: float, quality: float = 0.9) -> Trial:
    metrics = {"size_bytes": Measurement(size), "quality": Measurement(quality, 0.002, 100)}
    return Trial(number, pipeline, TrialStatus.COMPLETE, metrics=metrics)


def told(*trials: Trial) -> Duplicates:
    duplicates = Duplicates()
    for t in trials:
        duplicates.propose(t.number, t.pipeline)
        duplicates.learn(t)
    return duplicates


def test_values_between_two_that_did_the_same_do_the_same() -> None:
    duplicates = told(trial(1, cut(0.3), 1000), trial(2, cut(0.34), 1000, 0.903))
    assert duplicates.repeats(cut(0.32))
    assert not duplicates.repeats(cut(0.35))
    assert not duplicates.repeats(cut(0.29))


def test_nothing_is_a_duplicate_without_evidence() -> None:
    duplicates = told(trial(1, cut(0.3), 1000))
    assert not duplicates.repeats(cut(0.301))


def test_costs_that_differ_are_no_evidence_and_qualities_only_beyond_their_errors() -> None:
    assert not told(trial(1, cut(0.3), 1000), trial(2, cut(0.34), 990)).repeats(cut(0.32))
    apart = told(trial(1, cut(0.3), 1000), trial(2, cut(0.34), 1000, 0.91))
    assert not apart.repeats(cut(0.32))


def test_choices_join_only_those_that_were_seen() -> None:
    one, other = cut(0.3, norm="a"), cut(0.3, norm="b")
    duplicates = told(trial(1, one, 1000), trial(2, other, 1000), trial(3, cut(0.5, norm="a"), 800))
    assert duplicates.repeats(cut(0.5, norm="b"))
    assert not duplicates.repeats(cut(0.5, norm="c"))


def test_a_pair_that_differs_in_one_value_and_in_its_results_takes_the_claim_back() -> None:
    known = [trial(1, cut(0.3), 1000), trial(2, cut(0.34), 1000), trial(3, cut(0.31), 990)]
    assert not told(*known).repeats(cut(0.32))


def test_what_is_under_way_counts_and_what_failed_does_not() -> None:
    duplicates = told(trial(1, cut(0.3, norm="a"), 1000), trial(2, cut(0.3, norm="b"), 1000))
    duplicates.propose(3, cut(0.6, norm="a"))
    assert duplicates.repeats(cut(0.6, norm="b"))
    failure = Failure("prune", "StageRefused", "cannot")
    duplicates.learn(Trial(3, cut(0.6, norm="a"), TrialStatus.FAILED, failure=failure))
    assert not duplicates.repeats(cut(0.6, norm="b"))


def test_other_shapes_are_other_cases() -> None:
    duplicates = told(trial(1, cut(0.3), 1000), trial(2, cut(0.34), 1000))
    alone = Pipeline((StageSpec("prune", {"ratio": 0.3}),))
    duplicates.propose(3, alone)
    assert not duplicates.repeats(Pipeline((StageSpec("prune", {"ratio": 0.32}),)))
