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

from petra.model.layers.quantized import Codes, decode
from petra.model.layers.stored_recurrent import StoredRecurrent


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


class WeightOnlyRecurrent(StoredRecurrent):
    """A recurrent layer that decodes its weights when it is called, and computes in float.

    `WeightOnly` will not do, because recurrent layers keep lists of their own parameters.
    """

    def _run(
        self, data: tuple[Tensor, ...], states: list[Tensor], options: tuple[Any, ...]
    ) -> tuple[Tensor, ...]:
        function = getattr(torch._VF, self.mode.lower())
        result: tuple[Tensor, ...] = function(
            *data, states if self.mode == "LSTM" else states[0], self._weights(), *options
        )
        return result
