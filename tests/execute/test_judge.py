"""What a metric returns is finite plain numbers, or the reason why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import petra
from petra.core.measurement import Measurement
from petra.execute.judge import ScoreError, checked_scores
from petra.tasks.inputs import Outputs
from petra.tasks.scores import Accuracy

PREDICTIONS, TARGETS = np.eye(3, dtype=np.float32), np.arange(3)


@dataclass(frozen=True)
class Given(Accuracy):
    """Returns what it is told to, and spoils what it is given."""

    answer: Any = None

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        (predictions,) = outputs.values()
        assert predictions.shape == (3, 3)
        predictions.zero_()
        targets.zero_()
        return self.answer  # type: ignore[no-any-return]


def score(answer: Any) -> Measurement:
    pair = (torch.zeros(3, 2), torch.zeros(3).long())
    task = petra.classification(pair, pair, pair, metric=Given(answer))
    return checked_scores(task, {"output": PREDICTIONS}, TARGETS)["quality"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Measurement(float("nan")), "returned nan for accuracy"),
        (Measurement(float("inf")), "returned inf"),
        (Measurement(float("-inf")), "returned -inf"),
        (Measurement(np.float32("nan")), "returned nan"),  # type: ignore[arg-type]
        (Measurement(torch.tensor(float("nan"))), "returned nan"),  # type: ignore[arg-type]
        (Measurement(10**400), "returned no numbers"),
        (Measurement("good"), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(None), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(1j), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(torch.ones(3)), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(np.ones(3)), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(0.5, 0.1, float("nan")), "returned no numbers"),  # type: ignore[arg-type]
        (Measurement(0.5, float("nan")), "a standard error of nan over 1 items"),
        (Measurement(0.5, -0.1, 3), "a standard error of -0.1 over 3 items"),
        (Measurement(0.5, 0.1, 0), "over 0 items"),
        (0.5, "returned float"),
        (torch.tensor(0.5), "returned Tensor"),
        ({"mean": 0.5}, "returned dict"),
        (None, "returned NoneType"),
    ],
)
def test_what_is_no_finite_measurement_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(ScoreError, match=rf"^Given .*{words}|^Given {words}"):
        score(answer)
    assert PREDICTIONS.sum() == TARGETS.sum() == 3, "the metric gets copies"


@pytest.mark.parametrize(
    "mean", [0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5), Decimal("0.5"), True, 1]
)
def test_numbers_of_any_kind_become_plain_ones(mean: Any) -> None:
    found = score(Measurement(mean, np.float64(0.1), np.int64(3)))  # type: ignore[arg-type]
    assert (type(found.mean), type(found.stderr), type(found.n)) == (float, float, int)
    assert found == Measurement(float(mean), 0.1, 3, "accuracy")
