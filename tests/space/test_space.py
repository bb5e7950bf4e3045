"""Normalization and legality of pipelines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec
from petra.space.domains import BOOLEAN, Choice, Integer, Real
from petra.space.effects import INITIAL_FACTS, Effects
from petra.space.narrow import Brought, fix_for_task, narrow
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard
from petra.testing.toy import toy_space

MODE = Choice(("fast", "slow", "off"))
CARD = StageCard(
    "s",
    (
        Parameter("depth", 2, Integer(1, 4), Integer(1, 100), "", {"careful": (True,)}),
        Parameter("mode", "off", MODE, MODE, ""),
        Parameter("careful", False, BOOLEAN, BOOLEAN, "", {"mode": ("slow",)}),
        Parameter("rate", 0.5, Real(0.1, 0.9), Real(0.0, 1.0), ""),
    ),
    Effects(),
)


def test_inactive_parameters_are_left_out_down_the_chain() -> None:
    assert CARD.normalize({}).params == {"mode": "off", "rate": 0.5}
    assert CARD.normalize({"mode": "slow"}).params == {
        "mode": "slow",
        "careful": False,
        "rate": 0.5,
    }
    full = {"mode": "slow", "careful": True, "depth": 3, "rate": 0.2}
    assert CARD.normalize(full).params == full
    # `careful` means nothing when mode is off; neither then does `depth`, which hangs on it.
    assert CARD.normalize({"mode": "off", "careful": True, "depth": 3}) == CARD.normalize(
        {"mode": "off"}
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_normalizing_twice_is_normalizing_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for card in (CARD, *toy_space().cards.values()):
        spec = card.sample(rng)
        assert card.normalize(spec.params) == spec
        assert all(card.parameter(n).active(spec.params) for n in spec.params)


def test_whole_numbers_become_floats_where_floats_are_meant() -> None:
    assert CARD.normalize({"rate": 1}).params["rate"] == 1.0
    assert isinstance(CARD.normalize({"rate": 1}).params["rate"], float)
    declared_as_int = StageCard("s", (Parameter("x", 1, Real(0, 2), Real(0, 2), ""),), Effects())
    assert isinstance(declared_as_int.normalize({}).params["x"], float)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rat": 0.5}, r"^s\.rat: "),
        ({"rate": 2.0}, r"^s\.rate: got 2.0"),
        ({"rate": "high"}, r"^s\.rate: got 'high'"),
        ({"depth": 0}, r"^s\.depth: got 0"),
        ({"depth": 2.0}, r"^s\.depth: got 2.0"),
        ({"careful": 1}, r"^s\.careful: got 1"),
    ],
)
def test_bad_parameters_are_refused_with_their_path(
    params: dict[str, bool | int | float | str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        CARD.normalize(params)
    assert "allowed" in caught.value.hint


def test_a_person_may_leave_the_searched_domain_but_not_the_limits() -> None:
    assert CARD.normalize({"mode": "slow", "careful": True, "depth": 50}).params["depth"] == 50


def brute_legal(space: Space, kinds: tuple[str, ...]) -> bool:
    """Walk the facts by hand, in plain sets."""
    facts = set(space.facts)
    for i, kind in enumerate(kinds):
        e = space.cards[kind].effects
        if (
            (i and kinds[i - 1] == kind)
            or any(n not in facts for n in e.needs)
            or any(f in facts for f in e.forbids)
        ):
            return False
        facts = {f for f in facts if f not in e.removes} | set(e.gives)
    return len(kinds) <= space.max_length


facts = st.frozensets(st.sampled_from([*sorted(INITIAL_FACTS), "extra"]), max_size=2)
effects = st.builds(Effects, facts, facts, facts, facts)


@settings(max_examples=60, deadline=None)
@given(st.lists(effects, min_size=1, max_size=4), st.integers(1, 3))
def test_legality_against_a_walk(declared: list[Effects], length: int) -> None:
    space = Space(
        {f"s{i}": StageCard(f"s{i}", (), e) for i, e in enumerate(declared)}, max_length=length
    )
    for n in range(length + 2):
        for kinds in itertools.product(space.cards, repeat=n):
            pipeline = Pipeline(tuple(map(StageSpec, kinds)))
            assert space.is_legal(pipeline) == brute_legal(space, kinds)
            if space.is_legal(pipeline) and n:
                assert space.is_legal(pipeline.prefix(n - 1)), (
                    "prefixes of legal pipelines are legal"
                )


def test_objections_name_the_stage() -> None:
    space = toy_space(max_length=3)

    def objection(*kinds: str) -> str:
        return space.objection(Pipeline(tuple(map(StageSpec, kinds))))

    assert objection("tune", "prune", "half") == ""
    assert objection("half", "tune") == "stage 2: tune needs float weights, trainable"
    assert objection("tune", "tune") == "stage 2: tune directly after tune"
    assert objection("tune", "prune", "tune", "prune") == "4 stages, at most 3 allowed"
    assert "did you mean 'prune'" in objection("prun")
    clash = Space(
        {
            "a": StageCard("a", (), Effects.of(forbids=["x"], gives=["x"])),
            "b": StageCard("b", (), Effects()),
        }
    )
    stages = Pipeline((StageSpec("a"), StageSpec("b"), StageSpec("a")))
    assert clash.objection(stages) == "stage 3: a not on a model with x"
    assert clash.facts_after(stages.prefix(2)) == INITIAL_FACTS | {"x"}


def test_normalize_refuses_with_the_path() -> None:
    space = toy_space()
    with pytest.raises(ConfigError, match=r"^pipeline\[1\]\.ratio: got 2.0"):
        space.normalize(Pipeline((StageSpec("tune"), StageSpec("prune", {"ratio": 2.0}))))
    with pytest.raises(ConfigError, match=r"^mine\[0\]\.stage: unknown stage 'prun'"):
        space.normalize(Pipeline((StageSpec("prun"),)), where="mine")
    with pytest.raises(ConfigError, match=r"^pipeline: stage 2: tune needs"):
        space.normalize(Pipeline((StageSpec("half"), StageSpec("tune"))))


def test_samples_are_legal_and_of_every_length_and_kind() -> None:
    space = toy_space()
    drawn = [space.sample(np.random.default_rng(seed)) for seed in range(400)]
    assert all(space.normalize(p) == p for p in drawn)
    lengths = [len(p) for p in drawn]
    longest = range(1, space.max_length + 1)
    expected = {n: len(drawn) / n / sum(1 / k for k in longest) for n in longest}
    assert all(0.6 < lengths.count(n) / expected[n] < 1.4 for n in longest)
    assert {s.kind for p in drawn for s in p} == set(space.cards)


def test_samples_are_shorter_where_nothing_can_follow() -> None:
    end = Effects.of(needs=["float weights"], removes=["float weights"])
    space = Space({name: StageCard(name, (), end) for name in "ab"}, max_length=5)
    assert {len(space.sample(np.random.default_rng(seed))) for seed in range(50)} == {1}
    assert space.sample(np.random.default_rng(0)) == space.sample(np.random.default_rng(0))
    assert Space({}, max_length=3).sample(np.random.default_rng(0)) == Pipeline()


def test_what_means_nothing_to_a_task_cannot_be_set() -> None:
    """Neither drawn nor written: pipelines that differ in nothing else would do the same."""
    card = fix_for_task(CARD, Brought({"mse": ()}), ignores=frozenset({"rate"}))
    assert {card.sample(np.random.default_rng(seed)).params["rate"] for seed in range(20)} == {0.5}
    with pytest.raises(ConfigError, match=r"s\.rate: got 0\.2"):
        card.normalize({"rate": 0.2})
    with pytest.raises(ConfigError, match=r"space\.stages\.s\.rate: got 0\.2"):
        narrow(card, {"rate": [0.2, 0.5]}, where="space.stages.s")
