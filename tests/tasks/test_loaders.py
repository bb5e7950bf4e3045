"""Loaders are read without leaving a trace, and in an order that nothing else decides."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from petra.tasks.data import Split

X, Y = torch.arange(20.0)[:, None], torch.arange(20)
DATA = TensorDataset(X, Y)


class Augmented(Dataset[Any]):
    """Draws when it is read."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> Any:
        return X[i] + torch.rand(1), Y[i]


SHUFFLING: dict[str, DataLoader[Any]] = {
    "shuffle": DataLoader(DATA, batch_size=6, shuffle=True),
    "generator": DataLoader(
        DATA, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(7)
    ),
    "sampler": DataLoader(DATA, batch_size=6, sampler=SubsetRandomSampler(range(5, 17))),
    "weights": DataLoader(DATA, batch_size=6, sampler=WeightedRandomSampler([1.0] * 20, 12)),
    "batch sampler": DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 6, drop_last=False)
    ),
}


def order(split: Split, seed: int | None = None) -> list[int]:
    return [int(y) for _, target in split.batches(6, seed=seed) for y in target]


@pytest.mark.parametrize("kind", SHUFFLING)
def test_order_depends_on_the_seed_alone(kind: str) -> None:
    loader = SHUFFLING[kind]
    split = Split.of(loader, name="train")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    plain, one = order(split), order(split, 1)
    assert torch.equal(state, torch.get_rng_state()), "the global generator moved"
    torch.manual_seed(2)
    assert plain == order(split), "the order without a seed is one and the same"
    assert one == order(split, 1)
    assert one != order(split, 2)
    assert len(split) == len(one) == len(set(one)) or kind == "weights"


def test_a_pass_leaves_the_users_generator_alone() -> None:
    generator = torch.Generator().manual_seed(7)
    state = generator.get_state()
    split = Split.of(
        DataLoader(DATA, batch_size=6, shuffle=True, generator=generator), name="train"
    )
    order(split), order(split, 3)
    assert torch.equal(state, generator.get_state())


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("data", [DATA, Augmented()])
def test_workers_stay_with_the_user(data: Dataset[Any], begun: bool) -> None:
    """Persistent workers, a pass that was begun or not: read, sent elsewhere, and still the user's
    to use."""
    loader: DataLoader[Any] = DataLoader(
        data, batch_size=6, num_workers=1, persistent_workers=True, worker_init_fn=lambda i: None
    )
    if begun:
        next(iter(loader))
    split = Split.of(loader, name="val")
    assert order(split) == list(range(20))
    again = cloudpickle.loads(cloudpickle.dumps(split))
    assert split.source._iterator is None
    assert len(again) == 20
    if begun:
        assert sum(len(y) for _, y in loader) == 20
        loader._iterator._shutdown_workers()  # type: ignore[union-attr]


def test_lengths_are_those_of_a_pass() -> None:
    for loader in (*SHUFFLING.values(), DataLoader(DATA, batch_size=6, drop_last=True)):
        split = Split.of(loader, name="train")
        assert len(split) == len(order(split))
        assert split.steps(6) == sum(1 for _ in split.batches(6, seed=0, drop_last=True))
