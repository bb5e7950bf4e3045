"""How a model has to behave: finite, item by item, alike in every batch, and trainable."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from intake_models import TASK, Net, X, Y, like, loader, plain
from torch import Tensor, nn
from torch.nn import functional

import petra
from petra.core.errors import DataError
from petra.intake import examine
from petra.tasks.base import Task

# ---- behaviour -----------------------------------------------------------------------------------


def noisy(self: Any, x: Tensor) -> Tensor:
    return plain(self, x + 0.1 * torch.randn_like(x))


def counting(self: Any, x: Tensor) -> Tensor:
    self.count += 1
    return plain(self, x) * self.count


class StaysOn(nn.Dropout):
    def train(self, mode: bool = True) -> StaysOn:
        return super().train(True)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.3)


RANDOM: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "functional dropout": (
        lambda: like(lambda s, x: s.b(functional.dropout(torch.relu(s.a(x)), 0.2))),
        "dropout in the model itself",
    ),
    "in a layer": (
        lambda: nn.Sequential(nn.Linear(8, 4), Inner()), r"dropout in layer '1' \(Inner\)",
    ),
    "a layer that stays on": (
        lambda: nn.Sequential(nn.Linear(8, 4), StaysOn(0.5)), r"layer '1' \(StaysOn\)",
    ),
    "noise": (lambda: like(noisy), "randn_like in the model itself"),
    "numpy": (
        lambda: like(lambda s, x: plain(s, x) + float(np.random.rand())), "two equal passes differ",
    ),
    "python": (lambda: like(lambda s, x: plain(s, x) * random.random()), "two equal passes differ"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_model_is_refused_by_what_draws(kind: str) -> None:
    build, words = RANDOM[kind]
    with pytest.raises(DataError, match=f"random in evaluation mode: .*{words}"):
        examine(build(), TASK)


def test_dropout_that_is_off_is_no_matter() -> None:
    examine(nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 4)).train(), TASK)


def with_buffer(forward: Any) -> nn.Module:
    model: Any = like(forward)
    model.register_buffer("count", torch.zeros(()))
    return model  # type: ignore[no-any-return]


def filling(self: Any, x: Tensor) -> Tensor:
    self.count = torch.ones(())  # the first pass keeps something for the later ones
    return plain(self, x) * self.count


def in_place(self: Any, x: Tensor) -> Tensor:
    return plain(self, x.mul_(2.0))


def test_passes_leave_nothing_behind() -> None:
    with pytest.raises(DataError, match="buffer 'count' changes while it runs"):
        examine(with_buffer(counting), TASK)
    examine(with_buffer(filling), TASK)
    with pytest.raises(DataError, match=r"input 'input' in place") as caught:
        examine(like(in_place), TASK)
    assert "clone" in caught.value.hint


def excluding(self: Any, x: Tensor) -> Tensor:
    return plain(self, x).masked_fill(torch.tensor([False, True, False, False]), -float("inf"))


def excluding_some(self: Any, x: Tensor) -> Tensor:
    one = torch.tensor([False, True, False, False])
    return plain(self, x).masked_fill(one & (x[:, :1] > 0), -float("inf"))


def test_outputs_are_finite_or_excluded_for_all_items() -> None:
    y = Y.clone()
    y[y == 1] = 0
    pair = (X, y)
    examine(like(excluding), petra.classification(pair, pair, pair))
    with pytest.raises(
        DataError, match="returns infinity for finite inputs, first in the model itself"
    ):
        examine(like(excluding_some), TASK)
    model = Net()
    with torch.no_grad():
        model.b.weight[2, 3] = float("nan")
    with pytest.raises(
        DataError, match=r"val split, item 0: the model returns NaN .* first in layer 'b'"
    ):
        examine(model, TASK)


def test_batches_of_any_size_work() -> None:
    with pytest.raises(DataError, match="must work alike"):
        examine(like(lambda self, x: plain(self, x) + torch.zeros(2, 4)), TASK)


def squeezing(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x)))[:, 0].squeeze()


def all_in_one(self: Any, x: Tensor) -> Tensor:
    return plain(self, x).reshape(-1)


def centred(self: Any, x: Tensor) -> Tensor:
    return plain(self, x - x.mean(0))


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def regression(n: int = 20) -> Task:
    pair = (X[:n], X[:n, 0])
    return petra.regression(pair, pair, pair)


@pytest.mark.parametrize("n", [1, 2, 20])
def test_an_item_alone_keeps_the_batch_axis(n: int) -> None:
    """However many items there are: one may be left over at the end of any batch."""
    with pytest.raises(
        DataError, match=r"shape \(\) for one item, .*: one item loses the batch axis"
    ) as caught:
        examine(like(squeezing), regression(n))
    assert "squeeze(-1)" in caught.value.hint
    with pytest.raises(DataError, match=r"for one item, \(1028,\) for 257"):
        examine(like(all_in_one), TASK)


def without_statistics(kind: Any, *shape: int) -> nn.Module:
    norm = kind(4, track_running_stats=False)
    return nn.Sequential(nn.Linear(8, 4), nn.Unflatten(1, (4, *shape)), norm, nn.Flatten())


MIXING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "norm of the batch": (
        lambda: without_statistics(nn.BatchNorm1d),
        r"layer '2' \(BatchNorm1d\) normalises",
    ),
    "norm of the batch, of images": (
        lambda: without_statistics(nn.BatchNorm2d, 1, 1),
        r"layer '2' \(BatchNorm2d\)",
    ),
    "a layer": (lambda: nn.Sequential(nn.Linear(8, 4), Centred()), r"layer '1' \(Centred\)"),
    "forward": (lambda: like(centred), "the model itself"),
    "functional norm of the batch": (
        lambda: like(lambda s, x: s.b(functional.batch_norm(s.a(x), None, None, training=True))),
        "one item alone",
    ),
    "softmax over items": (lambda: like(lambda s, x: plain(s, x).softmax(0)), "the model itself"),
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_prediction_belongs_to_its_item(kind: str) -> None:
    build, words = MIXING[kind]
    with pytest.raises(DataError, match=words):
        examine(build(), TASK)


# ---- training alone ------------------------------------------------------------------------------


def normalising() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))


@pytest.mark.parametrize(
    "train", [loader(20, 1), (X[:1], Y[:1]), loader(1, 8), [(X[:1], Y[:1]), (X, Y)]]
)
def test_items_alone_in_training(train: Any) -> None:
    task = petra.classification(train, (X, Y), (X, Y))
    examine(Net(), task)
    with pytest.raises(
        DataError, match=r"train split: a batch holds one item.*layer '1' \(BatchNorm1d\)"
    ):
        examine(normalising(), task)


@pytest.mark.parametrize("train", [loader(21, 5), loader(21, 4, drop_last=True), (X[:21], Y[:21])])
def test_one_item_left_over_is_not_trained_on(train: Any) -> None:
    task = petra.classification(train, (X, Y), (X, Y))
    examine(normalising(), task)
    sizes = [len(y) for _, y in task.train.batches(5, seed=0, drop_last=True)]
    assert min(sizes) > 1
    assert len(sizes) == task.train.steps(5)
