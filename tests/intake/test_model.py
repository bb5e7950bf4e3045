"""The model at the start: told apart from what is none, tried, and copied into what petra can work
on."""

from __future__ import annotations

import random
import sqlite3
import threading
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from intake_models import TASK, Net, X, Y, like, plain
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.core.errors import DataError
from petra.intake import examine

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
