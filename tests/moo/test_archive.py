"""A front that is kept up point by point is that of all points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.moo.archive import Archive
from petra.moo.dominance import front_mask
from petra.moo.hypervolume import hypervolume
from petra.moo.selection import crowding, survivors


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 5), n=st.integers(1, 30))
def test_members_and_volume_are_those_of_all_points(seed: int, m: int, n: int) -> None:
    """On a grid, so that there are ties and copies; some points are infeasible or too far out."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, size=(n, m)).astype(float)
    violations = rng.choice([0.0, 0.0, 0.5, 1.0], size=n) * (rng.random() < 0.7)
    reference = np.full(m, 5.0)
    archive = Archive(reference)
    for i in range(n):
        before = archive.volume
        joined = archive.add(i, points[i], violations[i])
        assert (i in archive.members) == joined
        assert archive.volume >= before
    on = np.flatnonzero(front_mask(points, violations))
    assert {tuple(points[i]) for i in archive.members} == {tuple(points[i]) for i in on}
    assert set(archive.members) <= set(on.tolist())
    assert len({tuple(points[i]) for i in archive.members}) == len(archive.members)
    assert archive.violation == violations[on[0]]
    feasible = points[violations == 0]
    assert archive.volume == pytest.approx(hypervolume(feasible, reference) if len(feasible) else 0)


def test_crowding_by_hand() -> None:
    """Gaps of 2 + 3 in the first objective over its range of 5, of 3 + 2 in the second over 5."""
    points = [[0.0, 5.0], [2.0, 2.0], [5.0, 0.0]]
    assert crowding(points, [9, 9]).tolist() == [np.inf, 5 / 5 + 5 / 5, np.inf]
    assert crowding([[1.0, 1.0]], [9, 9]).tolist() == [np.inf]
    assert crowding([[1.0, 3.0], [1.0, 3.0]], [9, 9]).tolist() == [np.inf, np.inf]


def test_the_most_crowded_point_goes_first() -> None:
    points = [[0.0, 10.0], [1.0, 9.0], [1.5, 8.5], [6.0, 3.0], [10.0, 0.0]]
    kept = survivors(points, 4, reference=[11, 11], worth=crowding)
    assert kept.tolist() == [0, 2, 3, 4]  # the second has the nearest neighbours
