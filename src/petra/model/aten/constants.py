"""Computing once what an exported ATen graph computes from its parameters alone.

Weights are standardised, normalised, scaled by a gain, transposed or put together from pieces, in
every forward pass and always with the same result. Integer kernels know layers with one constant
weight only, so this comes before all other rewrites; like those, it changes the graph in place and
keeps its output up to float rounding.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from petra.model.aten.graph import (
    calls_weighted_layer,
    constant,
    drop_unread_constants,
    is_transposed,
    new_constant,
    shape_of,
    written,
)

MOST_ELEMENTS = 2**26
"""Larger tensors are not computed here: a quarter of a gigabyte in float32."""


def fold_constants(gm: GraphModule) -> None:
    """Replace what depends on parameters and buffers alone by its value, where that takes no more
    room than they do, or is the weight of a layer."""
    values = _values(gm)
    folded = {node for node in values if node.op == "call_function" and _pays(node, values, gm)}
    for node in list(gm.graph.nodes):
        if node not in folded or all(user in folded for user in node.users):
            continue
        with gm.graph.inserting_before(node):
            name, sources = f"_{node.name}_folded", _constants_behind(node)
            new = new_constant(gm, name, values[node], of=sources)
        new.meta = {**node.meta, "val": new.meta["val"]}
        for user in [user for user in node.users if user not in folded]:
            user.replace_input_with(node, new)
    for node in reversed(list(values)):
        if node.op == "call_function" and not node.users:
            gm.graph.erase_node(node)
    drop_unread_constants(gm)


def _values(gm: GraphModule) -> dict[Node, Any]:
    """Every node whose value no input has a part in, with that value."""
    changed = written(gm.graph)
    known: dict[Node, Any] = {}
    for node in gm.graph.nodes:
        if node in changed:
            continue
        if node.op == "get_attr":
            value = constant(gm, node)
            if value is not None:
                known[node] = value
        elif _is_pure(node) and all(source in known for source in node.all_input_nodes):
            function: Any = node.target
            with torch.no_grad():
                known[node] = function(
                    *map_arg(node.args, known.__getitem__),
                    **map_arg(node.kwargs, known.__getitem__),
                )
    return known


def _is_pure(node: Node) -> bool:
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return False
    sizes = [size for size in shape_of(node) if isinstance(size, int)]
    fixed = len(sizes) == len(shape_of(node))
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    return fixed and not random and torch.Size(sizes).numel() <= MOST_ELEMENTS


def _pays(node: Node, values: dict[Node, Any], gm: GraphModule) -> bool:
    value = values[node]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    sources = _constants_behind(node)
    held = sum(constant_bytes(gm, source) for source in sources)
    return bool(sources) and (
        value.nbytes <= held or any(_is_weight_of(node, u) for u in node.users)
    )


def _is_weight_of(node: Node, user: Node) -> bool:
    layer = calls_weighted_layer(user) or is_transposed(user)
    return layer and len(user.args) > 1 and user.args[1] is node


def _constants_behind(node: Node) -> set[Node]:
    found: set[Node] = set()
    seen, todo = {node}, [node]
    while todo:
        here = todo.pop()
        if here.op == "get_attr":
            found.add(here)
        for source in here.all_input_nodes:
            if source not in seen:
                seen.add(source)
                todo.append(source)
    return found


def constant_bytes(gm: GraphModule, node: Node) -> int:
    """Bytes of the tensor that a `get_attr` node reads."""
    value = constant(gm, node)
    return 0 if value is None else value.nbytes


def from_parameters(model: GraphModule) -> set[Node]:
    """The nodes whose values come from parameters and buffers, and from no input."""
    found: set[Node] = set()
    fed: set[Node] = set()
    for node in model.graph.nodes:
        if node.op == "placeholder" or not fed.isdisjoint(node.all_input_nodes):
            fed.add(node)
        elif node.op == "get_attr" or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found
