"""What a recurrent layer's private node says, and its weights and first states as ONNX has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto

from petra.core.errors import ExportError
from petra.runtimes.onnx_graph import Array, add_constant, attribute_of, constants_of, producers

GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2), "RNN": (0,)}
"""ONNX's gates as places among PyTorch's: z r h of r z n, i o f c of i f g o."""

_MOVES = ("Expand", "Reshape", "Slice", "Cast", "Identity", "Transpose", "Unsqueeze", "Squeeze")

make = onnx.helper.make_node


@dataclass(frozen=True)
class Stack:
    """What a private node says, and the graph around it.

    weights: names, for each layer and in it for each direction of the input, of the state, and
    where there are `biases` theirs. scales: those of the weights, where they are codes and the
    arithmetic is in integers. prefix: what names that are new begin with.
    """

    graph: GraphProto
    constants: dict[str, Array]
    producer: dict[str, NodeProto]
    kind: str
    activation: str
    layers: int
    directions: int
    biases: bool
    x: str
    lengths: str
    states: tuple[str, ...]
    weights: tuple[str, ...]
    scales: tuple[str, ...]
    prefix: str

    @classmethod
    def of(cls, graph: GraphProto, node: NodeProto) -> Stack:
        kind = attribute_of(node, "kind", b"").decode()
        lengths, states = attribute_of(node, "lengths", 0), 2 if kind == "LSTM" else 1
        layers, directions = attribute_of(node, "layers", 1), attribute_of(node, "directions", 1)
        x, *names = node.input
        first, end = lengths + states, len(names)
        if attribute_of(node, "integer", 0):
            end -= 2 * layers * directions
        stack = cls(
            graph,
            constants_of(graph),
            producers(graph),
            kind,
            attribute_of(node, "activation", b"").decode(),
            layers,
            directions,
            bool(attribute_of(node, "biases", 1)),
            x,
            names[0] if lengths else "",
            tuple(names[lengths:first]),
            tuple(names[first:end]),
            tuple(names[end:]),
            next(f"{name}_rnn" for name in node.output if name),
        )
        if len(stack.weights) != stack.layers * stack.directions * stack.per_direction:
            raise ExportError(
                "an LSTM with projections has no operator in ONNX",
                operator="aten.lstm.input",
                hint="make it without proj_size, or exclude the runtimes that need ONNX",
            )
        return stack

    @property
    def per_direction(self) -> int:
        return 4 if self.biases else 2

    def of_layer(self, layer: int, which: int) -> list[str]:
        """Weights of one kind, for each direction."""
        first = layer * self.directions * self.per_direction + which
        return [self.weights[first + d * self.per_direction] for d in range(self.directions)]


def stacked(stack: Stack, names: Sequence[str], name: str) -> tuple[str, list[NodeProto]]:
    """(directions, gates * hidden, ...) of one weight for each direction, (gates * hidden, ...),
    with the gates in ONNX's order; and the nodes that make it. The operator in integers has
    matrices transposed.
    """
    order, constants = GATES[stack.kind], stack.constants
    if all(one in constants for one in names):
        value = np.stack([_ordered(constants[one], order) for one in names])
        if stack.scales and value.ndim > 2:
            value = np.ascontiguousarray(value.transpose(0, 2, 1))
        return add_constant(stack.graph, name, value), []
    coded = [_codes(stack, one) for one in names]
    if all(coded):
        return name, list(_decoded(stack, [c for c in coded if c], name))
    places = _ordered(np.arange(rows(stack, names[0])), order)
    index = add_constant(stack.graph, f"{name}_rows", places)
    first = add_constant(stack.graph, f"{name}_first", np.array([0]))
    nodes, each = [], [f"{name}_{i}" for i in range(len(names))]
    for one, new in zip(names, each, strict=True):
        nodes.append(make("Gather", [one, index], [f"{new}_flat"], axis=0))
        nodes.append(make("Unsqueeze", [f"{new}_flat", first], [new]))
    return name, [*nodes, make("Concat", each, [name], axis=0)]


def quantization(stack: Stack, layer: int) -> list[str]:
    """Scales and zero points of the weights of the input and of the state, (directions, gates *
    hidden) each."""
    names, order = [], GATES[stack.kind]
    for which, what in enumerate(("input", "state")):
        places = [2 * (layer * stack.directions + d) + which for d in range(stack.directions)]
        scales = [stack.constants[stack.scales[place]].reshape(-1) for place in places]
        value = np.stack([_ordered(scale, order) for scale in scales])
        prefix = f"{stack.prefix}_{layer}_{what}"
        names.append(add_constant(stack.graph, f"{prefix}_scale", value))
        names.append(add_constant(stack.graph, f"{prefix}_zero", np.zeros(value.shape, np.int8)))
    return names


def _ordered(value: Array, order: Sequence[int]) -> Array:
    parts = np.split(value, len(order))
    return np.concatenate([parts[place] for place in order])


def _codes(stack: Stack, name: str) -> tuple[str, str] | None:
    """Codes and scale ('' for none) of a weight that is decoded from constants."""
    node = stack.producer.get(name)
    if node is None or node.op_type != "Decode":
        return None
    codes, scale = node.input[0], node.input[1] if len(node.input) > 1 else ""
    held = codes in stack.constants and (not scale or scale in stack.constants)
    return (codes, scale) if held else None


def _decoded(stack: Stack, coded: Sequence[tuple[str, str]], name: str) -> Iterator[NodeProto]:
    """Codes stacked and ordered, times their scales."""
    order, constants = GATES[stack.kind], stack.constants
    codes = np.stack([_ordered(constants[one], order) for one, _ in coded])
    add_constant(stack.graph, f"{name}_codes", codes)
    if not coded[0][1]:
        yield make("Cast", [f"{name}_codes"], [name], to=TensorProto.FLOAT)
        return
    scale = np.stack([_ordered(constants[one], order) for _, one in coded])
    add_constant(stack.graph, f"{name}_scale", scale)
    yield make("Cast", [f"{name}_codes"], [f"{name}_float"], to=TensorProto.FLOAT)
    yield make("Mul", [f"{name}_float", f"{name}_scale"], [name])


def joined(stack: Stack, names: Sequence[str], name: str) -> tuple[str, list[NodeProto]]:
    """Biases of the input and of the state, (directions, gates * hidden) each, side by side."""
    added = {tensor.name: tensor for tensor in stack.graph.initializer if tensor.name in names}
    if len(added) == len(names):
        value = np.concatenate([onnx.numpy_helper.to_array(added[one]) for one in names], axis=1)
        return add_constant(stack.graph, name, value), []
    return name, [make("Concat", list(names), [name], axis=1)]


def first_state(stack: Stack, state: str, layer: int, name: str) -> tuple[str, list[NodeProto]]:
    """(directions, batch, hidden) of the first states of all layers; '' for zeros, which the
    operators take anyway."""
    if _is_zero(stack, state):
        return "", []
    if stack.layers == 1:
        return state, []
    first, end = layer * stack.directions, (layer + 1) * stack.directions
    bounds = [
        add_constant(stack.graph, f"{name}_{what}", np.array([value]))
        for what, value in (("start", first), ("end", end), ("axis", 0))
    ]
    return name, [make("Slice", [state, *bounds], [name])]


def _is_zero(stack: Stack, name: str) -> bool:
    """Whether a value is zeros, as far as the nodes that make it tell."""
    if name in stack.constants:
        return not stack.constants[name].any()
    node = stack.producer.get(name)
    if node is None:
        return False
    if node.op_type in ("Constant", "ConstantOfShape"):
        value = attribute_of(node, "value", None)
        if value is None:
            return node.op_type == "ConstantOfShape"
        return not onnx.numpy_helper.to_array(value).any()
    return node.op_type in _MOVES and _is_zero(stack, node.input[0])


def rows(stack: Stack, name: str) -> int:
    """Rows of a weight: gates * hidden."""
    coded = _codes(stack, name)
    constant = stack.constants.get(coded[0] if coded else name)
    if constant is not None:
        return len(constant)
    for value in stack.graph.value_info:
        if value.name == name:
            return int(value.type.tensor_type.shape.dim[0].dim_value)
    raise ExportError(
        "the size of a recurrent layer's weight is not known",
        hint="let the layer hold its weights itself",
    )
