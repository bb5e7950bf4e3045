"""An LSTM in integers, and the operator that it computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from petra.model.layers.padded import packed_results
from petra.model.layers.quantized import Codes, decode, integer_product
from petra.model.layers.stored_recurrent import StoredRecurrent


@torch.library.custom_op(
    "petra::dynamic_lstm",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor? lengths, Tensor[] hx, Tensor[] codes, Tensor[] scales,"
        " Tensor[] biases, int num_layers, bool bidirectional) -> (Tensor, Tensor, Tensor)"
    ),
)
def dynamic_lstm(
    x: Tensor,
    lengths: Tensor | None,
    hx: Sequence[Tensor],
    codes: Sequence[Tensor],
    scales: Sequence[Tensor],
    biases: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM whose products are integers: inputs of a layer are quantized to u8 with one range for
    all steps and items, its state anew at each step with one range for all items.

    x, lengths, hx and results as for `petra.model.layers.padded.padded_lstm`; without lengths all
    items have the length of x. codes, scales, biases: of the input and of the state, (4 hidden, in)
    and (4 hidden, hidden) int8, (4 hidden, 1) and (4 hidden,), for each direction of each layer.

    What ONNX Runtime's DynamicQuantizeLSTM computes on one thread, but for its approximations of
    sigmoid and tanh. An item's result depends slightly on what else is in the batch.
    """
    steps, batch = x.shape[:2]
    if lengths is None:
        lengths = torch.full((batch,), steps)
    time = torch.arange(steps, device=x.device).unsqueeze(1)
    ends = lengths.to(x.device)
    inside = time < ends
    mirrored = torch.where(inside, ends - 1 - time, time)
    finals: list[tuple[Tensor, Tensor]] = []
    for _ in range(num_layers):
        outputs = []
        for direction in range(2 if bidirectional else 1):
            place = len(finals)
            pair = slice(2 * place, 2 * place + 2)
            bias = sum(biases[pair]) if biases else torch.zeros(())
            first = (hx[0][place], hx[1][place])
            order = mirrored if direction else None
            out, final = _direction(x, order, inside, codes[pair], scales[pair], bias, first)
            outputs.append(out)
            finals.append(final)
        x = torch.cat(outputs, 2)
    h, c = (torch.stack(states) for states in zip(*finals, strict=True))
    return x.contiguous(), h, c


def _direction(
    x: Tensor,
    order: Tensor | None,
    inside: Tensor,
    codes: Sequence[Tensor],
    scales: Sequence[Tensor],
    bias: Tensor | int,
    first: tuple[Tensor, Tensor],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Outputs (steps, n, hidden), zero behind the ends, and the states at the ends. order: the
    step that comes at each place, (steps, n), where it is not that place's own."""
    x = x if order is None else _reordered(x, order)
    (of_input, of_state), (by_input, by_state) = codes, scales
    gates, of_state = integer_product(x, of_input, by_input), of_state.float()
    h, c = first
    last, outputs = h, []
    for step, here in zip(gates, inside.unsqueeze(2), strict=True):
        i, f, g, o = (step + integer_product(h, of_state, by_state) + bias).chunk(4, 1)
        c = torch.where(here, f.sigmoid() * c + i.sigmoid() * g.tanh(), c)
        h = torch.where(here, o.sigmoid() * c.tanh(), 0.0)
        last = torch.where(here, h, last)
        outputs.append(h)
    out = torch.stack(outputs)
    return out if order is None else _reordered(out, order), (last, c)


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(0, order.unsqueeze(2).expand_as(x))


@dynamic_lstm.register_fake
def _(
    x: Tensor, lengths: Tensor | None, hx: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    h, c = hx
    width = h.shape[-1] * (2 if rest[-1] else 1)
    out = x.new_empty(x.shape[0], x.shape[1], width)
    return out, h.new_empty(h.shape), c.new_empty(c.shape)


# -- gradients -------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, lengths, hx, codes, scales, biases, *ctx.options = inputs
    ctx.matrices, ctx.lengths = len(codes), lengths
    ctx.save_for_backward(x, *hx, *codes, *scales, *biases)


def _backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    """Of x, first states and biases, with the weights as floats; rounding lets them pass."""
    x, h, c, *rest = ctx.saved_tensors
    n = ctx.matrices
    weights = [decode(q, s) for q, s in zip(rest[:n], rest[n : 2 * n], strict=True)]
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (x, h, c, *rest[2 * n :])]
        biases = leaves[3:]
        flat: list[Tensor] = []
        for place in range(0, n, 2):
            flat += [*weights[place : place + 2], *biases[place : place + 2]]
        lengths = ctx.lengths
        if lengths is None:
            lengths = torch.full((x.shape[1],), x.shape[0])
        options = (flat, bool(biases), *ctx.options)
        results = packed_results(torch.lstm, leaves[0], lengths, leaves[1:3], options)
    known = [(r, g) for r, g in zip(results, given, strict=True) if g is not None]
    found = torch.autograd.grad(
        [r for r, _ in known], leaves, [g for _, g in known], allow_unused=True
    )
    none: list[None] = [None] * n
    return found[0], None, list(found[1:3]), none, none, list(found[3:]), None, None


dynamic_lstm.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.petra.dynamic_lstm)
def _flops(x: Any, lengths: Any, hx: Any, codes: Any, *args: Any, **kwargs: Any) -> int:
    """Two for every multiply-accumulate. Shapes come in place of tensors."""
    return 2 * int(x[0]) * int(x[1]) * sum(int(shape[0]) * int(shape[1]) for shape in codes)


# -- the layer -------------------------------------------------------------------------------------


class DynamicQuantizedLSTM(StoredRecurrent):
    """An `nn.LSTM` in integers (`dynamic_lstm`), called as it is. It drops nothing out."""

    def __init__(self, layer: nn.RNNBase, stored: Mapping[str, Codes]) -> None:
        """layer: an `nn.LSTM`. stored: codes of all its weights. Raises ValueError where some are
        missing, and for a layer with projections."""
        super().__init__(layer, stored)
        self.coded = tuple(name for name in self.order if name.startswith("weight"))
        if self.proj_size or set(self.coded) != set(stored):
            raise ValueError("an LSTM in integers has codes for all weights, and no projections")

    def _run(
        self, data: tuple[Tensor, ...], states: list[Tensor], options: tuple[Any, ...]
    ) -> tuple[Tensor, ...]:
        if len(data) == 1:
            x = data[0].transpose(0, 1) if self.batch_first else data[0]
            out, *final = self._integers(x, None, states)
            return out.transpose(0, 1) if self.batch_first else out, *final
        packed, sizes = data
        # As torch's functions, which stand for others while a model is traced.
        functions: Any = torch._VF
        x, lengths = functions._pad_packed_sequence(packed, sizes, False, 0.0, sizes.size(0))
        out, *final = self._integers(x, lengths, states)
        return functions._pack_padded_sequence(out, lengths, False)[0], *final

    def _integers(
        self, x: Tensor, lengths: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, ...]:
        biases = [self._parameters[name] for name in self.order if name.startswith("bias")]
        result: tuple[Tensor, ...] = dynamic_lstm(
            x,
            lengths,
            states,
            [self._parameters[f"{name}_codes"] for name in self.coded],
            [self._buffers[f"{name}_scale"] for name in self.coded],
            biases,
            self.num_layers,
            self.bidirectional,
        )
        return result
