"""Recurrent layers that stay one operator each in a traced graph, for items of any length.

Tracing finds the shape of an operator's result. For ``aten.gru`` and its like PyTorch runs what
they are composed of, a loop over the steps, and the length becomes a number. The shapes of their
results are known without it. Packed sequences have a size that depends on values: while a model is
traced they hold the padded items, and GRU and LSTM over them are `petra.model.layers.padded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table

from petra.core.errors import ExportError
from petra.model.layers.padded import padded_gru, padded_lstm
from petra.tasks.remains import is_traced

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def operators() -> tuple[Any, ...]:
    """Those of `nn.GRU`, `nn.LSTM` and `nn.RNN` on tensors."""
    aten = torch.ops.aten
    return aten.gru.input, aten.lstm.input, aten.rnn_tanh.input, aten.rnn_relu.input


@contextmanager
def whole_recurrences() -> Iterator[None]:
    """Inside, tracing and decomposing find the shapes of `operators()` from shapes. On tensors that
    have values they compute what they always do."""
    saved = []
    for operator in operators():
        kernels, decomposition = dict(operator.py_kernels), decomposition_table.get(operator)
        saved.append((operator, kernels, decomposition))
        rule = partial(_by_shape, kernels[_COMPOSITE])
        operator.py_kernels[_COMPOSITE] = decomposition_table[operator] = rule
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, kernels, decomposition in saved:
            operator.py_kernels.clear()
            operator.py_kernels.update(kernels)
            operator._dispatch_cache.clear()
            del decomposition_table[operator]
            if decomposition is not None:
                decomposition_table[operator] = decomposition


def _by_shape(
    compute: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    hx: Tensor | Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Results of an operator called so, as tensors without values: outputs, and final states as
    `hx` is."""
    if not is_traced(x):
        options = (has_biases, num_layers, dropout, train, bidirectional, batch_first)
        return compute(x, hx, params, *options)
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    steps, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    outputs = x.new_empty(steps, batch, states[0].shape[-1] * (2 if bidirectional else 1))
    # As in memory: the kernels compute time first.
    outputs = outputs.transpose(0, 1) if batch_first else outputs
    return (outputs, *(state.new_empty(state.shape) for state in states))


# -- packed sequences ------------------------------------------------------------------------------


@dataclass
class PaddedSizes:
    """What a packed sequence has as `batch_sizes` while a model is traced; its data are then
    (steps, batch, ...).
    """

    lengths: Tensor
    steps: int
    batch: int
    _zeroed: Tensor | None = None
    _version: int = 0

    device: ClassVar[torch.device] = torch.device("cpu")

    def __getitem__(self, step: int) -> int:
        if step != 0:
            raise NotImplementedError("how many items have a step is not known while tracing")
        return self.batch

    def size(self, dim: int = 0) -> int:
        """The steps of the longest item, taking items to be padded no further than that."""
        return self.steps

    def zero_behind(self, data: Tensor) -> None:
        """Remember that these data are zero behind the ends of items."""
        self._zeroed, self._version = data, data._version

    def are_zero_behind(self, data: Tensor) -> bool:
        """Whether they are known to be, and nobody has written to them since."""
        return data is self._zeroed and data._version == self._version


@contextmanager
def padded_sequences() -> Iterator[None]:
    """Inside, torch's packed sequences hold padded items, and `nn.GRU` and `nn.LSTM` over them are
    operators on those. Whoever computes with the data of one finds (steps, batch, ...)."""
    functions: Any = torch._VF
    with ExitStack() as stack:
        for name, replacement in (
            ("_pack_padded_sequence", lambda _: _pack),
            ("_pad_packed_sequence", lambda original: partial(_pad, original)),
            ("gru", lambda original: partial(_run, original, padded_gru)),
            ("lstm", lambda original: partial(_run, original, padded_lstm)),
        ):
            stack.enter_context(_replaced(functions, name, replacement))
        for kind in (nn.RNNBase, nn.LSTM):
            stack.enter_context(_replaced(kind, "check_forward_args", _checking))
        yield


@contextmanager
def _replaced(owner: Any, name: str, replacement: Callable[[Any], Any]) -> Iterator[None]:
    original, own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, replacement(original))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def _pack(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, PaddedSizes]:
    x = x.transpose(0, 1) if batch_first else x
    return x, PaddedSizes(lengths, x.shape[0], x.shape[1])


def _pad(
    original: Callable[..., tuple[Tensor, Tensor]],
    data: Tensor,
    sizes: Tensor | PaddedSizes,
    batch_first: bool,
    value: float,
    length: int,
) -> tuple[Tensor, Tensor]:
    if not isinstance(sizes, PaddedSizes):
        return original(data, sizes, batch_first, value, length)
    if value != 0 or not sizes.are_zero_behind(data):
        steps = torch.arange(sizes.steps, device=data.device).unsqueeze(1)
        inside = steps < sizes.lengths.to(data.device)
        data = torch.where(inside.reshape(*inside.shape, *[1] * (data.ndim - 2)), data, value)
    if length != sizes.steps:
        rest = data.new_full((length - sizes.steps, *data.shape[1:]), value)
        data = torch.cat([data, rest])
    return data.transpose(0, 1) if batch_first else data, sizes.lengths


def _run(original: Callable[..., Any], padded: Callable[..., Any], *args: Any) -> Any:
    """A recurrent layer's function; over a packed sequence the second argument are its sizes."""
    sizes = args[1]
    if not isinstance(sizes, PaddedSizes):
        return original(*args)
    x, _, hx, weights, has_biases, num_layers, _, _, bidirectional = args
    states = hx if isinstance(hx, Tensor) else list(hx)
    results = padded(x, sizes.lengths, states, list(weights), has_biases, num_layers, bidirectional)
    sizes.zero_behind(results[0])
    return results


def _checking(original: Callable[..., None]) -> Callable[..., None]:
    """Whether arguments fit is checked as ever, but for those of packed sequences, whose form is
    another."""

    def check(layer: nn.RNNBase, x: Tensor, hidden: Any, sizes: Any) -> None:
        if not isinstance(sizes, PaddedSizes):
            original(layer, x, hidden, sizes)
        elif layer.mode not in ("GRU", "LSTM"):
            raise ExportError(
                f"{type(layer).__name__} cannot be traced over packed sequences, which nn.GRU and"
                " nn.LSTM can",
                hint="use one of these, or padded items and a mask",
            )

    return check
