"""A share of a split: how many, which, and of which classes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from petra.core.rng import generator
from petra.tasks.data import Split
from petra.tasks.share import share_of
from petra.tasks.sources import Items

N = 100
X = torch.arange(N, dtype=torch.float32)
LABELS = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
ARRAYS = Split.of((X, LABELS), name="train")


def items(split: Split) -> list[int]:
    return [int(x) for inputs, _ in split.batches(16, seed=3) for x in inputs]  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.01, 1 / 9, 1 / 3, 0.5, 1.0])
def test_every_class_has_its_share(share: float) -> None:
    part = share_of(ARRAYS, share, seed=1)
    chosen = items(part)
    assert len(set(chosen)) == len(chosen) == len(part)
    counts = Counter(LABELS[chosen].tolist())
    assert counts == {c: math.ceil(share * n) for c, n in ((0, 70), (1, 25), (2, 5))}
    targets = part.targets()
    assert targets is not None
    assert Counter(targets.tolist()) == counts
    assert part.steps(4) == sum(1 for _ in part.training_pass(4, seed=0)) == max(1, len(part) // 4)


def test_it_is_fixed_and_smaller_ones_are_part_of_larger_ones() -> None:
    small, large = (set(items(share_of(ARRAYS, s, seed=1))) for s in (0.1, 0.4))
    assert small < large
    assert small == set(items(share_of(ARRAYS, 0.1, seed=1)))
    assert small != set(items(share_of(ARRAYS, 0.1, seed=2)))
    assert items(ARRAYS) == items(share_of(ARRAYS, 1.0, seed=1))


def test_positions_are_numbers_of_items() -> None:
    part = share_of(ARRAYS, 0.2, seed=1)
    given = [int(x) for inputs, _ in part.training_pass(4, seed=7) for x in inputs]  # type: ignore[union-attr]
    assert [part.item_at(i, 7, 4) for i in range(len(given))] == given


def test_other_targets_and_other_data_sets_are_drawn_evenly() -> None:
    real = Split.of((X, torch.from_numpy(generator(0, "y").normal(size=N))), name="train")
    dataset = Split.of(Items([(x, 0) for x in X]), name="train")
    for split in (real, dataset):
        assert len(set(items(share_of(split, 0.25, seed=1)))) == 25


def test_of_a_loader_the_first_items_of_a_pass() -> None:
    loader = Split.of(DataLoader(TensorDataset(X, LABELS), batch_size=8), name="train")
    assert items(share_of(loader, 0.25, seed=1)) == list(range(25))
