"""What a metric returns is finite plain numbers, or the reason why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import petra
from petra.core.errors import ParityError
from petra.core.measurement import Measurement
from petra.core.target import Target
from petra.execute.build import BuildPayload
from petra.execute.judge import Judged, ScoreError, checked_scores, judge
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


def judged(tmp_path: Path, metric: str, off: float) -> Judged:
    """A file whose predictions are off by `off` errors of the model, which is off by 1 of 20."""
    random = np.random.default_rng(0)
    wanted = random.normal(0, 20, 2000).astype(np.float32)
    own = wanted + random.normal(0, 1, 2000).astype(np.float32)
    made = own + off * random.normal(0, 1, 2000).astype(np.float32)
    np.savez(tmp_path / "own.npz", output=own)
    np.savez(tmp_path / "made.npz", output=made)
    np.save(tmp_path / "targets.npy", wanted)
    pair = (torch.zeros(3, 2), torch.zeros(3))
    task = petra.regression(pair, pair, pair, metric=metric)
    payload = BuildPayload(torch.nn.Linear(2, 1), task, Target(), seed=0, data=tmp_path)
    return judge(
        payload, lambda note: None, tmp_path / "made.npz", tmp_path / "targets.npy",
        tmp_path / "own.npz", None, True, 0,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_values_are_held_to_the_error_whichever_way_it_is_told(tmp_path: Path, metric: str) -> None:
    """Five hundredths of the spread are a whole error: R2 falls from .9975 to .995, and the error
    rises by half. A fifth of an error costs two hundredths of it, of a squared one twice that.
    """
    with pytest.raises(ParityError, match="changes its error by"):
        judged(tmp_path, metric, 0.9)
    rise = judged(tmp_path, metric, 0.2).parity["error_rise"]
    assert rise == pytest.approx(0.02 if metric == "rmse" else 0.04, rel=0.1)
