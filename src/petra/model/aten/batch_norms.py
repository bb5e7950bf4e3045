"""What becomes of the batch norms of an exported ATen graph: exact rewrites of what they are in
evaluation, a x + c.

Each is folded into the layer before it, or into the one behind it, or is written as arithmetic.
Like those of `petra.model.aten.graph`, every function changes the module in place and keeps its
output up to float rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from petra.model.aten.graph import (
    absorbs_batch_norm,
    argument,
    aten,
    batch_norm_affine,
    calls_weighted_layer,
    constant,
    drop_unread_constants,
    insert_call,
    is_inference_batch_norm,
    is_transposed,
    new_parameter,
    readers,
    replace_constant,
    shape_of,
)

_FLATTENING = {aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten.squeeze.dims}
_FLATTENING |= {aten.squeeze.dim, aten.squeeze.default}


def fold_batch_norm(gm: GraphModule) -> None:
    """Fold inference batch norms into the convolution or linear layer before them: W' = a W, b' = a
    b + c per channel.

    a, c: see `batch_norm_affine`. Applies where nothing else reads the layer's result or its
    weight.
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
    drop_unread_constants(gm)


def fold_batch_norm_forward(gm: GraphModule) -> None:
    """Fold inference batch norms into the linear layer or convolution behind them: W (a x + c) + b.

    Averages over positions and flattening may stand between. Applies where nothing else reads the
    norm; convolutions that pad with zeros, which are not c, are left alone.
    """
    for node in reversed(list(gm.graph.nodes)):
        affine = batch_norm_affine(gm, node) if is_inference_batch_norm(node) else None
        layer, repeats = _layer_behind(node) if affine is not None else (None, 0)
        if affine is None or layer is None:
            continue
        weight_node = layer.args[1]
        assert isinstance(weight_node, Node)
        weight, bias = constant(gm, weight_node), None
        if weight is None:
            continue
        scale, shift = (t.repeat_interleave(repeats) for t in affine)
        bias_node = argument(layer, 2, "bias")
        if isinstance(bias_node, Node):
            bias = constant(gm, bias_node)
        groups: Any = argument(layer, 6, "groups", 1)
        scaled, added = _through(weight, scale, shift, int(groups))
        with gm.graph.inserting_before(layer):
            new_weight = new_parameter(gm, f"_{layer.name}_behind_{node.name}", scaled)
            new_bias = new_parameter(
                gm, f"_{layer.name}_shifted_{node.name}", added if bias is None else bias + added
            )
        layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])
        layer.kwargs = {key: value for key, value in layer.kwargs.items() if key != "bias"}
        node.replace_all_uses_with(node.args[0])
        gm.graph.erase_node(node)
    drop_unread_constants(gm)


def _layer_behind(norm: Node) -> tuple[Node | None, int]:
    """The layer that alone reads a norm, by way of what mixes no channels, and how many of its
    inputs come from a channel; None where there is none that can take the norm in."""
    here, repeats = norm, 1
    while len(readers(here)) == 1 and len(here.users) == 1:
        user = readers(here)[0]
        if calls_weighted_layer(user):
            return (
                (user, repeats) if user.args[0] is here and _takes_shifts(user, here) else (None, 0)
            )
        before, after = shape_of(here), shape_of(user)
        if (
            user.target is aten.mean.dim
            and 1 not in _dims(user, len(before))
            and 0 not in _dims(user, len(before))
        ):
            pass
        elif user.target in _FLATTENING and len(after) == 2 and after[0] == before[0]:
            repeats *= int(after[1]) // int(before[1])
        else:
            break
        here = user
    return None, 0


def _dims(mean: Node, rank: int) -> list[int]:
    dims: Any = argument(mean, 1, "dim")
    return [int(d) % rank for d in (dims if isinstance(dims, (list, tuple)) else range(rank))]


def _takes_shifts(layer: Node, source: Node) -> bool:
    """Whether a shift of every channel of `source` can move into the bias of a layer."""
    if layer.target is aten.linear.default:
        return len(shape_of(source)) == 2
    padding: Any = argument(layer, 4, "padding", 0)
    if isinstance(padding, str):
        return padding == "valid"
    return not any(padding if isinstance(padding, (list, tuple)) else [padding])


def _through(weight: Tensor, scale: Tensor, shift: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """W diag(a), and W c summed over positions, for W (out, in / groups, *kernel)."""
    outputs, inputs = weight.shape[:2]
    of_group = [1] * (weight.ndim - 2)

    def by_output(t: Tensor) -> Tensor:
        rows = t.reshape(groups, inputs).repeat_interleave(outputs // groups, 0)
        return rows.reshape(outputs, inputs, *of_group)

    added = (weight * by_output(shift)).flatten(1).sum(1)
    return weight * by_output(scale), added


def batch_norm_as_arithmetic(gm: GraphModule) -> None:
    """Write batch norms that are left as products and sums, those with the statistics of the batch
    at hand as what computes these, too.

    Their integer form is no single operator; and as norms they would be taken for layers in
    training, into which torchao looks for convolutions to fold, at half a minute a model.
    """
    for node in list(gm.graph.nodes):
        if node.op != "call_function" or node.target is not aten.batch_norm.default:
            continue
        x = node.args[0]
        assert isinstance(x, Node)
        ones = [1] * (len(shape_of(x)) - 2)
        affine = batch_norm_affine(gm, node) if is_inference_batch_norm(node) else None
        if affine is None and not _has_own_statistics(node):
            continue
        with gm.graph.inserting_before(node):
            if affine is None:
                x = _standardised(gm, node)
                affine = _gain_and_shift(gm, node)
            scale, shift = (t.reshape(-1, *ones) for t in affine)
            scale_node = new_parameter(gm, f"_{node.name}_scale", scale)
            shift_node = new_parameter(gm, f"_{node.name}_shift", shift)
            scaled = insert_call(gm, aten.mul.Tensor, (x, scale_node), node)
            shifted = insert_call(gm, aten.add.Tensor, (scaled, shift_node), node)
        node.replace_all_uses_with(shifted)
        gm.graph.erase_node(node)
    drop_unread_constants(gm)


def _has_own_statistics(norm: Node) -> bool:
    """Whether a batch norm takes statistics of its input and keeps none."""
    return bool(norm.args[5]) and norm.args[3] is None and norm.args[4] is None


def _standardised(gm: GraphModule, norm: Node) -> Node:
    """(x - mean) / sqrt(var + eps) over all dimensions but the second."""
    x: Any = norm.args[0]
    eps: Any = norm.args[7]
    dims = [d for d in range(len(shape_of(x))) if d != 1]
    mean = insert_call(gm, aten.mean.dim, (x, dims, True), norm)
    centred = insert_call(gm, aten.sub.Tensor, (x, mean), norm)
    squares = insert_call(gm, aten.pow.Tensor_Scalar, (centred, 2), norm)
    variance = insert_call(gm, aten.mean.dim, (squares, dims, True), norm)
    safe = insert_call(gm, aten.add.Tensor, (variance, eps), norm)
    root = insert_call(gm, aten.rsqrt.default, (safe,), norm)
    return insert_call(gm, aten.mul.Tensor, (centred, root), norm)


def _gain_and_shift(gm: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    channels = int(shape_of(norm)[1])
    weight, bias = (constant(gm, a) if isinstance(a, Node) else None for a in norm.args[1:3])
    return (
        torch.ones(channels) if weight is None else weight,
        torch.zeros(channels) if bias is None else bias,
    )
