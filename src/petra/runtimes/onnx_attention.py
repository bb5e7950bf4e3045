"""Attention in which a position may see nothing, as PyTorch computes it.

PyTorch's `scaled_dot_product_attention` returns 0 for a query all of whose keys are masked, such as
the first one of a causal decoder where it is padding. The exporter's translation returns what a
softmax makes of such a row: NaN of a float mask, the mean of all values of a boolean one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto

from petra.runtimes.onnx_graph import constants_of, rename_inputs


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """The operator -> what writes its nodes."""
    import torch

    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The exporter's own nodes; under a mask, 0 where it leaves nothing to see.

    The mask's largest value a row costs one pass over the mask, once for all layers that share it.
    """
    import onnx_ir as ir
    from onnxscript import onnx_opset
    from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

    op: Any = onnx_opset.opset18  # its operators are typed by tensors' types, not by values

    nothing = None
    if attn_mask is not None:
        unseen = op.CastLike(op.Constant(value_float=float("-inf")), query)
        zero = op.CastLike(op.Constant(value_float=0.0), query)
        if attn_mask.dtype == ir.DataType.BOOL:
            attn_mask = op.Where(attn_mask, zero, unseen)
            attn_mask.dtype = query.dtype
        last = op.Constant(value_ints=[-1])
        nothing = op.Equal(op.ReduceMax(attn_mask, last, keepdims=1), unseen)
    result = aten_scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
    )
    return result if nothing is None else op.Where(nothing, zero, result)


def drop_settled_choices(graph: GraphProto) -> None:
    """Where(never, a number, x) -> x: of a mask that is part of the model, all is known."""
    constants = constants_of(graph)
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    fixed = {output.name for output in graph.output}
    for node in list(graph.node):
        if node.op_type != "Where" or node.output[0] in fixed or node.input[0] not in constants:
            continue
        condition, (chosen, other) = constants[node.input[0]], node.input[1:]
        if condition.any() or constants.get(chosen, np.zeros(2)).size != 1:
            continue
        if _widens(condition.shape, sizes.get(other, [])):
            continue
        graph.node.remove(node)
        rename_inputs(graph, {node.output[0]: other})


def _widens(shape: tuple[int, ...], sizes: list[int]) -> bool:
    """Whether an array of that shape makes another one larger; sizes that are free are 0."""
    if len(shape) > len(sizes):
        return True
    pairs = zip(reversed(shape), reversed(sizes), strict=False)
    return any(size not in (1, other) for size, other in pairs)
