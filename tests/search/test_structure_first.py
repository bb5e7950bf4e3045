"""A space in two parts, and the search that goes from one to the other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.objective import Objective
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.search.base import Problem, Searcher
from petra.search.scaling import scale
from petra.search.structure import lies_in, sizes, structure_of, structures
from petra.search.structure_first import best_structures
from petra.search.table import make_searcher
from petra.space.domains import BOOLEAN, Choice, Real
from petra.space.effects import Effects
from petra.space.ladder import Ladder
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard
from petra.testing.search_suite import SearcherSuite, simulate

SIZES = Ladder((0, 1, 3, 6, 12, 24, 48, 96, 192, 384))
ON = SIZES.values[1:]
LAYERS = 6
CARD = StageCard(
    "adapt",
    (
        Parameter("serial", 12, SIZES, SIZES, "serial"),
        Parameter("prefix", 0, SIZES, SIZES, "prefix"),
        Parameter("scale", 1.0, Real(0.5, 4.0), Real(0.0, 9.0), "scale", {"serial": ON}),
        Parameter("kind", "a", Choice(("a", "b")), Choice(("a", "b")), "kind"),
        *(Parameter(f"layer.{i}", True, BOOLEAN, BOOLEAN, "on") for i in range(LAYERS)),
    ),
    Effects(),
)
SPACE = Space({"adapt": CARD}, max_length=1)
OBJECTIVES = (Objective("quality", True), Objective("size_bytes", False))
PROBLEM = Problem(SPACE, OBJECTIVES)


class TestStructureFirst(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        options = {"bits": 20, "structures": 2, "proposals": "evolution"}
        return make_searcher("structure_first", options, problem, baseline)


def drawn(seed: int) -> Pipeline:
    return SPACE.sample(generator(seed))


def worth(pipeline: Pipeline) -> dict[str, Measurement]:
    """Serial adapters help in the last two layers, prefixes nowhere; size is what is added."""
    p = pipeline.stages[0].params if len(pipeline) else {}
    layers = [bool(p.get(f"layer.{i}")) for i in range(LAYERS)]
    serial, prefix = float(p.get("serial", 0)), float(p.get("prefix", 0))
    gain = sum(layers[-2:]) * 0.15 * (1 - math.exp(-serial / 20))
    added = sum(layers) * (serial + prefix)
    return {
        "quality": Measurement(0.5 + gain, 0.001, 100),
        "size_bytes": Measurement(1000 + added, unit="B"),
    }


def evaluate(proposal: Proposal) -> Trial:
    return proposal.ended(TrialStatus.COMPLETE, metrics=worth(proposal.pipeline))


BASELINE = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=worth(Pipeline()))


def values(pipeline: Pipeline) -> dict[str, object]:
    return dict(pipeline.stages[0].params)


def test_a_part_for_structure_has_one_size_and_defaults() -> None:
    part = structures(SPACE)
    found = [part.sample(generator(i)) for i in range(300)]
    assert {values(p)["serial"] for p in found} == {0, 24}
    assert {values(p)["prefix"] for p in found} == {0, 24}
    assert {values(p)["kind"] for p in found} == {"a"}
    assert {values(p).get("scale") for p in found} == {1.0, None}
    bits = {tuple(values(p)[f"layer.{i}"] for i in range(LAYERS)) for p in found}
    assert len(bits) > 60, "of 64"
    assert all(SPACE.normalize(p) == p and lies_in(part, p) for p in found)


@pytest.mark.parametrize("seed", range(20))
def test_a_part_for_sizes_keeps_the_structure_and_every_size_can_be_had(seed: int) -> None:
    pipeline = drawn(seed)
    part = sizes(SPACE, structure_of(SPACE, pipeline))
    assert lies_in(part, pipeline), "what it was made of lies in it"
    found = [part.sample(generator(i)) for i in range(200)]
    assert {structure_of(SPACE, p) for p in found} == {structure_of(SPACE, pipeline)}
    had = {values(p)["serial"] for p in found}
    assert had == ({0} if values(pipeline)["serial"] == 0 else set(ON))
    assert len({values(p)["kind"] for p in found}) == 2, "all else is free"


def test_two_pipelines_lie_in_one_part_exactly_if_they_have_one_structure() -> None:
    found = [drawn(seed) for seed in range(60)]
    for one in found[:8]:
        part = sizes(SPACE, structure_of(SPACE, one))
        for other in found:
            same = structure_of(SPACE, one) == structure_of(SPACE, other)
            assert lies_in(part, other) == same


def test_the_best_structures_are_those_of_the_front() -> None:
    trials = [evaluate(Proposal(i + 1, drawn(i))) for i in range(80)]
    scaling = scale(OBJECTIVES, (), BASELINE)
    best = best_structures(SPACE, scaling, trials, 3)
    assert len(set(best)) == len(best) == 3
    costs = {t.pipeline: scaling.costs(t) for t in trials}
    inside = [p for p, c in costs.items() if (c < scaling.reference).all()]
    holders = [p for p in inside if structure_of(SPACE, p) == best[0]]
    assert any(
        not any((costs[q] <= costs[p]).all() and (costs[q] < costs[p]).any() for q in costs)
        for p in holders
    )
    assert best_structures(SPACE, scaling, [], 3) == []


@pytest.mark.parametrize("proposals", ["surrogate", "evolution", "uniform"])
def test_bits_come_first_and_sizes_next(proposals: str) -> None:
    options = {"bits": 24, "structures": 2, "proposals": proposals}
    searcher = make_searcher("structure_first", options, PROBLEM, BASELINE)
    run = simulate(searcher, evaluate, trials=50)
    first, later = run.proposals[:24], run.proposals[24:]
    part = structures(SPACE)
    assert all(lies_in(part, p.pipeline) for p in first)
    assert len({structure_of(SPACE, p.pipeline) for p in later}) <= 2
    assert len({values(p.pipeline)["serial"] for p in later}) > 3
    parents = {p.origin.parent for p in later} - {None}
    by_number = {t.number: t for t in run.trials}
    known = {0} | by_number.keys()
    assert parents <= known, "parents are numbers of the study"
    kept = {structure_of(SPACE, p.pipeline) for p in later}
    if proposals == "evolution":
        near = [p for p in later if p.origin.parent]
        assert near
        assert {
            structure_of(SPACE, by_number[int(p.origin.parent or 0)].pipeline) for p in near
        } <= kept


def test_two_decisions_one_after_the_other_find_more_than_both_at_once() -> None:
    """On a space made so that structure decides; a searcher that draws from all of it hardly ever
    leaves a part out.
    """
    scaling = scale(OBJECTIVES, (), BASELINE)

    def volume(name: str, seed: int, **options: object) -> float:
        searcher = make_searcher(name, options, replace(PROBLEM, seed=seed), BASELINE)
        return scaling.hypervolume([BASELINE, *simulate(searcher, evaluate, trials=60).trials])

    gains = [
        volume("structure_first", seed, bits=30, proposals="evolution") - volume("evolution", seed)
        for seed in range(6)
    ]
    assert np.mean(gains) > 0, gains


@pytest.mark.parametrize("name", ["asha", "structure_first", "evolutoin"])
def test_what_proposes_is_no_wrapper_and_spelt_right(name: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.proposals"):
        make_searcher("structure_first", {"proposals": name}, PROBLEM, BASELINE)


def test_stages_that_come_twice_and_what_is_given_do_no_harm() -> None:
    given = Pipeline((StageSpec("adapt", {"serial": 10, "layer.0": False}),))
    wide = replace(CARD.parameters[0], limits=Ladder((*range(385),)))
    card = replace(CARD, parameters=(wide, *CARD.parameters[1:]))
    space = Space({"adapt": card, "other": StageCard("other", (), Effects())}, max_length=3)
    problem = Problem(space, OBJECTIVES, initial=(space.normalize(given),))
    searcher = make_searcher("structure_first", {"bits": 10}, problem, BASELINE)
    run = simulate(searcher, evaluate_any, trials=30)
    assert run.proposals[0].pipeline == problem.initial[0]
    assert len(run.trials) == 30


def evaluate_any(proposal: Proposal) -> Trial:
    """As `evaluate`, of the first stage that adapts."""
    own = [s for s in proposal.pipeline if s.kind == "adapt"][:1]
    return proposal.ended(TrialStatus.COMPLETE, metrics=worth(Pipeline(tuple(own))))
