"""Recurrent layers over padded items, as operators that a traced graph can hold.

A packed sequence has as many rows as its items have steps together, which no traced graph knows.
These operators take the padded items with their lengths, and compute what `nn.GRU` and `nn.LSTM` do
for the packed ones: no item's result depends on how far it is padded, backward directions begin at
its own end, and outputs behind it are zero. `petra.runtimes.onnx_recurrent` writes them as ONNX.

x: (steps, n, in), time first whatever the layer's own order. lengths: (n,) int64 on the CPU, 1 to
steps. hx: (layers * directions, n, hidden), of the LSTM the states h and c. weights: as the layers
keep them, flat. Returned are outputs (steps, n, directions * hidden) and final states like `hx`.
There is no dropout: they stand in models that are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_OPTIONS = "Tensor[] weights, bool has_biases, int num_layers, bool bidirectional"


@torch.library.custom_op(
    "petra::padded_gru",
    mutates_args=(),
    schema=f"(Tensor x, Tensor lengths, Tensor hx, {_OPTIONS}) -> (Tensor, Tensor)",
)
def padded_gru(
    x: Tensor,
    lengths: Tensor,
    hx: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor]:
    """A GRU; all arguments as above. Costs a copy of the items more than the packed form."""
    out, state = packed_results(
        torch.gru, x, lengths, [hx], (weights, has_biases, num_layers, bidirectional)
    )
    return out, state


@torch.library.custom_op(
    "petra::padded_lstm",
    mutates_args=(),
    schema=f"(Tensor x, Tensor lengths, Tensor[] hx, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
)
def padded_lstm(
    x: Tensor,
    lengths: Tensor,
    hx: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM; `hx` are h and c."""
    out, h, c = packed_results(
        torch.lstm, x, lengths, list(hx), (weights, has_biases, num_layers, bidirectional)
    )
    return out, h, c


Options = tuple[Sequence[Tensor], bool, int, bool]


def packed_results(
    function: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    lengths: Tensor,
    states: list[Tensor],
    options: Options,
) -> tuple[Tensor, ...]:
    """What torch's `function` makes of the packed items, padded again."""
    weights, has_biases, num_layers, bidirectional = options
    # It wants the longest item first.
    descending, order = lengths.cpu().sort(descending=True, stable=True)
    order = order.to(x.device)
    data, sizes = torch._pack_padded_sequence(x.index_select(1, order), descending, False)
    first: Any = [state.index_select(1, order) for state in states]
    out, *final = function(
        data,
        sizes,
        first if len(first) > 1 else first[0],
        list(weights),
        has_biases,
        num_layers,
        0.0,
        False,
        bidirectional,
    )
    padded, _ = torch._pad_packed_sequence(out, sizes, False, 0.0, x.shape[0])
    back = order.argsort()
    return tuple(result.index_select(1, back) for result in (padded, *final))


def _shapes(x: Tensor, states: Sequence[Tensor], bidirectional: bool) -> tuple[Tensor, ...]:
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return (
        x.new_empty(x.shape[0], x.shape[1], width),
        *(state.new_empty(state.shape) for state in states),
    )


@padded_gru.register_fake
def _(x: Tensor, lengths: Tensor, hx: Tensor, *options: Any) -> tuple[Tensor, ...]:
    return _shapes(x, [hx], options[-1])


@padded_lstm.register_fake
def _(x: Tensor, lengths: Tensor, hx: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    return _shapes(x, hx, options[-1])


# -- gradients -------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, lengths, hx, weights, *ctx.options = inputs
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    ctx.states = len(states)
    ctx.save_for_backward(x, lengths, *states, *weights)


def _gradients(
    function: Callable[..., tuple[Tensor, ...]], ctx: Any, given: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """Of x, of the states and of the weights: the forward pass is run again."""
    x, lengths, *rest = ctx.saved_tensors
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (x, *rest)]
        states, weights = leaves[1 : 1 + ctx.states], leaves[1 + ctx.states :]
        results = packed_results(function, leaves[0], lengths, states, (weights, *ctx.options))
    known = [(r, g) for r, g in zip(results, given, strict=True) if g is not None]
    found = torch.autograd.grad(
        [r for r, _ in known], leaves, [g for _, g in known], allow_unused=True
    )
    return found[0], list(found[1 : 1 + ctx.states]), list(found[1 + ctx.states :])


def _gru_backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    to_x, to_states, to_weights = _gradients(torch.gru, ctx, given)
    return to_x, None, to_states[0], to_weights, None, None, None


def _lstm_backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    to_x, to_states, to_weights = _gradients(torch.lstm, ctx, given)
    return to_x, None, to_states, to_weights, None, None, None


padded_gru.register_autograd(_gru_backward, setup_context=_keep)
padded_lstm.register_autograd(_lstm_backward, setup_context=_keep)


@register_flop_formula([torch.ops.petra.padded_gru, torch.ops.petra.padded_lstm])
def _flops(x: Any, lengths: Any, hx: Any, weights: Any, *args: Any, **kwargs: Any) -> int:
    """Two for every multiply-accumulate of every step, padded ones too. Shapes come in place of
    tensors."""
    matrices = sum(int(shape[0]) * int(shape[1]) for shape in weights if len(shape) == 2)
    return 2 * int(x[0]) * int(x[1]) * matrices
