"""Recurrent layers in ONNX: its operators LSTM, GRU and RNN, one for every layer of a stack.

The exporter writes a whole stack as one node of a private domain (`onnx_private`), in whose place
`write_recurrence` puts them. What is constant is reordered here; weights that are codes stay codes.
Lengths, where items differ in them, make results independent of the padding: the backward direction
begins at an item's own end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto

from petra.runtimes.onnx_gates import (
    GATES,
    Stack,
    first_state,
    joined,
    quantization,
    rows,
    stacked,
)
from petra.runtimes.onnx_graph import add_constant, attribute_of
from petra.runtimes.onnx_private import private

RECURRENCE = "Recurrence"

make = onnx.helper.make_node


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """Operators of recurrent layers -> what writes their private node."""
    import torch

    import petra.model.layers.dynamic_lstm  # noqa: F401  (registers the operators)

    aten, own = torch.ops.aten, torch.ops.petra
    return {
        aten.gru.input: _plain("GRU"),
        aten.lstm.input: _plain("LSTM"),
        aten.rnn_tanh.input: _plain("RNN", "Tanh"),
        aten.rnn_relu.input: _plain("RNN", "Relu"),
        own.padded_gru.default: _padded("GRU"),
        own.padded_lstm.default: _padded("LSTM"),
        own.dynamic_lstm.default: _dynamic_lstm,
    }


def _plain(kind: str, activation: str = "") -> Callable[..., object]:
    """For aten's operators, which take items of one length."""

    def write(
        x: Any,
        hx: Any,
        params: Any,
        has_biases: Any,
        num_layers: Any,
        dropout: Any,
        train: Any,
        bidirectional: Any,
        batch_first: Any,
    ) -> Any:
        return _node(
            kind,
            (x, *(hx if kind == "LSTM" else [hx]), *params),
            activation=activation,
            lengths=0,
            biases=int(has_biases),
            layers=num_layers,
            directions=2 if bidirectional else 1,
            batch_first=int(batch_first),
        )

    return write


def _padded(kind: str) -> Callable[..., object]:
    """For the operators of `petra.model.layers.padded`, which take lengths."""

    def write(
        x: Any,
        lengths: Any,
        hx: Any,
        weights: Any,
        has_biases: Any,
        num_layers: Any,
        bidirectional: Any,
    ) -> Any:
        return _node(
            kind,
            (x, lengths, *(hx if kind == "LSTM" else [hx]), *weights),
            activation="",
            lengths=1,
            biases=int(has_biases),
            layers=num_layers,
            directions=2 if bidirectional else 1,
            batch_first=0,
        )

    return write


def _dynamic_lstm(
    x: Any,
    lengths: Any,
    hx: Any,
    codes: Any,
    scales: Any,
    biases: Any,
    num_layers: Any,
    bidirectional: Any,
) -> Any:
    """For the operator of `petra.model.layers.dynamic_lstm`: codes in the place of weights, and
    their scales behind them."""
    flat: list[Any] = []
    for place in range(0, len(codes), 2):
        flat += [*codes[place : place + 2], *biases[place : place + 2]]
    return _node(
        "LSTM",
        (x, *([] if lengths is None else [lengths]), *hx, *flat, *scales),
        activation="",
        lengths=int(lengths is not None),
        biases=int(bool(biases)),
        layers=num_layers,
        directions=2 if bidirectional else 1,
        batch_first=0,
        integer=1,
    )


def _node(kind: str, values: Sequence[Any], **attributes: int | str) -> Any:
    """A private node that returns outputs, final h and, of an LSTM, final c."""
    outputs = 3 if kind == "LSTM" else 2
    return private(RECURRENCE, outputs=outputs, attributes={"kind": kind, **attributes})(
        *values, kind=kind, **attributes
    )


def write_recurrence(graph: GraphProto, node: NodeProto) -> list[NodeProto]:
    """The standard operators that compute what a private node stands for."""
    stack = Stack.of(graph, node)
    prefix, batch_first = stack.prefix, attribute_of(node, "batch_first", 0)
    out, *wanted = [*node.output, "", "", ""][: 1 + len(stack.states)]
    out = out or f"{prefix}_unread"
    nodes, x, lengths = [], stack.x, ""
    if batch_first:
        x = f"{prefix}_steps"
        nodes.append(make("Transpose", [stack.x], [x], perm=[1, 0, 2]))
    if stack.lengths:
        lengths = f"{prefix}_lengths"
        nodes.append(make("Cast", [stack.lengths], [lengths], to=TensorProto.INT32))
    finals: list[list[str]] = []
    for layer in range(stack.layers):
        y = out if layer == stack.layers - 1 and not batch_first else f"{prefix}_{layer}"
        found = [f"{y}_state_{i}" for i in range(len(wanted))]
        if stack.layers == 1:
            found = [name or new for name, new in zip(wanted, found, strict=True)]
        finals.append(found)
        nodes += _layer(stack, layer, x, lengths, y, found)
        x = y
    if batch_first:
        nodes.append(make("Transpose", [x], [out], perm=[1, 0, 2]))
    for i, name in enumerate(wanted if stack.layers > 1 else ()):
        if name:
            nodes.append(make("Concat", [states[i] for states in finals], [name], axis=0))
    return nodes


def _layer(
    stack: Stack, layer: int, x: str, lengths: str, y: str, finals: list[str]
) -> list[NodeProto]:
    """One layer: x (steps, batch, in) -> y (steps, batch, directions * hidden)."""
    nodes: list[NodeProto] = []
    names = [x]
    for which in range(2):
        name, made = stacked(
            stack, stack.of_layer(layer, which), f"{stack.prefix}_{layer}_w{which}"
        )
        names.append(name)
        nodes += made
    biases = ""
    if stack.biases:
        of_input, of_state = (stack.of_layer(layer, which) for which in (2, 3))
        halves = [
            stacked(stack, part, f"{stack.prefix}_{layer}_b{i}")
            for i, part in enumerate((of_input, of_state))
        ]
        biases, made = joined(stack, [name for name, _ in halves], f"{stack.prefix}_{layer}_b")
        nodes += [n for _, part in halves for n in part] + made
    states = []
    for i, state in enumerate(stack.states):
        name, made = first_state(stack, state, layer, f"{stack.prefix}_{layer}_first_{i}")
        states.append(name)
        nodes += made
    inputs = [*names, biases, lengths, *states]
    if stack.scales:
        inputs += ["", *quantization(stack, layer)]
    nodes += _operator(stack, inputs, [f"{y}_apart", *finals])
    if stack.directions == 1:
        axis = add_constant(stack.graph, f"{y}_axis", np.array([1]))
        return [*nodes, make("Squeeze", [f"{y}_apart", axis], [y])]
    shape = add_constant(stack.graph, f"{y}_shape", np.array([0, 0, -1]))
    together = make("Transpose", [f"{y}_apart"], [f"{y}_together"], perm=[0, 2, 1, 3])
    return [*nodes, together, make("Reshape", [f"{y}_together", shape], [y])]


def _operator(stack: Stack, inputs: list[str], outputs: list[str]) -> list[NodeProto]:
    while not inputs[-1]:
        inputs = inputs[:-1]
    hidden = rows(stack, stack.weights[0]) // len(GATES[stack.kind])
    options: dict[str, Any] = {"hidden_size": hidden}
    if stack.directions == 2:
        options["direction"] = "bidirectional"
    if stack.kind == "GRU":
        options["linear_before_reset"] = 1  # the reset gate scales U h + b, as in PyTorch
    if stack.activation:
        options["activations"] = [stack.activation] * stack.directions
    if stack.scales:
        return [make("DynamicQuantizeLSTM", inputs, outputs, domain="com.microsoft", **options)]
    return [make(stack.kind, inputs, outputs, **options)]
