"""Linear layers in 8 bits with a scale for every row: torchao's dynamic int8 and float8, as one
operator in files.

A file must not depend on the machine that wrote it, and what torchao traces does: its int8 product
is written differently for CPUs and GPUs, and its float8 cannot be made without a GPU. So programs
hold ``petra::rowwise_linear`` with plain codes; whoever loads one lets torchao's own tensors take
its place where they run (`petra.runtimes.torch_kernels`). Elsewhere the operator simulates what
they compute.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from petra.model.layers.quantized import keep_for_input_gradient, linear_gradients

FORMATS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}


def quantized_rows(rows: Tensor, dtype: torch.dtype) -> Any:
    """torchao's tensor of `rows` (n, k): symmetric codes of `dtype`, int8 or float8_e4m3fn, a scale
    per row.
    """
    from torchao.quantization import Float8Tensor, Int8Tensor, PerRow
    from torchao.quantization.quantize_.common import KernelPreference

    if dtype == torch.int8:
        return Int8Tensor.from_hp(rows, PerRow())
    return Float8Tensor.from_hp(
        rows, granularity=PerRow(), kernel_preference=KernelPreference.TORCH
    )


@torch.library.custom_op(
    "petra::rowwise_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor codes, Tensor scale, Tensor? bias) -> Tensor",
)
def rowwise_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias with rows of x (..., in) quantized on the spot to the type of `codes`; W = codes
    * scale.

    codes: int8 or float8_e4m3fn (out, in); scale: float32 (out, 1). Simulated in float32, in the
    type of x at the end.
    """
    rows = quantized_rows(x.reshape(-1, x.shape[-1]), codes.dtype).dequantize(torch.float32)
    result = (
        functional.linear(rows, codes.float() * scale)
        .to(x.dtype)
        .reshape(*x.shape[:-1], len(codes))
    )
    return result if bias is None else result + bias


@rowwise_linear.register_fake
def _(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


def _backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
    codes, scale = context.saved_tensors
    return linear_gradients(context, gradient, codes.float() * scale)


rowwise_linear.register_autograd(_backward, setup_context=keep_for_input_gradient)


@register_flop_formula([torch.ops.petra.rowwise_linear])
def _flops(x: Any, codes: Any, *args: Any, **kwargs: Any) -> int:
    """Two for every multiply-accumulate, as torch counts. Shapes come in place of tensors."""
    count = 2 * int(codes[0])
    for size in x:
        count *= int(size)
    return count


class RowwiseLinear(nn.Module):
    """A linear layer of 8-bit codes, called with and returning the precision of its
    surroundings.
    """

    codes: nn.Parameter
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        """weight: float32 (out, in), quantized here to `dtype` by torchao. bias: (out,), in the
        surroundings' type.
        """
        super().__init__()
        quantized = quantized_rows(weight, dtype)
        self.codes = nn.Parameter(quantized.qdata.contiguous(), requires_grad=False)
        self.register_buffer("scale", quantized.scale.float().contiguous())
        self.register_parameter("bias", bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = rowwise_linear(x, self.codes, self.scale, self.bias)
        return result

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, {self.codes.dtype}"
        )
