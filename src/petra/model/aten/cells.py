"""Recurrent cells of an exported ATen graph as the linear layers and gates that they are.

Exact rewrites, in place. A loop over a cell is one operator for every step, which no integer kernel
knows; its two matrix products are layers like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule, Node

from petra.model.aten.graph import aten, drop_unread_constants, insert_call, shape_of


def cells_as_linear(gm: GraphModule) -> None:
    """Write LSTM, GRU and plain recurrent cells as products, sums and gates."""
    for node in list(gm.graph.nodes):
        write = _WRITERS.get(node.target) if node.op == "call_function" else None
        if write is None:
            continue
        with gm.graph.inserting_before(node):
            results = write(gm, node)
        if isinstance(results, Node):
            node.replace_all_uses_with(results)
        else:
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])
                gm.graph.erase_node(user)
        gm.graph.erase_node(node)
    drop_unread_constants(gm)


def _products(gm: GraphModule, node: Node, h: object) -> tuple[Node, Node]:
    """W x + b and U h + d of a cell called with (x, state, W, U, b, d)."""
    x, _, w_input, w_hidden, *biases = node.args
    b_input, b_hidden = biases or (None, None)
    of_input = insert_call(gm, aten.linear.default, (x, w_input, b_input), node)
    return of_input, insert_call(gm, aten.linear.default, (h, w_hidden, b_hidden), node)


def _parts(gm: GraphModule, gates: Node, count: int) -> list[Node]:
    width = int(shape_of(gates)[-1]) // count
    return [
        insert_call(gm, aten.slice.Tensor, (gates, -1, i * width, (i + 1) * width), gates)
        for i in range(count)
    ]


def _lstm(gm: GraphModule, node: Node) -> tuple[Node, Node]:
    state: Any = node.args[1]
    h, c = state
    of_input, of_hidden = _products(gm, node, h)
    i, f, g, o = _parts(gm, insert_call(gm, aten.add.Tensor, (of_input, of_hidden), node), 4)
    i, f, o = (insert_call(gm, aten.sigmoid.default, (gate,), node) for gate in (i, f, o))
    g = insert_call(gm, aten.tanh.default, (g,), node)
    kept = insert_call(gm, aten.mul.Tensor, (f, c), node)
    new = insert_call(gm, aten.mul.Tensor, (i, g), node)
    cell = insert_call(gm, aten.add.Tensor, (kept, new), node)
    squashed = insert_call(gm, aten.tanh.default, (cell,), node)
    return insert_call(gm, aten.mul.Tensor, (o, squashed), node), cell


def _gru(gm: GraphModule, node: Node) -> Node:
    h = node.args[1]
    of_input, of_hidden = (_parts(gm, gates, 3) for gates in _products(gm, node, h))
    sums = [
        insert_call(gm, aten.add.Tensor, pair, node)
        for pair in zip(of_input[:2], of_hidden[:2], strict=True)
    ]
    r, z = (insert_call(gm, aten.sigmoid.default, (gate,), node) for gate in sums)
    reset = insert_call(gm, aten.mul.Tensor, (r, of_hidden[2]), node)
    summed = insert_call(gm, aten.add.Tensor, (of_input[2], reset), node)
    proposed = insert_call(gm, aten.tanh.default, (summed,), node)
    change = insert_call(gm, aten.sub.Tensor, (h, proposed), node)
    kept = insert_call(gm, aten.mul.Tensor, (change, z), node)
    return insert_call(gm, aten.add.Tensor, (kept, proposed), node)


def _plain(activation: Any) -> Callable[[GraphModule, Node], Node]:
    def write(gm: GraphModule, node: Node) -> Node:
        pair = _products(gm, node, node.args[1])
        summed = insert_call(gm, aten.add.Tensor, pair, node)
        return insert_call(gm, activation, (summed,), node)

    return write


_WRITERS: dict[Any, Callable[[GraphModule, Node], Node | tuple[Node, Node]]] = {
    aten.lstm_cell.default: _lstm,
    aten.gru_cell.default: _gru,
    aten.rnn_tanh_cell.default: _plain(aten.tanh.default),
    aten.rnn_relu_cell.default: _plain(aten.relu.default),
}
