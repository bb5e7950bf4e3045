"""Expected improvement against brute force: exact volumes, and averages of many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.moo.hypervolume import hypervolume
from petra.moo.improvement import Boxes

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A set, often with ties, copies and points beyond the reference; the reference; candidates."""
    rng = np.random.default_rng(seed)
    front, points = rng.random((int(rng.integers(0, 9)), m)) * 1.3, rng.random((6, m)) * 1.3
    if seed % 2:
        front, points = np.round(front * 4) / 4, np.round(points * 4) / 4
    return front, np.ones(m), points


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, m=st.integers(1, 5))
def test_the_boxes_give_what_each_point_adds(seed: int, m: int) -> None:
    front, reference, points = drawn(seed, m)
    added = Boxes.beyond(front, reference).improvement(points)
    before = hypervolume(front, reference) if len(front) else 0.0
    exact = [hypervolume(np.vstack([front, p]), reference) - before for p in points]
    assert added == pytest.approx(exact, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, m=st.integers(2, 4))
def test_boxes_do_not_overlap(seed: int, m: int) -> None:
    front, reference, _ = drawn(seed, m)
    boxes = Boxes.beyond(front, reference)
    for i in range(len(boxes.lower)):
        low = np.maximum(boxes.lower[i], boxes.lower)
        high = np.minimum(boxes.upper[i], boxes.upper)
        shared = (high > low).all(axis=1)
        assert list(np.flatnonzero(shared)) == [i]


@pytest.mark.parametrize(
    "logarithmic", [(False, False, False), (True, True, True), (True, False, True)]
)
def test_expectations_are_averages(logarithmic: tuple[bool, ...]) -> None:
    rng = np.random.default_rng(3)
    front = rng.random((8, 3))
    mean, deviation = rng.random((4, 3)), rng.uniform(0.05, 0.4, (4, 3))
    boxes = Boxes.beyond(front, np.full(3, 1.1))
    log = np.array(logarithmic)
    centre = np.where(log, np.log(mean), mean)
    draws = centre[:, None] + deviation[:, None] * rng.standard_normal((4, 40_000, 3))
    draws = np.where(log, np.exp(np.where(log, draws, 0.0)), draws)
    expected = boxes.expected(centre, deviation, logarithmic)
    for i in range(4):
        added = boxes.improvement(draws[i])
        assert expected[i] == pytest.approx(added.mean(), abs=4 * added.std() / 200)


def test_without_doubt_what_is_expected_is_what_is_added() -> None:
    front, reference, points = drawn(8, 3)
    boxes = Boxes.beyond(front, reference)
    sure = boxes.expected(points, np.full_like(points, 1e-9), [False] * 3)
    assert sure == pytest.approx(boxes.improvement(points), abs=1e-7)
