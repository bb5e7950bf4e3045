"""Exact rewrites of an exported ATen graph that leave less for a quantizer, and for a runtime, to do.

Every function here changes a `torch.fx.GraphModule` in place and keeps its output, up to float rounding, for every
input. They exist because the integer kernels of deployment runtimes cover few operators: what can be said with a
covered operator is said with it.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten

_FUNCTIONAL = {
    aten.relu_.default: aten.relu.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.relu6_.default: aten.relu6.default,
    aten.clamp_.default: aten.clamp.default,
    aten.clamp_min_.default: aten.clamp_min.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.silu_.default: aten.silu.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.elu_.default: aten.elu.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.dropout_.default: aten.dropout.default,
}
ACTIVATIONS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default}
"""Activations that clip: monotone, and exact on integer codes."""

_VIEWS = {
    aten.slice.Tensor,
    aten.select.int,
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.chunk.default,
    aten.split.Tensor,
}
_ORDER_KEEPING = {aten.cat.default, aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default}
_ADAPTIVE_AVERAGE = {
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
}
CONVOLUTIONS = ("aten.conv1d.", "aten.conv2d.", "aten.conv3d.")
_CONV_BY_SPATIAL_DIMS = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def argument(node: Node, position: int, name: str, default: object = None) -> object:
    """The argument of a call, given by position or by name, or `default`."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def shape_of(node: Node) -> tuple[int | torch.SymInt, ...]:
    """Shape of the tensor a node makes, `()` when it makes none."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def sizes(node: Node) -> list[int]:
    """Shape of the tensor a node makes, with the batch size of the traced example for the free dimension.

    A size that depends on the values of the data, not only on their shape, counts as 1.
    """
    return [
        int(size) if isinstance(size, int) else int(size.node.hint) if size.node.has_hint() else 1
        for size in shape_of(node)
    ]


def tensor_inputs(node: Node) -> list[Node]:
    """The nodes whose tensors a call reads; sizes computed from shapes are left out."""
    return [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]


def readers(node: Node) -> list[Node]:
    """The users of a node that read its values, not only its shape."""
    return [user for user in node.users if user.target is not aten.sym_size.int]


def multiply_accumulates(node: Node) -> int:
    """Multiply-accumulates of one call at the traced batch size; 0 for what is not a matrix product of some kind."""
    kind = str(node.target) if node.op == "call_function" else ""
    operands = [sizes(source) for source in node.all_input_nodes]
    if kind.startswith("aten.conv_transpose"):
        return math.prod(operands[0]) * math.prod(operands[1][1:])
    if is_weighted(node):
        return math.prod(sizes(node)) * math.prod(operands[1][1:])
    if kind.startswith(("aten.matmul", "aten.bmm", "aten.mm.")):
        return math.prod(sizes(node)) * operands[0][-1]
    if kind.startswith("aten.scaled_dot_product_attention"):
        return 2 * math.prod(operands[0]) * operands[1][-2]
    if kind.startswith(("aten.lstm", "aten.gru", "aten.rnn")):
        return math.prod(operands[0][:2]) * sum(math.prod(shape) for shape in operands[1:] if len(shape) == 2)
    return 0


def is_weighted(node: Node) -> bool:
    """Whether a node calls one of the layers that have integer kernels: convolution or linear."""
    return node.target is aten.linear.default or str(node.target).startswith(CONVOLUTIONS)


def is_float32(node: object) -> bool:
    """Whether a node makes one float32 tensor."""
    if not isinstance(node, Node):
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def drop_identities(graph: Graph) -> None:
    """Remove what does nothing in evaluation: dropout, full slices, contiguous, detach.

    Memory layout is not kept, so `view`, which demands one, becomes `reshape`.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.view.default:
            node.target = aten.reshape.default
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        dropout = node.target in (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default)
        if (
            (dropout and not node.args[2])
            or node.target in (aten.contiguous.default, aten.detach.default, aten.alias.default)
            or _is_full_slice(node)
        ):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_full_slice(node: Node) -> bool:
    if node.target is not aten.slice.Tensor:
        return False
    start, end = argument(node, 2, "start"), argument(node, 3, "end")
    whole = end is None or (isinstance(end, int) and end >= 2**62)
    return (start is None or start == 0) and whole and argument(node, 4, "step", 1) == 1


def functionalise(graph: Graph) -> None:
    """Turn in-place activations, additions and products into their functional forms.

    A quantize-dequantize pair copies its input, so a mutation behind one would be lost: later readers of the mutated
    value are redirected to the result. An operator that mutates a *view* (`x[:, :4].relu_()`), or a tensor that a view
    was taken of before, is left alone, because another tensor changes too; `in_place_calls` then lists it.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _FUNCTIONAL:
            continue
        mutated = node.args[0]
        if not isinstance(mutated, Node) or mutated.target in _VIEWS:
            continue
        if any(user.target in _VIEWS and order[user] < order[node] for user in mutated.users):
            continue
        node.target = _FUNCTIONAL[node.target]
        for user in list(mutated.users):
            if order[user] > order[node]:
                user.replace_input_with(mutated, node)


def in_place_calls(graph: Graph) -> list[Node]:
    """The calls that still write into one of their inputs."""
    return [node for node in graph.nodes if _is_in_place(node)]


def _is_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return schema is not None and bool(schema.is_mutable)


def written(graph: Graph) -> set[Node]:
    """Values whose memory an in-place call changes: what it writes to, and all views of the same memory.

    They must not be copied, as quantize and dequantize do, because the copy would not change with them.
    """
    found: set[Node] = set()
    for call in in_place_calls(graph):
        schema: Any = getattr(call.target, "_schema")  # noqa: B009
        arguments = zip(schema.arguments, call.args, strict=False)
        todo = [value for declared, value in arguments if declared.alias_info and isinstance(value, Node)]
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                if _shares_memory(node) and isinstance(node.args[0], Node):
                    todo.append(node.args[0])
                todo.extend(user for user in node.users if _shares_memory(user) and user.args[0] is node)
    return found


def _shares_memory(node: Node) -> bool:
    """Whether the result may be the memory of the first argument."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
        return False
    return node.target in _VIEWS or node.target is operator.getitem or _is_in_place(node)


def global_average_as_mean(graph: Graph) -> None:
    """Write adaptive average pooling to one cell as a mean over the spatial dimensions.

    Exporters decompose the pooling into strided views with shape arithmetic; a mean stays one node.
    """
    for node in graph.nodes:
        spatial = _ADAPTIVE_AVERAGE.get(node.target) if node.op == "call_function" else None
        if spatial is None:
            continue
        size = node.args[1]
        cells = list(size) if isinstance(size, (list, tuple)) else [size]
        if all(cell == 1 for cell in cells):
            node.target = aten.mean.dim
            node.args = (node.args[0], list(range(-spatial, 0)), True)


def clip_before_moving(gm: GraphModule) -> None:
    """relu(cat(a, b)) = cat(relu(a), relu(b)), and the same over max pooling: activations join the layers they follow.

    A layer quantized after its activation wastes no codes on values the activation removes.
    """
    moved = True
    while moved:
        moved = False
        for node in list(gm.graph.nodes):
            if node.op != "call_function" or node.target not in ACTIVATIONS or len(node.all_input_nodes) != 1:
                continue
            mover = node.all_input_nodes[0]
            if mover.target not in _ORDER_KEEPING or len(readers(mover)) != 1:
                continue
            clipped: dict[Node, Node] = {}
            for part in mover.all_input_nodes:
                with gm.graph.inserting_before(mover):
                    clipped[part] = gm.graph.call_function(node.target, (part, *node.args[1:]), dict(node.kwargs))
                clipped[part].meta = {**node.meta, "val": part.meta["val"]}
            node.replace_all_uses_with(mover)
            gm.graph.erase_node(node)
            mover.args = map_arg(mover.args, clipped.__getitem__)
            moved = True
    gm.graph.lint()
    gm.recompile()


def split_batch_norm_over_concat(gm: GraphModule) -> None:
    """BN(cat(a, b)) = cat(BN_a(a), BN_b(b)): afterwards each part fuses into the convolution that makes it.

    Applies when the concatenation is over channels, nothing else reads it, and every part can absorb its share.
    """
    for node in list(gm.graph.nodes):
        cat = node.args[0] if is_inference_batch_norm(node) else None
        if not isinstance(cat, Node) or cat.target is not aten.cat.default or len(readers(cat)) != 1:
            continue
        parts = list(cat.args[0]) if isinstance(cat.args[0], (list, tuple)) else []
        if argument(cat, 1, "dim", 0) != 1 or not all(absorbs_batch_norm(p) for p in parts):
            continue
        statistics = [constant(gm, a) if isinstance(a, Node) else None for a in node.args[1:5]]
        start, normalised = 0, []
        for index, part in enumerate(parts):
            stop = start + int(shape_of(part)[1])
            with gm.graph.inserting_before(cat):
                sliced = [
                    None if s is None else _buffer(gm, f"_{node.name}_{index}_{k}", s[start:stop].clone())
                    for k, s in enumerate(statistics)
                ]
                new = gm.graph.call_function(aten.batch_norm.default, (part, *sliced, *node.args[5:]))
            new.meta = {**node.meta, "val": part.meta["val"]}
            normalised.append(new)
            start = stop
        cat.args = (normalised, *cat.args[1:])
        node.replace_all_uses_with(cat)
        gm.graph.erase_node(node)
    gm.graph.lint()
    gm.recompile()


def batch_norm_as_depthwise_conv(gm: GraphModule) -> None:
    """Write a batch normalisation that no layer absorbed as the 1x1 depthwise convolution it is in evaluation.

    Per-channel 8-bit weights hold a single number per channel exactly, so quantization adds no error of its own here.
    Inputs are `(n, c, ...)` with 1 to 3 spatial dimensions; a BN over `(n, c)` features is left in float.
    """
    for node in list(gm.graph.nodes):
        if not is_inference_batch_norm(node):
            continue
        source = node.args[0]
        spatial = len(shape_of(source)) - 2
        affine = batch_norm_affine(gm, node)
        if spatial not in _CONV_BY_SPATIAL_DIMS or absorbs_batch_norm(source) or affine is None:
            continue
        scale, shift = affine
        channels = int(shape_of(source)[1])
        with gm.graph.inserting_before(node):
            kernel = _buffer(gm, f"_{node.name}_scale", scale.reshape(channels, 1, *[1] * spatial).clone())
            offset = _buffer(gm, f"_{node.name}_shift", shift.clone())
        ones, zeros = [1] * spatial, [0] * spatial
        node.target = _CONV_BY_SPATIAL_DIMS[spatial]
        node.args = (source, kernel, offset, ones, zeros, ones, channels)
    gm.recompile()


def batch_norm_affine(gm: GraphModule, node: Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """a and c, each (channels,), of a batch norm in evaluation, y = a x + c; None without stored statistics.

    a = weight / sqrt(var + eps), c = bias - a mean.
    """
    weight, bias, mean, var = (constant(gm, a) if isinstance(a, Node) else None for a in node.args[1:5])
    if mean is None or var is None:
        return None
    eps: Any = node.args[7]
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def is_inference_batch_norm(node: Node) -> bool:
    """Whether a node is a batch norm with stored statistics."""
    return node.op == "call_function" and node.target is aten.batch_norm.default and not node.args[5]


def is_transposed(node: Node) -> bool:
    """Whether a node is a transposed convolution, whose weight counts outputs in dimension 1."""
    return str(node.target).startswith("aten.conv_transpose")


def absorbs_batch_norm(node: object) -> bool:
    """Whether the node is a convolution, or a linear layer on `(n, c)`, whose result and weights nothing else reads."""
    if not isinstance(node, Node) or node.op != "call_function" or len(readers(node)) != 1:
        return False
    if is_transposed(node):
        if argument(node, 6, "groups", 1) != 1:
            return False
    elif not is_weighted(node) or (node.target is aten.linear.default and len(shape_of(node)) != 2):
        return False
    weight = node.args[1]
    return isinstance(weight, Node) and weight.op == "get_attr" and len(weight.users) == 1


def constant(gm: GraphModule, node: Node) -> torch.Tensor | None:
    """The parameter or buffer a `get_attr` node reads."""
    if node.op != "get_attr" or not isinstance(node.target, str):
        return None
    owner, _, name = node.target.rpartition(".")
    value = getattr(gm.get_submodule(owner), name)
    return value.detach() if isinstance(value, torch.Tensor) else None


def replace_constant(gm: GraphModule, node: Node, value: torch.Tensor) -> None:
    """Give a `get_attr` node another value; the tensor it read, which the traced model may share, is not written to."""
    owner, _, name = str(node.target).rpartition(".")
    holder = gm.get_submodule(owner)
    parameter = isinstance(getattr(holder, name), torch.nn.Parameter)
    delattr(holder, name)
    if parameter:
        holder.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    else:
        holder.register_buffer(name, value)


def _buffer(gm: GraphModule, name: str, value: torch.Tensor) -> Node:
    """Register a constant and return the node that reads it, made at the graph's current insertion point."""
    gm.register_buffer(name, value)
    node = gm.graph.get_attr(name)
    node.meta["val"] = value
    return node


def new_parameter(gm: GraphModule, name: str, value: torch.Tensor) -> Node:
    """Like a new constant at the graph's insertion point, but a parameter, which training changes."""
    gm.register_parameter(name, torch.nn.Parameter(value.detach().clone(), requires_grad=False))
    node = gm.graph.get_attr(name)
    node.meta["val"] = value
    return node
