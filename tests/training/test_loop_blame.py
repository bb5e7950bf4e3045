"""What a failing step is blamed on: bad items, the training itself, batches of one item."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra.core.errors import DataError, DivergedError, StageRefused
from petra.tasks.classification import classification
from petra.tasks.regression import regression
from petra.training.loop import TrainConfig, fit


class Lazy(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Items that nobody can look at beforehand."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


def spoiled(what: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(97, 6, generator=g), torch.randint(0, 3, (97,), generator=g)
    if what == "inputs":
        x[61, 2] = float("nan")
    elif what == "labels":
        y[61] = 7
    return x, y


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("what", "words"), [("inputs", "NaN or infinity in the inputs"), ("labels", "the label is 7")]
)
@pytest.mark.parametrize("form", ["dataset", "loader", "pair"])
def test_bad_items_are_named_whatever_the_order(what: str, words: str, form: str) -> None:
    x, y = spoiled(what)
    source = {
        "dataset": Lazy(x, y),
        "loader": DataLoader(Lazy(x, y), batch_size=16),
        "pair": (x, y),
    }[form]
    good = spoiled("nothing")
    task = classification(source, good, good)
    with pytest.raises(DataError, match=f"train split, item 61: .*{words}"):
        fit(normed(), task, TrainConfig(epochs=3, lr=0.01, batch_size=16), seed=0)


def test_bad_real_targets_are_named() -> None:
    x, _ = spoiled("nothing")
    y = torch.zeros(97)
    y[61] = float("nan")
    task = regression(Lazy(x, y), (x, torch.zeros(97)), (x, y.nan_to_num()))
    with pytest.raises(DataError, match="train split, item 61: NaN or infinity in the targets"):
        fit(nn.Linear(6, 1), task, TrainConfig(epochs=1, lr=0.01, batch_size=16), seed=0)


def test_only_then_training_itself_is_named() -> None:
    good = spoiled("nothing")
    task = classification(good, good, good)
    with pytest.raises(DivergedError, match=r"lower learning rate than 1e\+30"):
        fit(
            normed(),
            task,
            TrainConfig(epochs=2, lr=1e30, clip_norm=0.0, warmup=0.0, batch_size=16),
            seed=0,
        )
    model = normed()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match="before the first step"):
        fit(model, task, TrainConfig(epochs=1, lr=0.1, batch_size=16), seed=0)


@pytest.mark.parametrize("size", [16, 96, 128])
def test_a_norm_never_meets_an_item_alone(size: int) -> None:
    """97 = 6 * 16 + 1 = 96 + 1 items."""
    x, y = spoiled("nothing")
    for source in (
        DataLoader(TensorDataset(x, y), batch_size=size),
        (x, y),
        [(x[:96], y[:96]), (x[96:], y[96:])],
    ):
        task = classification(source, (x, y), (x, y))
        result = fit(normed(), task, TrainConfig(epochs=1, lr=0.01, batch_size=size), seed=0)
        assert result.steps == max(1, 97 // size) or isinstance(source, list)


def test_batches_of_one_item_are_refused_where_they_cannot_be_trained_on() -> None:
    good = spoiled("nothing")
    task = classification(good, good, good)
    with pytest.raises(StageRefused, match="batch of one item"):
        fit(normed(), task, TrainConfig(epochs=1, lr=0.01, batch_size=1), seed=0)
    fit(nn.Linear(6, 3), task, TrainConfig(epochs=1, lr=0.01, batch_size=1), seed=0)


class Hungry(nn.Linear):
    """Has no memory left for training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return super().forward(x)


def test_want_of_memory_is_no_fault_of_training_mode() -> None:
    good = spoiled("nothing")
    task = classification(good, good, good)
    with pytest.raises(torch.OutOfMemoryError, match="20 GiB"):
        fit(Hungry(6, 3), task, TrainConfig(epochs=1, lr=0.01, batch_size=16), seed=0)


def test_excluded_classes_train_and_teach() -> None:
    """Logits of minus infinity give finite losses, smoothed and distilled ones too."""
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 4, generator=g), torch.zeros(9, dtype=torch.int64)
    logits[:, 2] = -float("inf")
    logits.requires_grad_()
    x = torch.zeros(9, 2)
    task = classification((x, labels), (x, labels), (x, labels))
    outputs, others = {"output": logits}, {"output": logits.detach().flip(0)}
    for loss in task.losses():
        assert torch.isfinite(loss(outputs, labels))
    assert torch.isfinite(task.loss().setting(label_smoothing=0.1)(outputs, labels))
    soft = task.distance()(outputs, others)
    assert torch.isfinite(soft)
    (gradient,) = torch.autograd.grad(soft, logits)
    assert torch.isfinite(gradient).all()
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert float(task.loss()(outputs, labels).detach()) == pytest.approx(float(expected))
