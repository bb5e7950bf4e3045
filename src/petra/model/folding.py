"""Exact rewrites of an exported ATen graph that fold computed weights into constants.

Training writes a layer in pieces, a convolution and its batch norm, a direction and a length, a transposed table, which
in evaluation are one constant. Integer kernels know layers with one constant weight only, so these come first. Like
those of `petra.model.graph`, every function changes the module in place and keeps its output up to float rounding.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from petra.model.graph import (
    absorbs_batch_norm,
    argument,
    aten,
    batch_norm_affine,
    constant,
    is_inference_batch_norm,
    is_transposed,
    new_parameter,
    replace_constant,
)

_WEIGHT_ARITHMETIC = {
    aten._weight_norm.default,
    aten._weight_norm_interface.default,
    operator.getitem,
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
}


def fold_computed_weights(gm: GraphModule) -> None:
    """Evaluate weight normalisation and transposition of constants (Salimans & Kingma 2016 for the former)."""
    known: dict[Node, Any] = {}

    def value(node: Node) -> Any:
        return known[node] if node in known else constant(gm, node)

    for node in list(gm.graph.nodes):
        if node.op != "call_function" or node.target not in _WEIGHT_ARITHMETIC:
            continue
        if not node.all_input_nodes or any(value(source) is None for source in node.all_input_nodes):
            continue
        function: Callable[..., Any] = node.target
        with torch.no_grad():
            known[node] = function(*map_arg(node.args, value), **map_arg(node.kwargs, value))
    for node, result in known.items():
        if isinstance(result, Tensor) and any(user not in known for user in node.users):
            with gm.graph.inserting_before(node):
                folded = new_parameter(gm, f"_{node.name}_folded", result.detach().clone())
            for user in [user for user in node.users if user not in known]:
                user.replace_input_with(node, folded)
    for node in reversed(known):
        if not node.users:
            gm.graph.erase_node(node)
    _drop_unread_constants(gm)


def matrix_products_as_linear(gm: GraphModule) -> None:
    """x W + b and x W for a constant matrix W, as linear layers (the Conv1D of GPT-2 is written that way)."""
    transposed: dict[Node, Node] = {}
    for node in list(gm.graph.nodes):
        operands = _constant_product(node)
        if operands is None:
            continue
        x, matrix, bias = operands
        weight = constant(gm, matrix)
        if weight is None or weight.ndim != 2 or not weight.is_floating_point():
            continue
        if matrix not in transposed:
            with gm.graph.inserting_before(node):
                transposed[matrix] = new_parameter(gm, f"_{node.name}_weight", weight.t().contiguous())
        node.target = aten.linear.default
        node.args = (x, transposed[matrix]) if bias is None else (x, transposed[matrix], bias)
        node.kwargs = {}
    _drop_unread_constants(gm)


def _constant_product(node: Node) -> tuple[Node, Node, Node | None] | None:
    """x, W and bias of a product with a constant on the right."""
    if node.op != "call_function":
        return None
    bias: object = None
    if node.target is aten.addmm.default and not node.kwargs:
        bias, x, matrix = node.args
        if not isinstance(bias, Node) or bias.op != "get_attr" or len(bias.meta["val"].shape) != 1:
            return None
    elif node.target in (aten.mm.default, aten.matmul.default):
        x, matrix = node.args
    else:
        return None
    if not isinstance(x, Node) or not isinstance(matrix, Node) or matrix.op != "get_attr":
        return None
    return x, matrix, bias if isinstance(bias, Node) else None


def fold_batch_norm(gm: GraphModule) -> None:
    """Fold inference batch norms into the convolution or linear layer before them: W' = a W, b' = a b + c per channel.

    a, c: see `batch_norm_affine`. Applies where nothing else reads the layer's result or its weight.
    """
    for node in list(gm.graph.nodes):
        if not is_inference_batch_norm(node) or not absorbs_batch_norm(node.args[0]):
            continue
        layer = node.args[0]
        assert isinstance(layer, Node)
        affine, weight_node = batch_norm_affine(gm, node), layer.args[1]
        assert isinstance(weight_node, Node)
        weight = constant(gm, weight_node)
        if affine is None or weight is None:
            continue
        scale, shift = affine
        shape = [1] * weight.ndim
        shape[1 if is_transposed(layer) else 0] = -1
        bias_node = argument(layer, 2, "bias")
        bias = constant(gm, bias_node) if isinstance(bias_node, Node) else None
        replace_constant(gm, weight_node, weight * scale.reshape(shape))
        folded = shift if bias is None else bias * scale + shift
        if isinstance(bias_node, Node) and len(bias_node.users) == 1:
            replace_constant(gm, bias_node, folded)
        else:
            with gm.graph.inserting_before(layer):
                bias_node = new_parameter(gm, f"_{layer.name}_bias", folded)
            layer.args = (*layer.args[:2], bias_node, *layer.args[3:])
        node.replace_all_uses_with(layer)
        gm.graph.erase_node(node)
    _drop_unread_constants(gm)


def _drop_unread_constants(gm: GraphModule) -> None:
    for node in list(gm.graph.nodes):
        if node.op == "get_attr" and not node.users:
            gm.graph.erase_node(node)
    gm.graph.lint()
    gm.recompile()
