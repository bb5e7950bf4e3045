"""Layers that hold their weights as short codes, and the operators they compute with.

The operators have an exact integer meaning, so that PyTorch and a runtime compute the same numbers.
They are registered with torch as ``petra::...``: importing this module makes exported programs that
use them loadable, and `petra.runtimes.onnx_quantized` writes them as ONNX.

Gradients pass through them to inputs and biases, so that other modules can be trained on top of
quantized ones. Codes are frozen parameters, scales are buffers. `weight` gives the float weight to
models that read it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

_EXACT_TERMS = 512
"""Products of a centred u8 and an s8 code of which any sum is exact in float32: 512 x 255 x 128 <
2^24.
"""


class Codes(NamedTuple):
    """A stored weight: its value is `decode(codes, scale)`.

    codes: int8, float16, or uint8 of shape (out, in / 2) with two 4-bit codes in each, the first in
    the lower half, eight above their value. scale: float32, broadcastable to the codes; (out,
    groups of inputs) for 4-bit codes; None for float16.
    """

    codes: nn.Parameter
    scale: Tensor | None


# -- operators -------------------------------------------------------------------------------------


@torch.library.custom_op(
    "petra::decode", mutates_args=(), schema="(Tensor codes, Tensor? scale) -> Tensor"
)
def decode(codes: Tensor, scale: Tensor | None) -> Tensor:
    """The float32 weight that `Codes` stand for."""
    if codes.dtype == torch.uint8:
        assert scale is not None
        return scaled(unpack(codes), scale)
    value = codes.float()
    return value if scale is None else value * scale


@decode.register_fake
def _(codes: Tensor, scale: Tensor | None) -> Tensor:
    shape = (codes.shape[0], 2 * codes.shape[1]) if codes.dtype == torch.uint8 else codes.shape
    return codes.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op(
    "petra::dynamic_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor codes, Tensor scale, Tensor? bias) -> Tensor",
)
def dynamic_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias in integers: x (..., in) quantized to u8 on the spot, W = codes * scale, int8
    (out, in), (out, 1).

    Bit for bit what ONNX's DynamicQuantizeLinear, MatMulInteger, Cast, Mul and Add give. The range
    is that of the whole tensor, so an item's result depends slightly on what else is in the batch.
    """
    result = integer_product(x, codes, scale)
    return result if bias is None else result + bias


@dynamic_linear.register_fake
def _(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


@torch.library.custom_op(
    "petra::int4_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor codes, Tensor scale, Tensor? bias) -> Tensor",
)
def int4_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias in float, with W from 4-bit codes (see `Codes`)."""
    return functional.linear(x, decode(codes, scale), bias)


@int4_linear.register_fake
def _(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


def keep_for_input_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Codes, not the float weight, wait for the backward pass: they are a fraction of its size."""
    _, codes, scale, _ = inputs
    ctx.save_for_backward(codes, scale)


def linear_gradients(
    context: Any, gradient: Tensor, weight: Tensor
) -> tuple[Tensor | None, None, None, Tensor | None]:
    """Gradients of x W^T + bias with respect to x, codes, scale and bias, for that of the result
    (..., out). Codes and scales have none; rounding passes gradients straight through.
    """
    to_x, _, _, to_bias = context.needs_input_grad
    return (
        gradient @ weight.to(gradient.dtype) if to_x else None,
        None,
        None,
        gradient.reshape(-1, gradient.shape[-1]).sum(0) if to_bias else None,
    )


def _backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
    return linear_gradients(context, gradient, decode(*context.saved_tensors))


for _operator in (dynamic_linear, int4_linear):
    _operator.register_autograd(_backward, setup_context=keep_for_input_gradient)


@register_flop_formula([torch.ops.petra.dynamic_linear, torch.ops.petra.int4_linear])
def _linear_flops(x: Any, codes: Any, *args: Any, **kwargs: Any) -> int:
    """Two for every multiply-accumulate, as torch counts. Shapes come in place of tensors."""
    count = 2 * int(codes[0])
    for size in x:
        count *= int(size)
    return count


def integer_product(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """x W^T as `dynamic_linear` has it; codes may be whole floats."""
    centred, step = quantize_activation(x)
    total = torch.zeros((*x.shape[:-1], codes.shape[0]), dtype=torch.int32, device=x.device)
    for start in range(0, x.shape[-1], _EXACT_TERMS):
        part = slice(start, start + _EXACT_TERMS)
        total += functional.linear(centred[..., part], codes[:, part].float()).to(torch.int32)
    return total.float() * (step * scale.reshape(-1))


def quantize_activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """u8 codes of x less their zero point, as whole floats, and the step between codes (a scalar).

    ONNX's DynamicQuantizeLinear: affine, from min(x, 0) to max(x, 0) over the whole tensor, halves
    rounded to even.
    """
    low, high = torch.aminmax(x)
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = torch.where(high == low, torch.ones_like(high), (high - low) / 255)
    zero_point = (-low / step).round().clamp(0, 255)
    return (x / step).round().clamp(-zero_point, 255 - zero_point), step


def unpack(codes: Tensor) -> Tensor:
    """Values -8 to 7 of packed 4-bit codes, as floats: (..., n) uint8 -> (..., 2 n).

    In float arithmetic, because not every runtime has bit operators.
    """
    both = codes.float()
    high = torch.floor(both / 16)
    return torch.stack([both - 16 * high, high], -1).flatten(-2) - 8


def scaled(values: Tensor, scale: Tensor) -> Tensor:
    """Rows (..., n) times scales (..., groups), each for n / groups neighbours."""
    groups = scale.shape[-1]
    apart = values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)
    return (apart * scale.unsqueeze(-1)).flatten(-2)


# -- layers ----------------------------------------------------------------------------------------


class _QuantizedLinear(nn.Module):
    codes: nn.Parameter
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: Codes, bias: nn.Parameter | None) -> None:
        """weight: of (out, in), one scale a row or a group. bias: (out,)."""
        super().__init__()
        self.codes = weight.codes
        self.register_buffer("scale", weight.scale)
        self.register_parameter("bias", bias)
        self.out_features = len(weight.codes)
        self.in_features = weight.codes.shape[1] * (2 if weight.codes.dtype == torch.uint8 else 1)

    @property
    def weight(self) -> Tensor:
        """The float weight (out, in)."""
        value: Tensor = decode(self.codes, self.scale)
        return value

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features},"
            f" bias={self.bias is not None}"
        )


class DynamicQuantizedLinear(_QuantizedLinear):
    """A linear layer in integers: int8 weights, activations quantized to 8 bits on the spot
    (`dynamic_linear`).
    """

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = dynamic_linear(x, self.codes, self.scale, self.bias)
        return result


class Int4Linear(_QuantizedLinear):
    """A linear layer with 4-bit weights and float activations (`int4_linear`)."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = int4_linear(x, self.codes, self.scale, self.bias)
        return result


class QuantizedEmbedding(nn.Module):
    """A look-up table of codes: only the rows that are looked up are decoded."""

    codes: nn.Parameter
    scale: Tensor | None

    def __init__(self, weight: Codes, padding_idx: int | None) -> None:
        super().__init__()
        self.codes = weight.codes
        self.register_buffer("scale", weight.scale)
        self.num_embeddings = len(weight.codes)
        self.embedding_dim = weight.codes.shape[1] * (2 if weight.codes.dtype == torch.uint8 else 1)
        self.padding_idx = padding_idx

    @property
    def weight(self) -> Tensor:
        """The float table (num_embeddings, embedding_dim)."""
        value: Tensor = decode(self.codes, self.scale)
        return value

    def forward(self, indices: Tensor) -> Tensor:
        rows = functional.embedding(indices, self.codes)
        if self.scale is None:
            return rows.float()
        scale = functional.embedding(indices, self.scale)
        return scaled(unpack(rows), scale) if rows.dtype == torch.uint8 else rows.float() * scale

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.codes.dtype}"
