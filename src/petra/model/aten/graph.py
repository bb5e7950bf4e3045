"""Reading an exported ATen graph, and changing its constants: what all rewrites share."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten

ACTIVATIONS = {
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
}
"""Activations that clip: monotone, and exact on integer codes."""

VIEWS = {
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
CONVOLUTIONS = ("aten.conv1d.", "aten.conv2d.", "aten.conv3d.")


def module_path(node: Node) -> str:
    """Path of the module a node was traced in, whichever call; '' for the model itself."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return re.sub(r"@\d+", "", next(reversed(stack.values()))[0]) if stack else ""


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
    """Shape of the tensor a node makes, the free dimension as in the traced example.

    A size that depends on the values of the data, not only on their shape, counts as 1.
    """
    return [
        int(size) if isinstance(size, int) else int(size.node.hint) if size.node.has_hint() else 1
        for size in shape_of(node)
    ]


def tensor_inputs(node: Node) -> list[Node]:
    """The nodes whose tensors a call reads; sizes computed from shapes are left out."""
    return [
        source
        for source in node.all_input_nodes
        if isinstance(source.meta.get("val"), torch.Tensor)
    ]


def readers(node: Node) -> list[Node]:
    """The users of a node that read its values, not only its shape."""
    return [user for user in node.users if user.target is not aten.sym_size.int]


def calls_weighted_layer(node: Node) -> bool:
    """Whether a node calls one of the layers that have integer kernels: convolution or linear."""
    return node.target is aten.linear.default or str(node.target).startswith(CONVOLUTIONS)


def is_float32(node: object) -> bool:
    """Whether a node makes one float32 tensor."""
    if not isinstance(node, Node):
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def in_place_calls(graph: Graph) -> list[Node]:
    """The calls that still write into one of their inputs."""
    return [node for node in graph.nodes if _is_in_place(node)]


def _is_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return schema is not None and bool(schema.is_mutable)


def written(graph: Graph) -> set[Node]:
    """Values that an in-place call changes: what it writes to, and all views of it.

    They must not be copied, as quantize and dequantize do, because the copy would not change with
    them.
    """
    found: set[Node] = set()
    for call in in_place_calls(graph):
        schema: Any = getattr(call.target, "_schema")  # noqa: B009
        arguments = zip(schema.arguments, call.args, strict=False)
        todo = [
            value
            for declared, value in arguments
            if declared.alias_info and isinstance(value, Node)
        ]
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                if _shares_memory(node) and isinstance(node.args[0], Node):
                    todo.append(node.args[0])
                todo.extend(
                    user for user in node.users if _shares_memory(user) and user.args[0] is node
                )
    return found


def _shares_memory(node: Node) -> bool:
    """Whether the result may be the memory of the first argument."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
        return False
    return node.target in VIEWS or node.target is operator.getitem or _is_in_place(node)


def batch_norm_affine(gm: GraphModule, node: Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """a, c (channels,) of a batch norm in evaluation, y = a x + c; None without statistics.

    a = weight / sqrt(var + eps), c = bias - a mean.
    """
    weight, bias, mean, var = (
        constant(gm, a) if isinstance(a, Node) else None for a in node.args[1:5]
    )
    if mean is None or var is None:
        return None
    eps: Any = node.args[7]
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def is_inference_batch_norm(node: Node) -> bool:
    """Whether a node is a batch norm with stored statistics."""
    return (
        node.op == "call_function" and node.target is aten.batch_norm.default and not node.args[5]
    )


def is_transposed(node: Node) -> bool:
    """Whether a node is a transposed convolution, whose weight counts outputs in dimension 1."""
    return str(node.target).startswith("aten.conv_transpose")


def absorbs_batch_norm(node: object) -> bool:
    """Whether the node is a convolution, or a linear layer on `(n, c)`, whose result and weights
    nothing else reads.
    """
    if not isinstance(node, Node) or node.op != "call_function" or len(readers(node)) != 1:
        return False
    if is_transposed(node):
        if argument(node, 6, "groups", 1) != 1:
            return False
    elif not calls_weighted_layer(node) or (
        node.target is aten.linear.default and len(shape_of(node)) != 2
    ):
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
    """Give a `get_attr` node another value; the tensor it read, which the traced model may share,
    is not written to.
    """
    owner, _, name = str(node.target).rpartition(".")
    holder, parameter = gm.get_submodule(owner), is_parameter(gm, node)
    delattr(holder, name)
    if parameter:
        holder.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    else:
        holder.register_buffer(name, value)


def new_buffer(gm: GraphModule, name: str, value: torch.Tensor) -> Node:
    """Register a constant and return the node that reads it, at the graph's insertion point."""
    gm.register_buffer(name, value)
    node = gm.graph.get_attr(name)
    node.meta["val"] = value
    return node


def new_parameter(gm: GraphModule, name: str, value: torch.Tensor) -> Node:
    """Like `new_buffer`, but a parameter, which training changes."""
    gm.register_parameter(name, torch.nn.Parameter(value.detach().clone(), requires_grad=False))
    node = gm.graph.get_attr(name)
    node.meta["val"] = value
    return node


def new_constant(gm: GraphModule, name: str, value: torch.Tensor, *, of: Iterable[Node]) -> Node:
    """A constant that was computed of others: a parameter, which training changes, if one of those
    is; of buffers, such as a mask, a buffer."""
    trained = any(is_parameter(gm, node) for node in of)
    return new_parameter(gm, name, value) if trained else new_buffer(gm, name, value)


def is_parameter(gm: GraphModule, node: Node) -> bool:
    """Whether a `get_attr` node reads a parameter."""
    owner, _, name = str(node.target).rpartition(".")
    return isinstance(getattr(gm.get_submodule(owner), name), torch.nn.Parameter)


def drop_unread_constants(gm: GraphModule) -> None:
    """Forget constants that no call reads any more, and take the graph into use."""
    for node in list(gm.graph.nodes):
        if node.op == "get_attr" and not node.users:
            gm.graph.erase_node(node)
    gm.graph.lint()
    gm.recompile()


def insert_call(gm: GraphModule, target: Any, args: tuple[Any, ...], like: Node) -> Node:
    """A call at the graph's insertion point, with its shape, and the origin of the node `like`."""
    node = gm.graph.call_function(target, args)
    mode = next(
        (
            source.meta["val"].fake_mode
            for source in node.all_input_nodes
            if isinstance(source.meta.get("val"), FakeTensor)
        ),
        None,
    )

    def value(source: Node) -> Any:
        tensor = source.meta["val"]
        real = isinstance(tensor, torch.Tensor) and not isinstance(tensor, FakeTensor)
        return mode.from_tensor(tensor) if real and mode is not None else tensor

    node.meta = {**like.meta, "val": target(*map_arg(args, value))}
    return node
