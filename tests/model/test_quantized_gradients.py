"""Gradients through layers of codes are those of the layer with the float weight they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.methods.quantize.rounding import pack
from petra.model.layers.quantized import Codes, DynamicQuantizedLinear, Int4Linear
from petra.model.layers.row_scaled import RowwiseLinear


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dynamic() -> tuple[nn.Module, Tensor]:
    codes = torch.randint(-64, 65, (5, 8), generator=generator()).to(torch.int8)
    scale = 0.01 * torch.rand(5, 1, generator=generator()) + 0.001
    layer = DynamicQuantizedLinear(
        Codes(nn.Parameter(codes, requires_grad=False), scale), nn.Parameter(torch.ones(5))
    )
    return layer, layer.weight


def int4() -> tuple[nn.Module, Tensor]:
    codes = pack(torch.randint(-8, 8, (5, 8), generator=generator()).float())
    scale = 0.1 * torch.rand(5, 2, generator=generator()) + 0.01
    layer = Int4Linear(
        Codes(nn.Parameter(codes, requires_grad=False), scale), nn.Parameter(torch.ones(5))
    )
    return layer, layer.weight


def rowwise() -> tuple[nn.Module, Tensor]:
    weight = torch.randn(5, 8, generator=generator())
    layer = RowwiseLinear(weight, nn.Parameter(torch.ones(5)), torch.int8)
    return layer, layer.codes.float() * layer.scale


@pytest.mark.parametrize("make", [dynamic, int4, rowwise])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
def test_gradients_are_those_of_the_float_layer(
    make: Callable[[], tuple[nn.Module, Tensor]], shape: tuple[int, ...]
) -> None:
    layer, weight = make()
    if len(shape) == 1 and make is rowwise:
        pytest.skip("torchao takes batches")
    x = torch.randn(shape, generator=generator(), requires_grad=True)
    upstream = torch.randn((*shape[:-1], 5), generator=generator())
    bias = torch.ones(5, requires_grad=True)
    expected = torch.autograd.grad(functional.linear(x, weight, bias), (x, bias), upstream)
    got = torch.autograd.grad(layer(x), (x, layer.bias), upstream)  # type: ignore[arg-type]
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("make", [dynamic, int4])
def test_a_step_along_the_gradient_is_a_step_of_the_layer(
    make: Callable[[], tuple[nn.Module, Tensor]],
) -> None:
    """By differences of what the layer itself computes, over steps far larger than its rounding."""
    layer, _ = make()
    x = torch.randn(64, 8, generator=generator(), requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    with torch.no_grad():
        step = 0.5 * torch.randn(64, 8, generator=generator())
        change = layer(x + step).sum() - layer(x - step).sum()
    assert float(change) == pytest.approx(2 * float((gradient * step).sum()), rel=0.05)


def test_nothing_is_kept_where_nothing_asks_for_gradients() -> None:
    layer, _ = dynamic()
    x = torch.randn(3, 8)
    assert layer.requires_grad_(False)(x).grad_fn is None
