"""Copies of models that keep what they compute, and of models that make copying hard."""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from petra.core.errors import PetraError
from petra.model.copies.copying import copy_model


@dataclasses.dataclass
class Record:
    maps: list[Tensor]
    last: Tensor | None = None


class Keeps(nn.Module):
    """Keeps its hidden values in all the ways in which people do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.last: Tensor | None = None
        self.by_name: dict[str, Any] = {}
        self.all: list[Tensor] = []
        self.pair: tuple[Tensor, int] | None = None
        self.record = Record([])
        self.table: Tensor | None = None
        self.scale = torch.tensor(2.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.layer.weight * self.scale
        if not hasattr(self, "product"):
            self.product = self.layer.weight @ self.layer.weight
        if "bias" not in self.by_name:
            self.by_name["bias"] = self.layer.bias * 2
        hidden = self.layer(x) @ self.table + x @ self.product + self.by_name["bias"]
        self.last, self.pair = hidden, (hidden, len(self.all))
        self.by_name["hidden"] = {"deep": [hidden]}
        self.all.append(hidden)
        self.record.maps.append(hidden)
        self.record.last = hidden
        return self.head(hidden)


def test_what_a_pass_with_gradients_left_behind_is_not_copied_and_is_made_again() -> None:
    model, x = Keeps(), torch.randn(3, 4)
    expected = model(x)
    copied = copy_model(model)
    assert (copied.last, copied.pair, copied.table, copied.record.last) == (None, None, None, None)
    assert copied.all == copied.record.maps == []
    assert not hasattr(copied, "product")
    assert torch.equal(copied.scale, model.scale)
    torch.testing.assert_close(copied(x), expected)
    with torch.no_grad():
        copied = copy_model(model)
        copied.layer.weight.mul_(2)
    alike = copy_model(copied)
    torch.testing.assert_close(copied(x), alike(x), msg="made of the weights that the copy has now")
    assert model.table is not None
    assert len(model.all) == 1, "the original stays as it was"


def test_what_tracing_left_behind_is_not_copied() -> None:
    model = Keeps()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(torch.randn(3, 4)))
    copied = copy_model(model)
    assert all(type(value) in (Tensor, nn.Parameter) for value in _tensors(vars(copied)))
    assert copied(torch.randn(3, 4)).shape == (3, 2)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return (
        _tensors(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, type) else []
    )


def _masked() -> nn.Module:
    layer = nn.Linear(4, 4)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda: weight_norm(nn.Linear(4, 4)),
        lambda: spectral_norm(nn.Linear(4, 4)),
        _masked,
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
        lambda: weight_norm(nn.LSTM(4, 4), "weight_hh_l0"),
    ],
    ids=[
        "weight_norm",
        "spectral_norm",
        "pruning mask",
        "weight_norm'",
        "spectral_norm'",
        "weight_norm of an LSTM",
    ],
)
def test_weights_computed_by_hooks_and_parametrizations(make: Callable[[], nn.Module]) -> None:
    model, x = nn.Sequential(make()).eval(), torch.randn(2, 3, 4)
    first = model(x)
    copied = copy_model(model)
    before, after = (
        value if isinstance(value, Tensor) else value[0] for value in (first, copied(x))
    )
    torch.testing.assert_close(before, after)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.5)
    changed = copied(x)
    assert not torch.equal(changed if isinstance(changed, Tensor) else changed[0], after), (
        "it computes from its own"
    )
    assert [n for n, _ in copied.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert parametrize.is_parametrized(copied[0]) == parametrize.is_parametrized(model[0])


def test_shared_tensors_and_modules_stay_shared() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Linear(4, 4), layer)
    model[1].weight = layer.weight
    copied = copy_model(model)
    assert copied[0] is copied[2]
    assert copied[0].weight is copied[1].weight is not layer.weight


class Hooked(nn.Module):
    """Knows itself through hooks, a wrapped method and a weak reference."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 0
        self.seen: list[Tensor] = []
        self.parent = weakref.ref(self.layer)
        self.layer.register_forward_hook(lambda module, inputs, output: self.seen.append(output))
        self.layer.register_forward_pre_hook(functools.partial(_count, self))
        plain = self.layer.forward

        @functools.wraps(plain)
        def doubled(x: Tensor) -> Tensor:
            return 2 * plain(x)

        self.layer.forward = doubled  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _count(model: Hooked, module: nn.Module, inputs: object) -> None:
    model.calls += 1


def test_hooks_and_wrapped_methods_of_a_copy_know_the_copy() -> None:
    model, x = Hooked(), torch.randn(2, 4)
    expected = model(x)
    copied = copy_model(model)
    with torch.no_grad():
        copied.layer.weight.zero_()
        copied.layer.bias.zero_()
    assert not copied(x).any(), "the wrapped method uses the weights of the copy"
    assert torch.equal(model(x), expected)
    assert (model.calls, copied.calls) == (2, 2)
    assert (len(model.seen), len(copied.seen)) == (2, 1)
    assert copied.parent() is copied.layer


class ItsOwnCopy(nn.Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        return self


class FreshCopy(nn.Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        return FreshCopy(self.in_features, self.out_features)


class NoCopy(nn.Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise NotImplementedError("load it again")


@pytest.mark.parametrize("kind", [ItsOwnCopy, FreshCopy, NoCopy])
def test_odd_ways_of_copying_are_passed_over(kind: type[nn.Linear]) -> None:
    model = nn.Sequential(kind(4, 4), nn.ReLU())
    copied = copy_model(model)
    assert type(copied[0]) is kind
    assert copied[0].weight is not model[0].weight
    assert torch.equal(copied[0].weight, model[0].weight)


def test_what_cannot_be_copied_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].lock = threading.Lock()
    with pytest.raises(PetraError, match=r"layer '0': attribute 'lock', a lock, cannot be copied"):
        copy_model(model)


def test_too_deep_a_nesting_is_said() -> None:
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(2000):
        model = nn.Sequential(model)
    with pytest.raises(PetraError, match="nested too deeply"):
        copy_model(model)


def test_a_model_of_inference_tensors_is_copied_to_plain_ones() -> None:
    with torch.inference_mode():
        model = Keeps()
        model(torch.randn(3, 4))
    copied = copy_model(model)
    assert not any(tensor.is_inference() for tensor in _tensors(vars(copied)))
    copied(torch.randn(3, 4)).sum().backward()
