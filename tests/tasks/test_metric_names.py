"""Every usual metric by its name, for the tasks that it is for: its value against scikit-learn and
SciPy, its direction, its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from metric_data import (
    ALL,
    AROUND,
    CLASSES,
    MANY,
    NEAR,
    RARE,
    REAL,
    SEVERAL,
    TWO,
    TWO_CLASSES,
    VALUES,
    G,
    N,
    Oracle,
)
from torch import Tensor

import petra
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.tasks.torchmetric import torch_metric
from petra.testing.measures_suites import Batch, ScorerSuite

pytest.importorskip("torchmetrics")


CASES = [
    *((name, oracle, TWO, RARE, petra.classification) for name, oracle in TWO_CLASSES.items()),
    *((name, oracle, MANY, ALL, petra.classification) for name, oracle in CLASSES.items()),
    *((name, oracle, NEAR[:, None], REAL, petra.regression) for name, oracle in VALUES.items()),
    *((name, oracle, AROUND, SEVERAL, petra.regression) for name, oracle in VALUES.items()),
]


@pytest.mark.parametrize(
    ("name", "oracle", "predicted", "targets", "make"),
    CASES,
    ids=[f"{name}-{tuple(p.shape)[1:]}" for name, _, p, _, _ in CASES],
)
class TestByName(ScorerSuite):
    """The suite of scorers for each, as the task makes them."""

    @pytest.fixture
    def task(self, name: str, targets: Tensor, make: Callable[..., Task]) -> Task:
        pair = (torch.zeros(N, 4), targets)
        return make(pair, pair, pair, metric=name)

    @pytest.fixture(autouse=True)
    def chosen(self, task: Task, oracle: Oracle, predicted: Tensor) -> None:
        self.scorer = task.scorers()[0]  # type: ignore[misc]

    @pytest.fixture
    def batch(self, predicted: Tensor, targets: Tensor) -> Batch:
        return {"output": predicted}, targets

    @pytest.fixture
    def worse(self, predicted: Tensor) -> Outputs:
        return {"output": predicted.roll(1, 0) + 0.1}

    def test_its_value_is_the_field_s(
        self, task: Task, oracle: Oracle, predicted: Tensor, targets: Tensor, name: str
    ) -> None:
        found = task.score(predicted, targets)
        assert found.mean == pytest.approx(oracle(predicted.numpy(), targets.numpy()), abs=2e-5)
        assert found.stderr > 0
        assert found.n == N
        assert task.maximize == (name not in ("rmse", "mae"))


@pytest.mark.parametrize(
    ("name", "predicted", "targets"),
    [("average_precision", TWO, RARE), ("matthews", MANY, ALL), ("pearson", AROUND, SEVERAL)],
)
def test_their_differences_have_errors(name: str, predicted: Tensor, targets: Tensor) -> None:
    """Smaller than those of two models measured apart."""
    other = {"output": predicted + 0.3 * torch.randn(predicted.shape, generator=G)}
    ids, one = torch.arange(N), torch_metric(name)
    found = one.difference({"output": predicted}, other, targets, ids)
    apart = [one.measure(o, targets, ids) for o in ({"output": predicted}, other)]
    assert found.mean == pytest.approx(apart[0].mean - apart[1].mean, abs=1e-9)
    assert 0 < found.stderr < math.hypot(*(m.stderr for m in apart))
