"""The examination as a whole: every split, item by item, before anything is written or trained."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.errors import DataError
from petra.intake import examine, fingerprint
from petra.listener import Silent
from petra.tasks.base import Task
from petra.tasks.classification import Classification
from petra.testing.recorded import RecordedExecutor

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(400, 8, generator=G), torch.randint(0, 4, (400,), generator=G)
SPLITS = ("train", "val", "test")
LATE = 333


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


class Lazy(Dataset):  # type: ignore[type-arg]
    def __init__(
        self, x: Tensor, y: Tensor, change: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.x, self.y, self.change = x, y, change

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        return (self.change(x) if self.change and i == LATE else x), self.y[i]


def task_with(source: object, where: str) -> Task:
    good = {name: (X.clone(), Y) for name in SPLITS}
    return petra.classification(**{**good, where: source})


def bad_values(what: str) -> tuple[Tensor, Tensor]:
    x, y = X.clone(), Y.clone()
    if what == "label":
        y[LATE] = 7
    else:
        x[LATE, 2] = float(what)
    return x, y


@pytest.mark.parametrize("where", SPLITS)
@pytest.mark.parametrize("form", ["pair", "dataset", "loader"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nan", r"NaN in the inputs \(input\[2\]\)"),
        ("inf", "infinity in the inputs"),
        ("label", "the label is 7"),
    ],
)
def test_a_bad_value_is_named_by_split_and_item(
    where: str, form: str, what: str, words: str, tmp_path: Path
) -> None:
    x, y = bad_values(what)
    source = {
        "pair": (x, y),
        "dataset": Lazy(x, y),
        "loader": DataLoader(Lazy(x, y), batch_size=7),
    }[form]
    with pytest.raises(DataError, match=f"{where} split, item {LATE}: {words}") as caught:
        petra.compress(net(), task_with(source, where), workdir=tmp_path / "study")
    assert caught.value.hint
    assert not (tmp_path / "study").exists(), "written before it was refused"


CHANGES: list[Callable[[Tensor], Any]] = [lambda x: x[..., :5], Tensor.long, lambda x: {"a": x}]


@pytest.mark.parametrize("where", SPLITS)
@pytest.mark.parametrize("change", CHANGES)
def test_items_that_change_late_are_named(where: str, change: Callable[[Tensor], Any]) -> None:
    with pytest.raises(DataError, match=f"{where} split, item {LATE}"):
        examine(net(), task_with(Lazy(X, Y, change), where))
    batches = [(X[i : i + 50], Y[i : i + 50]) for i in range(0, 350, 50)]
    with pytest.raises(DataError, match=f"{where} split, items 350 to 399"):
        examine(net(), task_with([*batches, (change(X[350:]), Y[350:])], where))


def test_gaps_that_the_model_fills_are_its_own_matter() -> None:
    class Filling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x.nan_to_num(0.0))
            return y

    examine(Filling(), task_with(bad_values("nan"), "val"))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.table(ids).mean(1))
        return y


@pytest.mark.parametrize("token", [20, -1])
@pytest.mark.parametrize("where", SPLITS)
def test_tokens_that_the_model_does_not_know_are_found_late(where: str, token: int) -> None:
    ids = torch.randint(1, 19, (400, 5), generator=torch.Generator().manual_seed(0))
    odd = ids.clone()
    odd[LATE, 3] = token
    good = dict.fromkeys(SPLITS, (ids, Y))
    examine(Words(), petra.classification(**good))
    with pytest.raises(
        DataError, match=rf"{where} split, item {LATE}: .*layer 'table' \(Embedding\)"
    ):
        examine(Words(), petra.classification(**{**good, where: (odd, Y)}))


def test_an_augmentation_that_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()

    def augment(inputs: Any, random: torch.Generator) -> Any:
        with lock:
            return inputs

    task = petra.classification((X, Y), (X, Y), (X, Y), augment=augment)
    with pytest.raises(DataError, match=r"task\.augment cannot be sent"):
        examine(net(), task)


class Reshuffled:
    """Batches in another order at every pass, drawn from a generator of its own."""

    def __init__(self) -> None:
        self.draw = torch.Generator().manual_seed(1)

    def __iter__(self) -> Any:
        for index in torch.randperm(400, generator=self.draw).split(90):
            yield X[index], Y[index]


def test_inputs_and_targets_stay_together_whatever_the_order() -> None:
    task = task_with(Reshuffled(), "val")
    examine(net(), task)
    assert fingerprint(net(), task) == fingerprint(net(), task)
    numbers = {tuple(x.tolist()): int(y) for x, y in zip(X, Y, strict=True)}
    for inputs, target in task.val.batches(1):
        assert isinstance(inputs, Tensor)
        assert [numbers[tuple(x.tolist())] for x in inputs] == target.tolist()


def test_the_mark_is_of_the_numbers_and_not_of_their_form() -> None:
    forms = [
        (X, Y),
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        Lazy(X, Y),
        DataLoader(Lazy(X, Y), batch_size=9),
    ]
    model = net()
    marks = {fingerprint(model, task_with(form, "val")) for form in forms}
    assert len(marks) == 1
    examine(model, task_with(forms[0], "val"))
    assert fingerprint(model, task_with(forms[0], "val")) in marks


@pytest.mark.parametrize(
    "source", [DataLoader(TensorDataset(X, Y), batch_size=1), (X[:1], Y[:1]), Lazy(X[:1], Y[:1])]
)
def test_examples_have_as_many_items_as_are_asked_for(source: Any) -> None:
    """Models are traced with two: from a single one the batch would be taken for a constant."""
    task = task_with(source, "val")
    assert task.example(2).shape == (2, 8)  # type: ignore[union-attr]
    assert torch.equal(task.example(1), X[:1])  # type: ignore[arg-type]


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_what_is_odd_but_allowed_is_said(tmp_path: Path) -> None:
    told = Told()
    config = parse_config({"budget": {"trials": 1}, "workdir": str(tmp_path)})
    pair = (X, Y)
    task = petra.classification(pair, pair, (X[:50], Y[:50]))
    create_or_continue(config, net().double(), task).run(told, executor=RecordedExecutor)
    said = "\n".join(told.said)
    assert "train and val are the same data" in said
    assert "train and test" not in said
    assert "float64; petra works on a float32 copy" in said


@dataclass(frozen=True)
class Careless(Classification):
    def __post_init__(self) -> None:
        """Without the one of the base."""


@dataclass(frozen=True)
class Plain(Classification):
    """Made without `petra.classification`."""


def test_tasks_made_by_hand_take_the_same_forms() -> None:
    examine(net(), Plain((X.numpy(), Y.numpy()), (X, Y), DataLoader(TensorDataset(X, Y))))
    with pytest.raises(DataError, match="the task's train is tuple") as caught:
        examine(net(), Careless((X, Y), (X, Y), (X, Y)))  # type: ignore[arg-type]
    assert "__post_init__" in caught.value.hint


class OneNumber(nn.Module):
    """Its input is a number per item, without an axis besides that of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 4)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.table(ids)
        return y


def test_inputs_of_one_axis() -> None:
    numbers = torch.arange(400)
    items = list(zip(numbers.tolist(), Y.tolist(), strict=True))
    for pair in ((numbers, Y), (numbers.tolist(), Y.tolist()), items):
        examine(OneNumber(), petra.classification(pair, pair, pair))
    beyond = torch.cat([numbers[:-1], torch.tensor([500])])
    task = petra.classification((numbers, Y), (beyond, Y), (numbers, Y))
    with pytest.raises(DataError, match=r"item 399: .*Embedding"):
        examine(OneNumber(), task)
