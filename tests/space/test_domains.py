"""Laws of domains: draws and steps stay inside, steps move, and what is inside survives being
stored.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.pipeline import StageSpec
from petra.core.rng import generator
from petra.space.domains import BOOLEAN, Choice, Domain, Integer, Real
from petra.space.ladder import Ladder

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
domains: st.SearchStrategy[Domain] = st.one_of(
    st.tuples(finite, finite).map(lambda ends: Real(min(ends), max(ends))),
    st.tuples(positive, positive).map(lambda ends: Real(min(ends), max(ends), log=True)),
    st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(lambda t: Integer(t[0], t[0] + t[1])),
    st.tuples(st.integers(1, 50), st.integers(0, 2000)).map(
        lambda t: Integer(t[0], t[0] + t[1], log=True)
    ),
    st.lists(finite, min_size=1, max_size=4).map(lambda v: Choice(tuple(v))),
    st.lists(st.text(max_size=3), min_size=1, max_size=4).map(lambda v: Choice(tuple(v))),
    st.just(BOOLEAN),
    st.sets(st.integers(0, 900), min_size=1, max_size=12).map(lambda v: Ladder(tuple(sorted(v)))),
)


def alone(domain: Domain) -> bool:
    """Whether the domain has a single value."""
    if isinstance(domain, Choice | Ladder):
        return len(set(domain.values)) == 1
    assert isinstance(domain, Real | Integer)
    return domain.low == domain.high


@settings(max_examples=300, deadline=None)
@given(domain=domains, seed=st.integers(0, 1000))
def test_samples_and_steps_stay_inside_and_steps_move(domain: Domain, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = domain.sample(rng)
    for _ in range(5):
        assert domain.contains(value), value
        stored = StageSpec("s", {"x": value}).params["x"]
        assert domain.contains(stored), f"{value!r} is inside but {stored!r}, as stored, is not"
        moved = domain.perturb(value, rng)
        assert (moved == value) == alone(domain), (value, moved)
        value = moved


@settings(max_examples=300, deadline=None)
@given(domain=domains, seed=st.integers(0, 1000))
def test_values_are_read_back_from_their_numbers(domain: Domain, seed: int) -> None:
    value = domain.sample(np.random.default_rng(seed))
    numbers = domain.encode(value)
    assert len(numbers) == domain.width
    assert all(0 <= number <= 1 for number in numbers)
    again = domain.decode(numbers)
    assert domain.contains(again)
    if isinstance(domain, Real):
        assert domain.encode(again) == pytest.approx(numbers, abs=2e-6)
    else:
        assert again == value
        assert type(again) is type(value)


@settings(max_examples=300, deadline=None)
@given(domain=domains, numbers=st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4))
def test_any_numbers_are_a_value(domain: Domain, numbers: list[float]) -> None:
    value = domain.decode(numbers[: domain.width])
    assert domain.contains(value)
    assert domain.contains(StageSpec("s", {"x": value}).params["x"])


def test_numbers_are_spread_as_the_draws_are() -> None:
    """A uniform number decodes to what `sample` draws, logarithms and integers included."""
    shares = [(i + 0.5) / 2000 for i in range(2000)]
    counts = Counter(Integer(1, 8, log=True).decode([x]) for x in shares)
    drawn = Counter(Integer(1, 8, log=True).sample(np.random.default_rng(i)) for i in range(2000))
    assert all(abs(counts[n] - drawn[n]) < 120 for n in range(1, 9))
    assert Counter(Integer(0, 3).decode([x]) for x in shares) == dict.fromkeys(range(4), 500)
    middle = Real(1e-4, 1.0, log=True).decode([0.5])
    assert middle == pytest.approx(1e-2)
    assert (Real(0.1, 0.9).decode([0.0]), Real(0.1, 0.9).decode([1.0])) == (0.1, 0.9)
    assert Choice(("a", "b", "c")).encode("b") == (0.0, 1.0, 0.0)
    sizes = Ladder((0, 1, 3, 6, 12))
    assert Counter(sizes.decode([x]) for x in shares)[3] == 500
    assert [sizes.encode(v) for v in (0, 3, 12)] == [(0.0,), (0.5,), (1.0,)]


def test_a_step_on_a_ladder_goes_to_a_place_nearby() -> None:
    sizes = Ladder((0, 1, 3, 6, 12, 24, 48, 96, 192))
    rng = np.random.default_rng(0)
    steps = Counter(sizes.perturb(12, rng) for _ in range(3000))
    assert abs(steps[6] - steps[24]) < 200, "neither way is preferred"
    assert 1850 < steps[6] + steps[24] < 2150, "two of three go to the next"
    assert 0 not in {sizes.perturb(0, rng) for _ in range(50)}


@pytest.mark.parametrize("values", [(), (1, 1), (3, 1), (True, False), ("a", "b"), (0, 1.5)])
def test_what_is_no_ladder_is_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="Ladder"):
        Ladder(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("domain", "outside"),
    [
        (Real(0.1, 0.9), 5.0),
        (Real(1e-4, 1e-1, log=True), 0.0),
        (Integer(1, 8), 1000),
        (Integer(2, 8, log=True), 1),
    ],
)
def test_a_step_from_outside_lands_inside(domain: Domain, outside: float) -> None:
    for seed in range(50):
        assert domain.contains(domain.perturb(outside, np.random.default_rng(seed)))


def test_steps_are_local_and_draws_are_not() -> None:
    rng = np.random.default_rng(0)
    real = Real(0.0, 1.0)
    steps = [abs(float(real.perturb(0.5, rng)) - 0.5) for _ in range(500)]
    assert 0.08 < np.mean(steps) < 0.16
    log = [float(Real(1e-4, 1.0, log=True).sample(rng)) for _ in range(2000)]
    assert 0.45 < np.mean(np.array(log) < 1e-2) < 0.55, (
        "the median of a log-uniform draw is the geometric mean"
    )
    counts = [int(Integer(1, 8, log=True).sample(rng)) for _ in range(4000)]
    assert set(counts) == set(range(1, 9))
    assert counts.count(1) > 3 * counts.count(8)
    assert {Integer(1, 4).sample(rng) for _ in range(200)} == {1, 2, 3, 4}
    assert {Choice(("a", "b", "c")).perturb("a", rng) for _ in range(100)} == {"b", "c"}


def test_types_are_told_apart() -> None:
    assert not Integer(0, 1).contains(True)
    assert not Integer(0, 1).contains(1.0)
    assert not Real(0.0, 1.0).contains(True)
    assert not Real(0.0, 1.0).contains(float("nan"))
    assert not Real(0.0, 1.0).contains("0.5")
    assert Real(0.0, 1.0).contains(1)
    assert not Choice((1, 2)).contains(True)
    assert not BOOLEAN.contains(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Real(1.0, 0.0),
        lambda: Real(0.0, 1.0, log=True),
        lambda: Integer(3, 2),
        lambda: Choice(()),
    ],
)
def test_impossible_domains_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"interval|at least one"):
        make()


def test_domains_describe_themselves() -> None:
    assert str(Real(1e-4, 0.1, log=True)) == "[0.0001, 0.1] log"
    assert str(Integer(1, 8)) == "[1, 8]"
    assert str(Choice(("a", "b"))) == "{a, b}"


def test_a_usual_choice_is_drawn_half_of_the_time_and_left_by_every_perturbation() -> None:
    domain = Choice(("none", "a", "b", "c"), usual="none")
    draws = [domain.sample(generator(i, "usual")) for i in range(800)]
    assert set(draws) == set(domain.values)
    # One half, and its share of the other half.
    assert 0.55 < draws.count("none") / len(draws) < 0.70
    assert all(domain.perturb("none", generator(i, "usual")) != "none" for i in range(50))
    with pytest.raises(ValueError, match="none of"):
        Choice(("a", "b"), usual="c")
