"""Recurrent layers whose weights are codes, called as `nn.LSTM`, `nn.GRU` and `nn.RNN` are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from petra.model.layers.quantized import Codes, decode


class StoredRecurrent(nn.Module, ABC):
    """A recurrent layer with its weights, or some of them, stored as codes. How it computes is left
    to `_run`.
    """

    def __init__(self, layer: nn.RNNBase, stored: Mapping[str, Codes]) -> None:
        super().__init__()
        self.mode, self.proj_size = layer.mode, layer.proj_size
        self.input_size, self.hidden_size, self.num_layers = (
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
        )
        self.bias, self.batch_first, self.bidirectional = (
            layer.bias,
            layer.batch_first,
            layer.bidirectional,
        )
        self.dropout = layer.dropout
        self.order = tuple(str(name) for name in layer._flat_weights_names)
        for name in self.order:
            if name in stored:
                self.register_parameter(f"{name}_codes", stored[name].codes)
                self.register_buffer(f"{name}_scale", stored[name].scale)
            else:
                self.register_parameter(name, layer._parameters[name])
        self.training = layer.training

    def flatten_parameters(self) -> None:
        """Nothing to do: the weights are made anew in every call."""

    def _weights(self) -> list[Tensor]:
        """All weights and biases as torch's functions want them."""
        weights = []
        for name in self.order:
            kept = self._parameters.get(name)
            if kept is None:
                kept = decode(self._parameters[f"{name}_codes"], self._buffers[f"{name}_scale"])
            weights.append(kept)
        return weights

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """input: (time, batch, in), batch first if the layer was, without a batch, or packed. hx:
        initial state(s).

        Returns the outputs in the form of the input, and the final state(s).
        """
        states = None if hx is None else list(hx) if self.mode == "LSTM" else [hx]
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            if states is not None and order is not None:
                states = [state.index_select(1, order) for state in states]
            outputs, *final = self._compute((data, sizes), states, sizes[0])
            if back is not None:
                final = [state.index_select(1, back) for state in final]
            return PackedSequence(outputs, sizes, order, back), self._state(final)
        where = 0 if self.batch_first else 1
        if input.ndim == 3:
            outputs, *final = self._compute((input,), states, input.shape[where])
            return outputs, self._state(final)
        states = None if states is None else [state.unsqueeze(1) for state in states]
        outputs, *final = self._compute((input.unsqueeze(where),), states, 1)
        return outputs.squeeze(where), self._state([state.squeeze(1) for state in final])

    def _compute(
        self, data: tuple[Tensor, ...], states: list[Tensor] | None, batch: Any
    ) -> tuple[Tensor, ...]:
        if states is None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            widths = [
                self.proj_size or self.hidden_size,
                *([self.hidden_size] if self.mode == "LSTM" else []),
            ]
            states = [data[0].new_zeros(layers, batch, width) for width in widths]
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        return self._run(data, states, (*options, *([self.batch_first] if len(data) == 1 else [])))

    @abstractmethod
    def _run(
        self, data: tuple[Tensor, ...], states: list[Tensor], options: tuple[Any, ...]
    ) -> tuple[Tensor, ...]:
        """Outputs and final states. data: the input, with the batch sizes when it is packed.
        options: those of torch's functions that follow the weights.
        """

    def _state(self, final: list[Tensor]) -> Any:
        """Final states as the layer returns them: (h, c) of an LSTM, h of the others."""
        return tuple(final) if self.mode == "LSTM" else final[0]
