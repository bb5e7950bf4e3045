"""ONNX's recurrent operators as PyTorch's layers, whose gates stand in another order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.imported.values import Unreadable, Value, tensor

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""ONNX's gates (iofc, zrh) as PyTorch lists them (ifgo, rzn)."""

_USUAL = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}


class Recurrent(nn.Module):
    """A recurrent layer with ONNX's axes: (steps, batch, inputs) in, or with `layout` 1 (batch,
    steps, inputs); out (steps, directions, batch, hidden), and the last states.
    """

    def __init__(self, layer: nn.RNNBase, *, layout: int, memory: bool) -> None:
        super().__init__()
        self.layer = layer
        self.ways, self.hidden = 1 + layer.bidirectional, layer.hidden_size
        self.layout, self.memory = layout, memory

    def forward(self, x: Tensor, h: Value = None, c: Value = None) -> tuple[Tensor, ...]:
        first = [None if s is None else tensor(s) for s in (h, c)]
        if self.layout:
            x = x.transpose(0, 1)
            first = [None if s is None else s.transpose(0, 1).contiguous() for s in first]
        out, state = self.layer(x, self._state(x, *first))
        y = out.unflatten(2, (self.ways, self.hidden)).transpose(1, 2)
        last = state if self.memory else (state,)
        if self.layout:
            return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in last))
        return (y, *last)

    def _state(self, x: Tensor, h: Tensor | None, c: Tensor | None) -> Any:
        if h is None and c is None:
            return None
        zeros = x.new_zeros(self.ways, x.shape[1], self.hidden)
        h = zeros if h is None else h
        return (h, zeros if c is None else c) if self.memory else h


def _made(op: str) -> Callable[..., nn.Module]:
    def make(attributes: Mapping[str, Any], W: Tensor, R: Tensor, B: Tensor | None) -> nn.Module:
        ways, rows, inputs = W.shape
        gates, hidden = len(_ORDER[op]), R.shape[2]
        options = _checked(op, attributes, ways)
        if rows != gates * hidden:
            raise Unreadable(f"weights of the shape {tuple(W.shape)}")
        layer = _CLASSES[op](inputs, hidden, bias=B is not None, **options)
        for way in range(ways):
            end = "_l0" + ("_reverse" if way else "")
            pairs = [("weight_ih", W[way]), ("weight_hh", R[way])]
            if B is not None:
                pairs += zip(("bias_ih", "bias_hh"), B[way].chunk(2), strict=True)
            for name, value in pairs:
                ordered = torch.cat([value.chunk(gates)[i] for i in _ORDER[op]])
                getattr(layer, f"{name}{end}").data.copy_(ordered)
        return Recurrent(layer, layout=attributes.get("layout", 0), memory=op == "LSTM")

    return make


def _checked(op: str, attributes: Mapping[str, Any], ways: int) -> dict[str, Any]:
    """What PyTorch's layer is made with. Raises Unreadable for what it does not do."""
    way = attributes.get("direction", "forward")
    if way == "reverse" or ways != (2 if way == "bidirectional" else 1):
        raise Unreadable(f"the direction {way!r}")
    if attributes.get("clip") or attributes.get("input_forget", 0):
        raise Unreadable("clipped or coupled gates")
    if op == "GRU" and not attributes.get("linear_before_reset", 0):
        raise Unreadable("a GRU whose reset comes before the product (linear_before_reset=0)")
    options: dict[str, Any] = {"bidirectional": way == "bidirectional"}
    asked = [str(a).capitalize() for a in attributes.get("activations") or _USUAL[op] * ways]
    if op == "RNN" and asked == ["Relu"] * ways:
        return options | {"nonlinearity": "relu"}
    if asked != _USUAL[op] * ways:
        raise Unreadable(f"the activations {', '.join(asked)}")
    return options


_CLASSES: Mapping[str, Callable[..., nn.RNNBase]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
RECURRENT = {op: _made(op) for op in _CLASSES}
