"""Every module against a second implementation, written from its formula: values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from petra.methods.adapt.folding import fold
from petra.model.layers.adapters import (
    Around,
    Bottleneck,
    Line,
    ParallelAdapter,
    SerialAdapter,
    Tap,
)
from petra.model.layers.lora import Directed, DoraLayer, LoraLayer, LowRank, lora_scale
from petra.model.layers.prefix import LearningPrefix
from petra.model.layers.vectors import ScaledLayer, ShiftedLayer, Vector

WIDTH, OUT, RANK = 6, 5, 2


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def linear(inputs: int = WIDTH, outputs: int = OUT) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(inputs, outputs)


def stirred(module: nn.Module) -> nn.Module:
    """With no parameter at its start any more, where half of the gradients are zero."""
    g = torch.Generator().manual_seed(2)
    for p in module.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
    return module


X = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(3))


def assert_alike(module: nn.Module, reference: Callable[[Tensor], Tensor], x: Tensor = X) -> None:
    """Values, and gradients with respect to the input and all parameters."""
    grads = []
    for function in (module, reference):
        module.zero_grad()
        given = x.clone().requires_grad_()
        result = function(given)
        (result.sin() * torch.arange(result.numel()).view_as(result)).sum().backward()
        grads.append([result.detach(), given.grad, *(p.grad for p in module.parameters())])
    for ours, theirs in zip(*grads, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


GELU = {
    "relu": lambda z: z.clamp(min=0),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "none": lambda z: z,
}


def bottleneck(width: int, activation: str = "gelu", scale: float = 1.0) -> Bottleneck:
    made = Bottleneck(width, 3, activation=activation, scale=scale, generator=generator())
    assert not any(p.any() for p in (made.up.weight, made.up.bias, made.down.bias))
    stirred(made)
    return made


def by_hand(x: Tensor, a: Bottleneck, activation: str, scale: float) -> Tensor:
    inside = GELU[activation](torch.einsum("...i,ji->...j", x, a.down.weight) + a.down.bias)
    return scale * (torch.einsum("...j,ij->...i", inside, a.up.weight) + a.up.bias)


@pytest.mark.parametrize("activation", GELU)
def test_serial(activation: str) -> None:
    layer, adapter = linear(), bottleneck(OUT, activation)

    def reference(x: Tensor) -> Tensor:
        h = x @ layer.weight.T + layer.bias
        return h + by_hand(h, adapter, activation, 1.0)

    assert_alike(SerialAdapter(layer, adapter), reference)


class Network(nn.Module):
    """Two layers, with an adapter beside both."""

    def __init__(self) -> None:
        super().__init__()
        line, first, last = Line(), linear(WIDTH, 7), linear(7, WIDTH)
        self.adapter = bottleneck(WIDTH, "relu", 4.0)
        self.first, self.last = Tap(first, line), ParallelAdapter(last, self.adapter, line)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.tanh(self.first(x)))
        return result


def test_parallel() -> None:
    network = Network()
    first, last = network.first.layer, network.last.layer

    def reference(x: Tensor) -> Tensor:
        h = torch.tanh(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
        return h + by_hand(x, network.adapter, "relu", 4.0)

    assert_alike(network, reference)
    assert network.first.line.given is None, "nothing of a pass stays"
    with pytest.raises(RuntimeError, match="was not called before"):
        network.last(torch.randn(1, 7))


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_low_rank(kind: str) -> None:
    layer, scale = linear(), lora_scale(RANK, kind)
    assert scale == pytest.approx(4 if kind == "lora" else 8 / math.sqrt(2))
    insert = LowRank(WIDTH, OUT, RANK, scale=scale, generator=generator())
    assert not insert.up.weight.any()
    assert insert.down.weight.abs().max() <= 1 / math.sqrt(WIDTH)
    stirred(insert)

    def reference(x: Tensor) -> Tensor:
        weight = layer.weight + scale * torch.einsum(
            "or,ri->oi", insert.up.weight, insert.down.weight
        )
        return torch.einsum("...i,oi->...o", x, weight) + layer.bias

    assert_alike(LoraLayer(layer, insert), reference)


def test_directions_and_lengths() -> None:
    layer = linear()
    insert = Directed(WIDTH, OUT, RANK, scale=4.0, generator=generator())
    module = DoraLayer(layer, insert)
    torch.testing.assert_close(module(X), layer(X))
    stirred(insert)

    def reference(x: Tensor) -> Tensor:
        weight = layer.weight + 4.0 * insert.up.weight @ insert.down.weight
        lengths = weight.detach().square().sum(1).sqrt()
        return x @ (insert.magnitude[:, None] * weight / lengths[:, None]).T + layer.bias

    assert_alike(module, reference)


@pytest.mark.parametrize("side", ["output", "input"])
def test_scales(side: str) -> None:
    layer = linear()
    vector = Vector(OUT if side == "output" else WIDTH, 1.0)
    assert torch.equal(ScaledLayer(layer, vector, side)(X), layer(X))
    stirred(vector)

    def reference(x: Tensor) -> Tensor:
        if side == "input":
            return torch.einsum("...i,i,oi->...o", x, vector.values, layer.weight) + layer.bias
        return torch.einsum("...i,oi,o->...o", x, layer.weight, vector.values) + (
            layer.bias * vector.values
        )

    assert_alike(ScaledLayer(layer, vector, side), reference)


@pytest.mark.parametrize("layer", [linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)])
def test_shifts(layer: nn.Module) -> None:
    vector = Vector(WIDTH, 0.0)
    assert torch.equal(ShiftedLayer(layer, vector)(X), layer(X))
    stirred(vector)
    assert_alike(ShiftedLayer(layer, vector), lambda x: layer(x) + vector.values)


def test_a_prefix_is_what_its_reparameterisation_made() -> None:
    learning = LearningPrefix(3, 2, 4, generator=generator())
    by_steps = torch.stack(
        [learning.outer(torch.tanh(learning.inner(e))).view(2, 2, 4) for e in learning.embedding]
    )
    settled = learning.settled()
    torch.testing.assert_close(settled.states, by_steps.transpose(0, 1))
    assert [tuple(p.shape) for p in settled.parameters()] == [(2, 3, 2, 4)]


# -- folding ---------------------------------------------------------------------------------------


class Conv1D(nn.Module):
    """Written like Hugging Face's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs, generator=generator()))
        self.bias = nn.Parameter(torch.randn(outputs, generator=generator()))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def wrapped(layer: nn.Module, kind: str) -> Around:
    match kind:
        case "lora":
            made = LoraLayer(layer, LowRank(WIDTH, OUT, RANK, scale=2.0, generator=generator()))
        case "dora":
            made = DoraLayer(layer, Directed(WIDTH, OUT, RANK, scale=2.0, generator=generator()))
        case "output":
            made = ScaledLayer(layer, Vector(OUT, 1.0), "output")
        case "input":
            made = ScaledLayer(layer, Vector(WIDTH, 1.0), "input")
        case _:
            made = ShiftedLayer(layer, Vector(OUT, 0.0))
    stirred(made.insert)
    return made


@pytest.mark.parametrize("kind", ["lora", "dora", "output", "input", "shift"])
@pytest.mark.parametrize("make", [linear, lambda: Conv1D(WIDTH, OUT)])
def test_folded_is_apart(kind: str, make: Callable[[], nn.Module]) -> None:
    layer = make()
    module = wrapped(layer, kind)
    with torch.no_grad():
        expected = module(X)
        assert (expected - layer(X)).abs().max() > 0.01, "it does something"
        assert module.folded() is layer
        torch.testing.assert_close(layer(X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "dora", "output", "input", "shift"])
def test_what_comes_out_has_the_type_it_had(kind: str) -> None:
    """Some code counts on it: masked scores are filled with the least number of a type."""
    layer = linear()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert wrapped(layer, kind)(X).dtype == layer(X).dtype == torch.bfloat16


def test_what_stands_between_is_not_folded() -> None:
    assert SerialAdapter(linear(), bottleneck(OUT)).folded() is None


def test_zeros_that_are_kept_are_not_filled() -> None:
    layer = linear()
    layer.weight.data[0] = 0
    layer.keep_zeros = "anywhere"  # type: ignore[assignment]
    assert wrapped(layer, "lora").folded() is None
    scaled = wrapped(layer, "output")
    assert scaled.folded() is layer
    assert not layer.weight[0].any()


@pytest.mark.parametrize("tied", ["layer", "weight"])
def test_a_layer_that_serves_elsewhere_keeps_its_weight(tied: str) -> None:
    layer, other = linear(), linear()
    if tied == "weight":
        other.weight = layer.weight
    model = nn.ModuleDict(
        {"one": wrapped(layer, "lora"), "other": layer if tied == "layer" else other}
    )
    with torch.no_grad():
        expected = [model[name](X) for name in model]
        assert [*fold(model)] == ["one"]
        assert all(torch.equal(model[name](X), e) for name, e in zip(model, expected, strict=True))
        del model["other"]
        assert not fold(model)
        torch.testing.assert_close(model["one"](X), expected[0], rtol=1e-5, atol=1e-5)


def test_what_code_around_a_layer_asks_for_is_the_layers() -> None:
    layer = linear()
    inner = LoraLayer(layer, LowRank(WIDTH, OUT, 1, scale=1.0, generator=generator()))
    module = SerialAdapter(inner, bottleneck(OUT))
    assert module.weight is layer.weight
    assert module.in_features == WIDTH
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = module.nothing_such
