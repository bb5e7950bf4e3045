"""Look-ups and small edits on an `onnx.GraphProto`, shared by the passes over exported files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, NodeProto, numpy_helper

Array = npt.NDArray[Any]


def reads(node: NodeProto) -> Iterator[str]:
    """Names a node reads, those of its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
            yield from (output.name for output in graph.output)


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Nodes that read each value; a graph output counts as one more, of no known operator."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in reads(node):
            readers[name].append(node)
    for output in graph.output:
        readers[output.name].append(NodeProto(op_type="GraphOutput"))
    return readers


def constants_of(graph: GraphProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def ranks(graph: GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info)
    return {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.HasField("shape")
    }


def attribute_of(node: NodeProto, name: str, default: object) -> Any:
    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )


def add_constant(graph: GraphProto, name: str, value: Array) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def rename_inputs(graph: GraphProto, renamed: dict[str, str]) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename_inputs(attribute.g, renamed)
            for inner in attribute.graphs:
                rename_inputs(inner, renamed)


def substitute(graph: GraphProto, node: NodeProto, replacement: list[NodeProto]) -> None:
    position = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(replacement):
        graph.node.insert(position + offset, new)
