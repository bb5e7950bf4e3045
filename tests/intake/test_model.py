"""The model at the start: told apart from what is none, tried, and copied into what petra can work
on."""

from __future__ import annotations

import random
import sqlite3
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.core.errors import DataError
from petra.intake import examine
from petra.tasks.base import Task

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(60, 8, generator=G), torch.randint(0, 4, (60,), generator=G)
TASK = petra.classification((X[:30], Y[:30]), (X[30:50], Y[30:50]), (X[50:], Y[50:]))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


def like(forward: Callable[[Any, Tensor], object], **attributes: Any) -> nn.Module:
    """A Net with another forward and further attributes."""
    net: Any = type("Changed", (Net,), {"forward": forward})()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net  # type: ignore[no-any-return]


def plain(self: Any, x: Tensor) -> Tensor:
    return Net.forward(self, x)


# ---- wrong objects -------------------------------------------------------------------------------


class Estimator:
    """As sktime or skorch have them."""

    def fit(self, X: object, y: object) -> None: ...

    def predict(self, X: object) -> None: ...


MODELS: dict[str, tuple[Callable[[], object], str, str]] = {
    "ONNX path": (lambda: "model.onnx", "a path", "petra verify"),
    "path": (lambda: Path("weights.pt"), "a path", "load_state_dict"),
    "None": (lambda: None, "None", "return"),
    "class": (lambda: Net, "the class Net", "make one"),
    "state dict": (lambda: Net().state_dict(), "a state dict of 4 tensors", "load_state_dict"),
    "checkpoint": (
        lambda: {"epoch": 3, "state_dict": Net().state_dict()},
        "under 'state_dict'",
        "load_state_dict",
    ),
    "checkpoint with a model": (lambda: {"model": Net()}, "under 'model'", "load"),
    "script": (lambda: torch.jit.script(nn.Linear(8, 4)), "TorchScript", "scripted or traced from"),
    "traced script": (
        lambda: torch.jit.trace(Net(), X[:2]),
        "TorchScript",
        "scripted or traced from",
    ),
    "exported program": (
        lambda: torch.export.export(Net(), (X[:2],)),
        "an exported program",
        "exported from",
    ),
    "estimator": (LogisticRegression, "an estimator", "the module inside"),
    "another class": (Estimator, "Estimator", "torch.nn.Module"),
    "lambda": (lambda: lambda x: x, "a function", "wrap it"),
    "function": (lambda: functional.relu, "a function", "wrap it"),
    "tuple": (lambda: (Net(), None), "a tuple of 2", "the one module"),
    "tensor": (lambda: X, "a tensor", "the module"),
    "data": (lambda: DataLoader(TensorDataset(X, Y)), "data", "petra.classification"),
    "task": (lambda: TASK, "a task", "order"),
    "number": (lambda: 3, "int", "torch.nn.Module"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_no_model_is_told_by_name(kind: str, tmp_path: Path) -> None:
    build, said, hint = MODELS[kind]
    with pytest.raises(DataError, match=said) as caught:
        petra.compress(build(), TASK, workdir=tmp_path / "study")  # type: ignore[arg-type]
    assert hint in caught.value.hint
    assert not (tmp_path / "study").exists()


TASKS: dict[str, tuple[object, str]] = {
    "loader": (DataLoader(TensorDataset(X, Y)), "data (DataLoader)"),
    "dataset": (TensorDataset(X, Y), "data (TensorDataset)"),
    "tuple": ((X, Y), "data (tuple)"),
    "dict": ({"train": (X, Y)}, "data (dict)"),
    "class": (type(TASK), "the class Classification"),
    "function": (petra.classification, "the function classification"),
    "text": ("classification", "'classification'"),
    "None": (None, "None"),
    "model": (Net(), "a model"),
    "number": (3, "3"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_no_task_is_told_by_name(kind: str, tmp_path: Path) -> None:
    given, said = TASKS[kind]
    with pytest.raises(DataError, match="the task is") as caught:
        petra.compress(Net(), given, workdir=tmp_path / "study")  # type: ignore[arg-type]
    assert said in caught.value.message
    assert "petra." in caught.value.hint or "order" in caught.value.hint
    assert not (tmp_path / "study").exists()


# ---- the copy ------------------------------------------------------------------------------------


class Halves(nn.Module):
    """A part of it compiled, a part of it parallel, both inside."""

    def __init__(self) -> None:
        super().__init__()
        self.a: Any = torch.compile(nn.Linear(8, 16), backend="eager")
        self.b = nn.DataParallel(nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
        lambda net: Halves(),
    ],
)
def test_wrappers_come_off(wrap: Callable[[nn.Module], Any]) -> None:
    wrapped = wrap(Net())
    model = examine(wrapped, TASK).model
    kinds = {type(m).__name__ for m in model.modules()}
    assert not kinds & {"DataParallel", "OptimizedModule"}
    assert {m for m in kinds if m != "Halves"} <= {"Net", "Linear"}
    assert torch.equal(model(X), wrapped.eval()(X))
    cloudpickle.dumps(model)


def with_norms(kind: str) -> nn.Module:
    wrap: Any = {
        "weight_norm": parametrizations.weight_norm,
        "spectral_norm": parametrizations.spectral_norm,
        "orthogonal": parametrizations.orthogonal,
        "older weight_norm": torch.nn.utils.weight_norm,
        "older spectral_norm": torch.nn.utils.spectral_norm,
    }[kind]
    return nn.Sequential(wrap(nn.Linear(8, 16)), nn.ReLU(), wrap(nn.Linear(16, 4)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "kind",
    ["weight_norm", "spectral_norm", "orthogonal", "older weight_norm", "older spectral_norm"],
)
@pytest.mark.parametrize("used", [False, True])
def test_computed_weights_are_plain_afterwards(kind: str, used: bool) -> None:
    model = with_norms(kind)
    if used:
        model(X).sum().backward()  # a weight with a history is on the layer now
    examined = examine(model, TASK)
    assert torch.equal(examined.model(X), model.eval()(X))
    assert [type(m) for m in examined.model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert any("computed from others" in remark for remark in examined.remarks)
    cloudpickle.dumps(examined.model)


class Cosine(nn.Linear):
    """Rows of length one."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1), self.bias)


def test_layers_that_compute_their_weight_are_plain_afterwards() -> None:
    model = nn.Sequential(Cosine(8, 16), nn.ReLU(), nn.Linear(16, 4))
    weight = model[0].weight.clone()
    examined = examine(model, TASK)
    assert [type(m) for m in examined.model] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(examined.model(X), model.eval()(X))
    assert any("compute their weight" in remark for remark in examined.remarks)
    assert type(model[0]) is Cosine
    assert torch.equal(model[0].weight, weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_types_become_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Net().to(dtype)
    pair = (X.to(dtype), Y)
    examined = examine(model, petra.classification(pair, pair, pair))
    assert {p.dtype for p in examined.model.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.allclose(examined.model(X), model(X.to(dtype)).float(), atol=0.05)
    assert any("float32 copy" in remark for remark in examined.remarks)


def test_nothing_of_the_users_changes() -> None:
    model = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 4)
    ).train()
    model[0].weight.requires_grad_(False)
    model(X).sum().backward()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(X, Y), batch_size=20, shuffle=True, generator=generator)
    x, y = X.clone(), Y.clone()
    task = petra.classification(loader, (x, y), (x, y))
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
        generator.get_state(),
    )
    examine(model, task)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    assert torch.equal(before[3], generator.get_state())
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for p, g in zip(model.parameters(), gradients, strict=True):
        assert (p.grad is None) == (g is None)
        assert g is None or torch.equal(p.grad, g)
    assert not model[0].weight.requires_grad
    assert torch.equal(x, X)


class Forgetful(Net):
    def train(self, mode: bool = True) -> Any:
        super().train(mode)


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyLinear(4))


def inside_itself() -> nn.Module:
    net: Any = nn.Sequential(nn.Linear(8, 4), nn.Sequential())
    net[1].outer = net
    return net  # type: ignore[no-any-return]


def deep() -> nn.Module:
    net: nn.Module = nn.Linear(8, 4)
    for _ in range(1500):
        net = nn.Sequential(net)
    return net


UNUSABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy layer": (lazy, "no shape yet"),
    "meta device": (lambda: nn.Linear(8, 4, device="meta"), "'weight' is on the meta device"),
    "a mode that returns nothing": (Forgetful, "does not return the model"),
    "a type of its own inside": (
        lambda: like(lambda s, x: s.b(torch.relu(s.a(x.half())))).half(),
        "does not take these inputs",
    ),
    "inside itself": (inside_itself, "layer '1.outer' .* contains itself"),
    "too deep": (deep, "nested (too deeply|deeper)"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_models_that_cannot_be_worked_on(kind: str) -> None:
    build, words = UNUSABLE[kind]
    with pytest.raises(DataError, match=words) as caught:
        examine(build(), TASK)
    assert caught.value.hint


class Reader:
    def __init__(self, held: object) -> None:
        self.held = held


@pytest.mark.parametrize(
    "held",
    [
        threading.Lock(),
        sqlite3.connect(":memory:"),
        (i for i in range(3)),
        open("/dev/null", "w"),  # noqa: SIM115, PTH123
    ],
)
def test_what_cannot_be_sent_is_named(held: object) -> None:
    with pytest.raises(DataError, match="reader") as caught:
        examine(like(plain, reader=Reader(held)), TASK)
    assert caught.value.hint
    data: Any = TensorDataset(X, Y)
    items: Any = type("Items", (TensorDataset,), {})(X, Y)
    items.reader = Reader(held)
    task = petra.classification(items, data, data)
    with pytest.raises(DataError, match=r"train split: data\.reader\.held"):
        examine(Net(), task)


def test_what_can_be_sent_is() -> None:
    """Lambdas, local classes, and tensors of a past pass."""
    model: Any = like(lambda self, x: self.b(self.act(self.a(x))), act=lambda x: torch.relu(x))
    model.kept = model(X)
    examined = examine(model, TASK)
    assert torch.equal(examined.model(X), model(X))


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
    y = plain(self, x)
    return y.masked_fill(y < -0.3, -float("inf"))


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


def loader(n: int, size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X[:n], Y[:n]), batch_size=size, **options)


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
