"""Every usual metric by its name, for the tasks that it is for: its value against scikit-learn and
SciPy, its direction, its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor
from torch.nn import functional

import petra
from petra.core.errors import ConfigError
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.tasks.scorers import scorer
from petra.tasks.torchmetric import torch_metric
from petra.testing.measures_suites import Batch, ScorerSuite

pytest.importorskip("torchmetrics")

N = 205  # no multiple of the jackknife's groups, into which copies of an item then fall apart
G = torch.Generator().manual_seed(0)
ODDS = torch.tensor([0.6, 0.3, 0.1])
ALL = torch.multinomial(ODDS, N, replacement=True, generator=G)
MANY = functional.one_hot(ALL, 3).float() + torch.randn(N, 3, generator=G)
RARE = (torch.rand(N, generator=G) < 0.25).long()
TWO = torch.stack([torch.zeros(N), 2.0 * RARE - 1.5 + torch.randn(N, generator=G)], 1)
REAL = 20.0 + torch.randn(N, generator=G)
NEAR = REAL + 0.7 * torch.randn(N, generator=G)
SEVERAL = torch.randn(N, 3, generator=G)
AROUND = SEVERAL + torch.tensor([0.3, 0.6, 0.9]) * torch.randn(N, 3, generator=G)

Oracle = Callable[[np.ndarray, np.ndarray], float]


def probability(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits).double(), 1).numpy()


def of_labels(function: Callable[..., float], **options: object) -> Oracle:
    return lambda p, t: function(t, p.argmax(1), **options)


def of_second(function: Callable[..., float]) -> Oracle:
    return lambda p, t: function(t, probability(p)[:, 1])


def one_against_rest(function: Callable[..., float]) -> Oracle:
    return lambda p, t: float(np.mean([function(t == c, probability(p)[:, c]) for c in range(3)]))


def of_each(function: Callable[[np.ndarray, np.ndarray], float]) -> Oracle:
    """In the mean over outputs."""

    def mean(p: np.ndarray, t: np.ndarray) -> float:
        columns = zip(p.reshape(len(p), -1).T, t.reshape(len(t), -1).T, strict=True)
        return float(np.mean([function(a, b) for a, b in columns]))

    return mean


def root(p: np.ndarray, t: np.ndarray) -> float:
    return math.sqrt(float(((p.astype(np.float64) - t.reshape(p.shape)) ** 2).mean()))


CLASSIFIED = {
    "accuracy": of_labels(sk.accuracy_score),
    "balanced_accuracy": of_labels(sk.balanced_accuracy_score),
    "f1_macro": of_labels(sk.f1_score, average="macro"),
    "f1_weighted": of_labels(sk.f1_score, average="weighted"),
    "matthews": of_labels(sk.matthews_corrcoef),
}
TWO_CLASSES = {
    **CLASSIFIED,
    "f1": of_labels(sk.f1_score),
    "precision": of_labels(sk.precision_score),
    "recall": of_labels(sk.recall_score),
    "roc_auc": of_second(sk.roc_auc_score),
    "average_precision": of_second(sk.average_precision_score),
}
CLASSES = {
    **CLASSIFIED,
    "f1": of_labels(sk.f1_score, average="macro"),
    "roc_auc": one_against_rest(sk.roc_auc_score),
    "average_precision": one_against_rest(sk.average_precision_score),
}
VALUES = {
    "rmse": root,
    "mae": of_each(lambda p, t: float(np.abs(p.astype(np.float64) - t).mean())),
    "r2": of_each(lambda p, t: float(sk.r2_score(t.astype(np.float64), p))),
    "pearson": of_each(lambda p, t: float(stats.pearsonr(p.astype(np.float64), t)[0])),
    "spearman": of_each(lambda p, t: float(stats.spearmanr(p, t)[0])),
}
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


# -- what would be wrong without a word --------------------------------------------------------


def test_whether_logits_lie_between_0_and_1_changes_nothing() -> None:
    """torchmetrics takes such for probabilities, which ranks items otherwise."""
    small = MANY / 100 + 0.5
    for name in ("roc_auc", "average_precision"):
        found = torch_metric(name).value({"output": small}, ALL, torch.arange(N))
        expected = CLASSES[name](small.numpy(), ALL.numpy())
        assert found == pytest.approx(expected, abs=1e-6)
        told = torch_metric(name).value({"output": torch.softmax(small, 1)}, ALL, torch.arange(N))
        assert told == pytest.approx(expected, abs=1e-4), "probabilities are taken as they are"


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy"])
def test_a_class_without_items_has_no_share_in_the_mean(name: str) -> None:
    wide = torch.cat([MANY, MANY[:, :1] - 1], 1)
    found = torch_metric(name).value({"output": wide}, ALL, torch.arange(N))
    chance = probability(wide.numpy())
    if name == "balanced_accuracy":
        labels = ALL.numpy(), wide.argmax(1).numpy()
        expected = sk.recall_score(*labels, labels=[0, 1, 2], average="macro")
    else:
        of = sk.roc_auc_score if name == "roc_auc" else sk.average_precision_score
        expected = float(np.mean([of((c == ALL).numpy(), chance[:, c]) for c in range(3)]))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("name", [*TWO_CLASSES])
def test_one_logit_says_which_of_two(name: str, shape: tuple[int, ...]) -> None:
    """As a task of one's own with a binary cross entropy has it, its targets real numbers."""
    logit, target = (TWO[:, 1] - TWO[:, 0]).reshape(shape), RARE.float().reshape(shape)
    pair = (torch.zeros(N, 4), target)
    loss = functional.binary_cross_entropy_with_logits
    task = petra.task(pair, pair, pair, loss=loss, score=name)
    expected = TWO_CLASSES[name](TWO.numpy(), RARE.numpy())
    assert task.score(logit, target).mean == pytest.approx(expected, abs=1e-6)


def test_values_far_from_0_keep_their_digits() -> None:
    """A spread of 1 around 10,000: sums of squares in float32 would leave noise of R2."""
    target = 10_000 + torch.randn(5000, generator=G)
    near = target + 0.5 * torch.randn(5000, generator=G)
    for name in ("r2", "pearson"):
        found = torch_metric(name).value({"y": near[:, None]}, target, torch.arange(5000))
        assert found == pytest.approx(VALUES[name](near.numpy(), target.numpy()), abs=1e-5)


def test_a_model_that_says_the_same_of_everything_is_not_correlated() -> None:
    ids, flat = torch.arange(N), torch.full((N, 1), 3.0)
    assert torch_metric("pearson").value({"y": flat}, REAL, ids) == 0.0
    one_flat = torch.cat([AROUND[:, :2], flat], 1)
    found = torch_metric("pearson").value({"y": one_flat}, SEVERAL, ids)
    both = VALUES["pearson"](AROUND[:, :2].numpy(), SEVERAL[:, :2].numpy())
    assert found == pytest.approx(2 / 3 * both, abs=1e-6)
    nothing = torch_metric("pearson").value({"y": NEAR}, torch.ones(N), ids)
    assert math.isnan(nothing), "targets that are all alike correlate with nothing"


def test_pixels_have_classes_too() -> None:
    target = torch.randint(0, 3, (12, 5, 4), generator=G)
    logits = functional.one_hot(target, 3).movedim(-1, 1) + torch.randn(12, 3, 5, 4, generator=G)
    pair = (torch.zeros(12, 3, 5, 4), target)
    task = petra.task(
        pair, pair, pair, loss=functional.cross_entropy, score="accuracy",
        metrics=["multiclass_jaccard_index"],
    )  # fmt: skip
    found = task.scores({"output": logits}, target)
    shares = (logits.argmax(1) == target).double().flatten(1).mean(1)
    assert found["quality"].mean == pytest.approx(float(shares.mean()))
    assert found["quality"].stderr == pytest.approx(float(shares.std()) / math.sqrt(12))
    flat = logits.argmax(1).flatten().numpy(), target.flatten().numpy()
    expected = sk.jaccard_score(flat[1], flat[0], average="macro")
    assert found["multiclass_jaccard_index"].mean == pytest.approx(expected, abs=1e-6)
    other = {"output": logits.flip(0)}
    change = task.scorers()[0].difference({"output": logits}, other, target, torch.arange(12))
    assert change.mean == pytest.approx(
        found["quality"].mean - task.score(logits.flip(0), target).mean
    )


def test_metrics_of_forecasts_are_found_where_they_are() -> None:
    with pytest.raises(ConfigError) as caught:
        torch_metric("mase")
    assert "petra.forecasting" in str(caught.value.hint)


def test_a_score_of_each_item_is_called_once() -> None:
    calls = []

    def squares(prediction: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(targets))
        return (prediction - targets).square()

    def mean(prediction: Tensor, targets: Tensor) -> float:
        return float((prediction - targets).square().double().mean())

    each, whole = scorer(squares, maximize=False), scorer(mean, maximize=False)
    ids, outputs, other = torch.arange(N), {"y": NEAR}, {"y": NEAR + 0.1}
    found = each.measure(outputs, REAL, ids)
    assert len(calls) == 1
    assert found.mean == pytest.approx(whole.measure(outputs, REAL, ids).mean)
    assert found.stderr == pytest.approx(whole.measure(outputs, REAL, ids).stderr, rel=0.3)
    change = each.difference(outputs, other, REAL, ids)
    assert len(calls) == 3
    drawn = whole.difference(outputs, other, REAL, ids)
    assert change.mean == pytest.approx(drawn.mean)
    assert change.stderr == pytest.approx(drawn.stderr, rel=0.3)
    assert each.value(outputs, REAL, ids) == found.mean
