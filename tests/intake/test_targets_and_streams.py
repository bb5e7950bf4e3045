"""Targets of every kind, and data that is read as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from data_forms import WORDS, Items, N, X, Y, generator, loader, make
from torch.utils.data import DataLoader, IterableDataset

import petra
from petra.core.errors import DataError
from petra.intake import data as intake_data
from petra.intake import examine


def test_text_is_read_by_the_names_of_the_outputs() -> None:
    for form in (
        (X, WORDS),
        (X, list(WORDS)),
        (X, pd.Series(WORDS)),
        Items(lambda i: (X[i], str(WORDS[i]))),
    ):
        _, task = make(form, classes=["cat", "dog", "eel"])
        assert torch.equal(torch.cat([y for _, y in task.val.batches(7)]), Y)
    known = (X[Y < 2], WORDS[Y.numpy() < 2])
    with pytest.raises(
        DataError, match=r"val split, entry \d+: the label 'eel' is not among the classes"
    ):
        petra.classification(known, (X, WORDS), known, classes=["cat", "dog"])


@pytest.mark.parametrize("classes", [["cat", "cat", "dog"], [0, 1, 2]])
def test_names_of_classes_are_different_texts(classes: Any) -> None:
    with pytest.raises(petra.PetraError, match=r"classes: .* are not the names"):
        make((X, WORDS), classes=classes)


@pytest.mark.parametrize(
    "targets", [Y, Y.numpy(), Y[:, None].double(), pd.Series(Y.numpy()), Y.tolist(), Y > 1]
)
def test_real_targets_of_any_type(targets: Any) -> None:
    model, task = make((X, targets), outputs=1, regression=True)
    examine(model, task)
    _, got = next(task.val.batches(N))
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("targets", "words", "hint"),
    [
        (
            torch.randn(N, 2),
            r"returns shape \(40, 1\), targets are \(40, 2\)",
            "one output per target",
        ),
        (torch.randn(N, 1, 1), r"targets are \(40, 1, 1\)", r"targets.reshape\(-1, 1\)"),
        (
            torch.where(torch.arange(N) == 17, float("nan"), 0.0),
            "item 17: targets contain NaN",
            "impute",
        ),
        (
            torch.where(torch.arange(N) == 17, float("inf"), 0.0),
            "item 17: targets contain NaN or infinity",
            "impute",
        ),
        (WORDS, "targets are str", "numbers"),
    ],
)
def test_real_targets_that_do_not_fit(targets: Any, words: str, hint: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        examine(*make((X, targets), outputs=1, regression=True))
    assert caught.match(hint)


def test_one_output_is_no_choice() -> None:
    with pytest.raises(DataError, match="one output") as caught:
        examine(*make((X, (Y > 0).long()), outputs=1))
    assert caught.match("zeros_like")


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[object]:
        yield from zip(X, Y, strict=True)


class Counting:
    """Yields batches for ever, and counts them."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[object]:
        while True:
            self.read += 1
            yield X[:4], Y[:4]


class Steps(Counting):
    """Without end too, but says how long a pass is."""

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    "once",
    [
        generator,
        lambda: zip(X, Y, strict=True),
        lambda: iter([(X, Y)]),
        lambda: map(tuple, [(X, Y)]),
    ],
)
def test_what_can_be_read_once_is_refused_unread(once: Callable[[], Any]) -> None:
    source = once()
    with pytest.raises(DataError, match="read only once"):
        make(source)
    assert next(source, None) is not None, "petra used it up"


def test_streams() -> None:
    with pytest.raises(DataError, match=r"wrap it: torch\.utils\.data\.DataLoader"):
        make(Stream())
    model, task = make(DataLoader(Stream(), batch_size=16))
    examine(model, task)
    assert len(task.val) == N


def test_a_stream_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in time where its length is not known, read as far as it, or `limit`, says where it
    is."""
    monkeypatch.setattr(intake_data, "PATIENCE_S", 0.2)
    with pytest.raises(DataError, match="train split: no end after") as caught:
        examine(*make(Counting()))
    assert "limit=" in caught.value.hint
    model, task = make(Steps())
    examine(model, task)
    assert len(task.train) == 20
    endless = Counting()
    model, task = make(endless, limit=50)
    examine(model, task)
    assert len(task.train) == 50
    assert task.train.steps(8) == 13
    assert [len(y) for _, y in task.train.batches(8)] == [4] * 12 + [2]
    assert endless.read < 1000


@pytest.mark.parametrize("source", [(X, Y), Items(lambda i: (X[i], Y[i])), loader()])
def test_a_limit_bounds_every_source(source: object) -> None:
    model, task = make(source, limit=10)
    examine(model, task)
    assert len(task.val) == sum(len(y) for _, y in task.val.batches(4)) == 10
    assert sorted(torch.cat([y for _, y in task.train.batches(4, seed=1)]).tolist()) == sorted(
        Y[:10].tolist()
    )
    with pytest.raises(petra.PetraError, match="limit: 0"):
        make(source, limit=0)
