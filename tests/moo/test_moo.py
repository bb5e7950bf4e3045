"""Dominance, hypervolume, selection and knees against brute force on small sets with many ties and
copies.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from petra.moo.dominance import dominates, front_mask, ranks
from petra.moo.hypervolume import contributions, hypervolume
from petra.moo.selection import best_first, knee, survivors

Floats = NDArray[np.float64]
quick = settings(max_examples=150, deadline=None)


@st.composite
def grids(draw: st.DrawFn, *, most: int = 9, values: int = 5) -> Floats:
    """Up to `most` points with few distinct coordinates, so that ties, copies and dominance abound;
    read-only.
    """
    m = draw(st.integers(1, 4))
    rows = draw(
        st.lists(
            st.lists(st.integers(0, values), min_size=m, max_size=m), min_size=1, max_size=most
        )
    )
    points = np.array(rows, dtype=float)
    points.setflags(write=False)
    return points


def violations_for(points: Floats, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).choice([0.0, 0.0, 0.5, 1.0], size=len(points))
    drawn.setflags(write=False)
    return drawn


def brute_dominates(a: Floats, b: Floats, va: float = 0.0, vb: float = 0.0) -> bool:
    if va == 0 and vb == 0:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(
            x < y for x, y in zip(a, b, strict=True)
        )
    return va < vb


def brute_ranks(points: Floats, v: Floats) -> list[int]:
    result, left, rank = [0] * len(points), set(range(len(points))), 0
    while left:
        front = {
            i
            for i in left
            if not any(brute_dominates(points[j], points[i], v[j], v[i]) for j in left)
        }
        for i in front:
            result[i] = rank
        left, rank = left - front, rank + 1
    return result


def brute_volume(points: Floats, reference: Floats) -> float:
    """Inclusion-exclusion over all subsets: a union of boxes between the points and the
    reference.
    """
    total = 0.0
    for k in range(1, len(points) + 1):
        for subset in itertools.combinations(points, k):
            sides = np.maximum(reference - np.max(subset, axis=0), 0.0)
            total += (-1) ** (k + 1) * float(np.prod(sides))
    return total


@quick
@given(points=grids(), seed=st.integers(0, 99))
def test_ranks_and_front_against_peeling(points: Floats, seed: int) -> None:
    v = violations_for(points, seed)
    assert ranks(points).tolist() == brute_ranks(points, np.zeros(len(points)))
    assert ranks(points, v).tolist() == brute_ranks(points, v)
    assert front_mask(points, v).tolist() == [r == 0 for r in brute_ranks(points, v)]


@quick
@given(points=grids(), seed=st.integers(0, 99))
def test_dominates_against_the_definition(points: Floats, seed: int) -> None:
    v = violations_for(points, seed)
    for i, j in itertools.product(range(len(points)), repeat=2):
        expected = brute_dominates(points[i], points[j], v[i], v[j])
        assert dominates(points[i], points[j], violations=(v[i], v[j])) == expected
        assert not (i == j and expected)


@quick
@given(points=grids(), corner=st.integers(1, 6))
def test_hypervolume_against_inclusion_exclusion(points: Floats, corner: int) -> None:
    reference = np.full(points.shape[1], float(corner))
    assert hypervolume(points, reference) == pytest.approx(brute_volume(points, reference))


@quick
@given(points=grids(), corner=st.integers(1, 6))
def test_contributions_are_what_removal_costs(points: Floats, corner: int) -> None:
    reference = np.full(points.shape[1], float(corner))
    total = brute_volume(points, reference)
    expected = [
        total - brute_volume(np.delete(points, i, axis=0), reference) for i in range(len(points))
    ]
    assert contributions(points, reference) == pytest.approx(expected, abs=1e-9)


def test_hypervolume_of_a_continuous_set_against_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    points, reference = rng.random((30, 3)), np.full(3, 1.1)
    samples = rng.random((200_000, 3)) * 1.1
    covered = np.zeros(len(samples), dtype=bool)
    for p in points:
        covered |= (samples >= p).all(axis=1)
    share, box = covered.mean(), 1.1**3
    error = box * math.sqrt(share * (1 - share) / len(samples))
    assert hypervolume(points, reference) == pytest.approx(box * share, abs=4 * error)


def test_points_at_or_beyond_the_reference_count_for_nothing() -> None:
    points = [[0.5, 0.5], [0.1, 1.0], [0.2, 7.0], [math.inf, 0.1]]
    assert hypervolume(points, [1, 1]) == pytest.approx(0.25)
    assert contributions(points, [1, 1]).tolist() == pytest.approx([0.25, 0, 0, 0])
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0.0
    assert contributions([[2.0, 2.0]], [1, 1]).tolist() == [0.0]


@pytest.mark.parametrize(
    "bad",
    [[1.0, 2.0], np.empty((2, 0)), [[math.nan, 1.0]], [[-math.inf, 1.0]]],
    ids=["1-d", "no-m", "nan", "-inf"],
)
def test_unusable_costs_are_refused(bad: object) -> None:
    for function in (
        ranks,
        knee,
        lambda c: hypervolume(c, [1, 1]),
        lambda c: survivors(c, 1, reference=[1, 1]),
    ):
        with pytest.raises(ValueError, match=r"costs|contain|shape|reference"):
            function(bad)


def test_unusable_references_and_violations_are_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        hypervolume([[1.0, 1.0]], [1.0])
    with pytest.raises(ValueError, match="reference"):
        hypervolume([[1.0, 1.0]], [1.0, math.inf])
    with pytest.raises(ValueError, match="violations"):
        ranks([[1.0, 1.0]], [-1.0])
    with pytest.raises(ValueError, match="violations"):
        ranks([[1.0, 1.0]], [0.0, 0.0])
    with pytest.raises(ValueError, match="compared"):
        dominates([1.0], [1.0, 2.0])


@quick
@given(points=grids(most=12), seed=st.integers(0, 99), mu=st.integers(1, 12))
def test_survivors_keep_the_promised_order(points: Floats, seed: int, mu: int) -> None:
    v = violations_for(points, seed)
    reference = np.full(points.shape[1], 5.0)
    kept = survivors(points, mu, reference=reference, violations=v).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == min(mu, len(points))
    gone = [i for i in range(len(points)) if i not in kept]
    feasible = [i for i in range(len(points)) if v[i] == 0]
    first = {
        i for i in feasible if not any(j < i and (points[j] == points[i]).all() for j in feasible)
    }
    rank = (
        dict(zip(sorted(first), ranks(points[sorted(first)]).tolist(), strict=True))
        if first
        else {}
    )
    for i, j in itertools.product(kept, gone):
        assert v[i] <= v[j] or v[i] == 0, "an infeasible point survived one that violates less"
        if j in first:
            assert i in first, "a copy or an infeasible point survived a distinct feasible one"
            assert rank[i] <= rank[j], "a worse rank survived a better one"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(2, 4))
def test_the_last_rank_loses_its_least_contributor_each_time(seed: int, m: int) -> None:
    raw = np.random.default_rng(seed).random((7, m))
    points = raw / np.linalg.norm(raw, axis=1, keepdims=True)  # on a sphere: mutually non-dominated
    reference = np.full(m, 1.05)
    kept = list(range(7))
    while len(kept) > 3:
        gain = [
            brute_volume(points[kept], reference)
            - brute_volume(np.delete(points[kept], i, 0), reference)
            for i in range(len(kept))
        ]
        if sorted(gain)[1] - sorted(gain)[0] < 1e-12:
            return  # a tie in floating point: either may go
        del kept[int(np.argmin(gain))]
    assert survivors(points, 3, reference=reference).tolist() == kept


def test_the_best_come_first() -> None:
    points = [[3.0, 3.0], [0.0, 2.0], [2.0, 0.0], [0.5, 0.5], [0.0, 0.0]]
    violations = [0.0, 0.0, 0.0, 0.0, 1.0]
    order = best_first(points, reference=[4, 3], violations=violations)
    assert order == [3, 2, 1, 0, 4], "of the front the largest contribution, the infeasible last"
    assert best_first(points, reference=[4, 3], violations=violations, most=2) == [3, 2]


def test_one_of_several_copies_survives() -> None:
    points = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]
    assert survivors(points, 2, reference=[3, 3]).tolist() == [0, 3]
    assert survivors(points, 3, reference=[3, 3]).tolist() == [0, 1, 3]
    assert survivors(points, 1, reference=[3, 3]).tolist() == [0], (
        "equal contributions: the older stays"
    )


def test_beyond_the_reference_the_nearer_survives() -> None:
    points = [[0.1, 9.0], [0.2, 5.0], [9.0, 0.1], [0.5, 0.5]]
    assert survivors(points, 2, reference=[1, 1]).tolist() == [1, 3]
    assert survivors(points, 9, reference=[1, 1]).tolist() == [0, 1, 2, 3]


def test_infeasible_points_survive_by_violation() -> None:
    points, v = [[0.0, 0.0], [0.9, 0.9], [0.1, 0.1], [0.2, 0.2]], [3.0, 0.0, 2.0, 1.0]
    assert survivors(points, 2, reference=[1, 1], violations=v).tolist() == [1, 3]
    assert survivors(points, 3, reference=[1, 1], violations=v).tolist() == [1, 2, 3]
    assert ranks(points, v).tolist() == [3, 0, 2, 1]


def test_knee_of_two_objectives_is_the_furthest_from_the_line() -> None:
    front = np.array([[0, 10], [1, 4], [2, 3], [5, 1], [9, 0.0]])
    low, high = front.min(0), front.max(0)
    a, b = (front[[0, -1]] - low) / (high - low)
    scaled = (front - low) / (high - low)
    d, e = b - a, a - scaled
    distances = np.abs(d[0] * e[:, 1] - d[1] * e[:, 0]) / np.linalg.norm(d)
    assert knee(front) == int(np.argmax(distances)) == 1
    assert knee(front * [1000, 1e-3] + 7) == 1, "units must not matter"


def test_knee_of_three_objectives() -> None:
    corners = [[0, 1, 1], [1, 0, 1], [1, 1, 0.0]]
    assert knee([*corners, [0.6, 0.6, 0.6], [0.4, 0.5, 0.45]]) == 4
    assert knee([*corners[:2], [0.2, 0.2, 0.2], corners[2]]) == 2


def test_knee_ignores_dominated_points_and_bulges_away_from_the_ideal() -> None:
    assert knee([[0.0, 1.0], [1.0, 0.0], [0.9, 0.95]]) == 0
    assert knee([[0.0, 1.0], [0.9, 0.9], [1.0, 0.0]]) == 0, "a concave front has its knee at an end"


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ([[3.0], [1.0], [2.0]], 1),
        ([[1.0, 1.0]], 0),
        ([[1.0, 1.0], [1.0, 1.0]], 0),
        ([[1.0, 2.0], [2.0, 1.0]], 0),
        ([[5.0, 0.0, 1.0], [5.0, 0.2, 0.1], [5.0, 1.0, 0.0]], 1),
        ([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.3, 0.3]], 2),
        ([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 2.0, 2.0]], 0),
    ],
    ids=[
        "one objective",
        "one point",
        "copies",
        "two points",
        "constant objective",
        "shared extreme",
        "on the line",
    ],
)
def test_knee_of_degenerate_fronts(front: list[list[float]], expected: int) -> None:
    assert knee(front) == expected


@quick
@given(points=grids())
def test_a_knee_is_always_on_the_front(points: Floats) -> None:
    assert front_mask(points)[knee(points)]


def test_a_knee_needs_points() -> None:
    with pytest.raises(ValueError, match="at least one"):
        knee(np.empty((0, 2)))
