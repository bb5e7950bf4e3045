"""What a loaded program computes with here: torchao's 8-bit kernels, on a GPU 2:4 sparse ones.

Programs hold plain weights and operators that mean the same everywhere. Here, in the process that
runs them, linear layers get weights of the tensor subclasses that dispatch to faster kernels,
eagerly and under `torch.compile` alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

import petra.model.layers.row_scaled  # noqa: F401  # registers the operator

aten = torch.ops.aten
FLOAT8_SINCE = (8, 9)
"""Compute capability of the first GPUs with float8 products."""


def use_kernels(program: nn.Module, device: str) -> tuple[str, ...]:
    """Put faster kernels in place of linear layers of a loaded program, in place; names of the
    weights concerned.

    8-bit rows: int8 anywhere, float8 on GPUs that have it. Weights of which two in four are zero:
    on a GPU, in 16 bits, where the shapes allow. Everything else stays as it is.
    """
    if not isinstance(program, GraphModule):
        return ()
    changed = [*_rowwise(program, device)]
    if device.startswith("cuda"):
        changed += _sparse(program)
    if changed:
        program.graph.lint()
        program.recompile()
    return tuple(changed)


def _rowwise(program: GraphModule, device: str) -> Iterator[str]:
    for node in list(program.graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.petra.rowwise_linear.default:
            continue
        x, codes, scale, bias = node.args
        values = [_constant(program, n) for n in (codes, scale)]
        if values[0] is None or values[1] is None or not _has_kernels(values[0].dtype, device):
            continue
        name = str(codes.target).replace(".", "_") + "_rows"
        weight = _torchao_weight(values[0], values[1], _precision(node))
        program.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        with program.graph.inserting_before(node):
            rows = program.graph.get_attr(name)
            product = program.graph.call_function(functional.linear, (x, rows, bias))
        product.meta = dict(node.meta)
        node.replace_all_uses_with(product)
        program.graph.erase_node(node)
        yield name


def _has_kernels(codes: torch.dtype, device: str) -> bool:
    if codes == torch.int8:
        return True
    return device.startswith("cuda") and torch.cuda.get_device_capability() >= FLOAT8_SINCE


def _precision(node: Node) -> torch.dtype:
    """Of the layer's input and output."""
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _torchao_weight(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Any:
    """torchao's tensor of these codes, which quantizes what it is multiplied with."""
    from torchao.float8.inference import Float8MMConfig
    from torchao.quantization import Float8Tensor, Int8Tensor, PerRow
    from torchao.quantization.quantize_.common import KernelPreference
    from torchao.quantization.quantize_.workflows import (
        QuantizeTensorToFloat8Kwargs,
        QuantizeTensorToInt8Kwargs,
    )

    block = [1, codes.shape[1]]
    if codes.dtype == torch.int8:
        zero = torch.zeros_like(scale, dtype=torch.int8)
        rows = QuantizeTensorToInt8Kwargs(granularity=PerRow())
        return Int8Tensor(codes, scale, block, dtype, zero_point=zero, act_quant_kwargs=rows)
    return Float8Tensor(
        codes,
        scale,
        block_size=block,
        mm_config=Float8MMConfig(use_fast_accum=True),
        act_quant_kwargs=QuantizeTensorToFloat8Kwargs(
            granularity=PerRow(), kernel_preference=KernelPreference.TORCH
        ),
        kernel_preference=KernelPreference.TORCH,
        dtype=dtype,
    )


def two_of_four(weight: Tensor) -> bool:
    """Whether of every four neighbours in a row of `weight` (out, in) at most two are not zero, and
    some are not.
    """
    if weight.ndim != 2 or weight.shape[1] % 4:
        return False
    kept = weight.reshape(-1, 4).ne(0).sum(1)
    return bool(kept.max() <= 2 and kept.sum() > 0)


def _sparse(program: GraphModule) -> Iterator[str]:
    from torch.sparse import to_sparse_semi_structured

    for node in program.graph.nodes:
        weight = _constant(program, node)
        if (
            type(weight) is not Tensor  # none, or 8-bit rows, which have kernels already
            or weight.dtype not in (torch.float16, torch.bfloat16)
            or not two_of_four(weight)
        ):
            continue
        if not all(
            user.target is aten.linear.default and user.args[1] is node for user in node.users
        ):
            continue
        try:
            sparse = to_sparse_semi_structured(weight)
        except (
            RuntimeError,
            ValueError,
        ):
            # A shape, or a GPU, that the kernels do not take: it stays dense.
            continue
        _put(program, str(node.target), nn.Parameter(sparse, requires_grad=False))
        for user in node.users:
            user.target = functional.linear
        yield str(node.target)


def _constant(program: GraphModule, node: Any) -> Tensor | None:
    """The parameter or buffer that a node reads."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(program.get_submodule(owner), name)
    return value.detach() if isinstance(value, Tensor) else None


def _put(program: GraphModule, path: str, parameter: nn.Parameter) -> None:
    owner, _, name = path.rpartition(".")
    holder = program.get_submodule(owner)
    delattr(holder, name)
    holder.register_parameter(name, parameter)
