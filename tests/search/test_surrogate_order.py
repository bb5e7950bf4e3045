"""Which candidate is proposed does not depend on how sums were rounded."""

from __future__ import annotations

import numpy as np
import pytest

from petra.search.surrogate.searcher import best_first


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_equal_candidates_stay_in_order(scale: float) -> None:
    scores = scale * np.array([0.2, 0.5, 0.9, 0.5, 0.9, -1.0])
    noisy = scores * (1 + 1e-9 * np.random.default_rng(0).normal(size=6))
    assert best_first(noisy).tolist() == [2, 4, 1, 3, 0, 5]
    clear = scores + scale * np.array([0, 0, 0, 1e-4, 1e-4, 0])
    assert best_first(clear).tolist() == [4, 2, 3, 1, 0, 5]


def test_any_scores_have_an_order() -> None:
    assert best_first(np.array([])).tolist() == []
    assert best_first(np.zeros(3)).tolist() == [0, 1, 2]
    assert best_first(np.array([-np.inf, 0.0, 1.0, -np.inf])).tolist() == [2, 1, 0, 3]
    assert best_first(np.array([-np.inf, -np.inf])).tolist() == [0, 1]
