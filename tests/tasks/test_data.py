"""Splits: one behaviour for tensors, datasets and loaders; bad data refused in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from petra.core.errors import DataError
from petra.tasks.data import Split
from petra.tasks.inputs import as_inputs, batch_size, named, named_outputs, prediction, unnamed

X = torch.arange(30.0).reshape(10, 3)
Y = torch.arange(10)


class Items(Dataset):  # type: ignore[type-arg]
    """A map-style dataset without in-memory tensors."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"a": X[i], "b": X[i] * 2}, Y[i]


SOURCES = {
    "pair": (X, Y),
    "dataset": TensorDataset(X, Y),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=4),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_yields_all_items_once(source: object) -> None:
    split = Split.of(source, name="train")
    batches = list(split.batches(4))
    assert torch.equal(torch.cat([t for _, t in batches]), Y)
    assert torch.equal(torch.cat([i for i, _ in batches]), X)
    assert len(split) == 10
    assert torch.equal(split.head(2), X[:2])


@pytest.mark.parametrize("source", [SOURCES["pair"], SOURCES["dataset"], Items()])
def test_shuffling_is_a_permutation_that_depends_on_the_seed_only(source: object) -> None:
    split = Split.of(source, name="train")

    def order(seed: int) -> list[int]:
        return torch.cat([t for _, t in split.batches(3, seed=seed)]).tolist()

    assert sorted(order(1)) == Y.tolist()
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_drop_last_drops_only_a_partial_batch() -> None:
    split = Split.of((X, Y), name="train")
    assert [len(t) for _, t in split.batches(4, drop_last=True)] == [4, 4]
    assert [len(t) for _, t in split.batches(5, drop_last=True)] == [5, 5]
    assert [len(t) for _, t in split.batches(64, drop_last=True)] == [10]


def test_structured_items_keep_their_structure() -> None:
    inputs, target = next(Split.of(Items(), name="train").batches(4))
    assert isinstance(inputs, dict)
    assert torch.equal(inputs["b"], X[:4] * 2)
    assert torch.equal(target, Y[:4])


@pytest.mark.parametrize("inputs", [X, (X, X + 1), {"left": X, "right": X + 1}])
def test_names_of_inputs_round_trip(inputs: object) -> None:
    checked = as_inputs(inputs, where="test")
    back = unnamed(named(checked), like=checked)
    assert type(back) is type(checked)
    assert all(
        torch.equal(a, b)
        for a, b in zip(named(back).values(), named(checked).values(), strict=True)
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ((X[:0], Y[:0]), "empty"),
        (TensorDataset(X[:0], Y[:0]), "empty"),
        ((X, Y[:7]), "10 inputs but 7 targets"),
        (42, "got int"),
        (("text", Y), "inputs are str"),
    ],
)
def test_bad_sources_are_refused(source: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Split.of(source, name="val")


@pytest.mark.parametrize(
    ("batch", "words"),
    [(X, "a batch is Tensor"), ((X, "y"), "targets are str"), (("x", Y), "inputs are str")],
)
def test_bad_batches_are_refused(batch: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        next(Split.of([batch], name="val").batches(4))


class Nothing:
    """Iterable, and yields no batch."""

    def __iter__(self) -> Iterator[object]:
        return iter(())


def test_a_loader_that_yields_nothing_is_an_empty_split() -> None:
    with pytest.raises(DataError, match="is empty"):
        next(Split.of(Nothing(), name="val").batches(4))


def test_inputs_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="different lengths"):
        batch_size((X, X[:3]))


def test_prediction_prefers_logits() -> None:
    assert torch.equal(prediction({"hidden": X, "logits": X + 1}), X + 1)
    assert torch.equal(prediction((X, X + 1)), X)
    assert list(named_outputs((X, X))) == ["output_0", "output_1"]
    with pytest.raises(DataError, match="returned str"):
        prediction("nothing")
