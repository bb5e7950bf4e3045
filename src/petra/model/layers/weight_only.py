"""Any layer with its weights stored as short codes, which are decoded when it is called.

Codes are frozen parameters, scales are buffers, as in the layers of `petra.model.layers.quantized`
that compute with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from petra.model.layers.quantized import Codes, decode


class WeightOnly(nn.Module):
    """Any layer, with some of its own parameters stored as codes and decoded when it is called.

    In every other respect it looks like the layer: attributes it does not have are the layer's, and
    the parameters are found under their names.
    """

    def __init__(self, layer: nn.Module, stored: Mapping[str, Codes]) -> None:
        """layer: is taken over. stored: codes by name of the parameter, which the layer loses."""
        super().__init__()
        for name, (codes, scale) in stored.items():
            layer.register_parameter(name, None)
            self.register_parameter(f"{name}_codes", codes)
            self.register_buffer(f"{name}_scale", scale)
        self.layer = layer
        self.names = tuple(stored)
        self.training = layer.training

    def value(self, name: str) -> Tensor:
        """The float value of a stored parameter."""
        value: Tensor = decode(self._parameters[f"{name}_codes"], self._buffers[f"{name}_scale"])
        return value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(
            self.layer, {name: self.value(name) for name in self.names}, args, kwargs
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.__dict__.get("names", ()):
                return self.value(name)
            layer = self.__dict__.get("_modules", {}).get("layer")
            if layer is None:
                raise
            return getattr(layer, name)


class WeightOnlyRecurrent(nn.Module):
    """An `nn.LSTM`, `nn.GRU` or `nn.RNN` with its weights stored as codes; called as those are.

    `WeightOnly` will not do, because recurrent layers keep lists of their own parameters.
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
            outputs, *final = self._run((data, sizes), states, sizes[0])
            if back is not None:
                final = [state.index_select(1, back) for state in final]
            return PackedSequence(outputs, sizes, order, back), self._state(final)
        where = 0 if self.batch_first else 1
        if input.ndim == 3:
            outputs, *final = self._run((input,), states, input.shape[where])
            return outputs, self._state(final)
        states = None if states is None else [state.unsqueeze(1) for state in states]
        outputs, *final = self._run((input.unsqueeze(where),), states, 1)
        return outputs.squeeze(where), self._state([state.squeeze(1) for state in final])

    def _run(
        self, data: tuple[Tensor, ...], states: list[Tensor] | None, batch: Any
    ) -> tuple[Tensor, ...]:
        """Outputs and final states. data: the input, with the batch sizes when it is packed."""
        if states is None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            widths = [
                self.proj_size or self.hidden_size,
                *([self.hidden_size] if self.mode == "LSTM" else []),
            ]
            states = [data[0].new_zeros(layers, batch, width) for width in widths]
        options = [self.bias, self.num_layers, self.dropout, self.training, self.bidirectional]
        options += [self.batch_first] if len(data) == 1 else []
        function = getattr(torch._VF, self.mode.lower())
        result: tuple[Tensor, ...] = function(
            *data, states if self.mode == "LSTM" else states[0], self._weights(), *options
        )
        return result

    def _state(self, final: list[Tensor]) -> Any:
        """Final states as the layer returns them: (h, c) of an LSTM, h of the others."""
        return tuple(final) if self.mode == "LSTM" else final[0]
