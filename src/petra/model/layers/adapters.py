"""What parameter-efficient fine-tuning puts beside layers of a model, and bottleneck adapters.

Nothing of a model's code changes: a layer is replaced by a module that holds it and something
`insert`ed, which alone is trained. All of them are `Around`.

They are petra's own, although peft has some of them. peft has no bottleneck adapters. Its low-rank
layers (``peft.tuners.lora.layer``) keep dicts by adapter name, variants and the arguments of their
own methods as attributes, which no description of a model can hold, so that the cache would end
there; they warn of layers other than a fixed list, which has none of petra's integer ones; and its
prompts and prefixes live in a model around the model, whose paths no later stage knows.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS = ("relu", "gelu", "tanh", "none")


class Holding(nn.Module):
    """A module in the place of another, its `layer`: attributes it does not have are the layer's,
    which the code around it may ask for.
    """

    layer: nn.Module

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.training = layer.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get("layer")
            if layer is None or name.startswith("__"):
                raise
            return getattr(layer, name)


class Around(Holding):
    """A layer of the model with what was inserted beside it. `kind` is the word for it in counts
    and files: the name of the parameter of the stage that asks for it.
    """

    kind: ClassVar[str]
    insert: nn.Module

    def __init__(self, layer: nn.Module, insert: nn.Module) -> None:
        super().__init__(layer)
        self.insert = insert

    def folded(self) -> nn.Module | None:
        """The layer, changed in place, computing what both compute; None where it cannot."""
        return None

    def settle(self) -> None:
        """Leave of `insert` what training is over with, and the pass in evaluation mode needs."""


class Bottleneck(nn.Module):
    """scale U f(D x + c) + b, D (size, width), U (width, size): the adapter of Houlsby et al. 2019.

    U and b start at zero, so that at first nothing changes (He et al. 2022); dropout acts on what
    f makes.
    """

    def __init__(
        self,
        width: int,
        size: int,
        *,
        activation: str,
        scale: float = 1.0,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation, self.scale, self.dropout = activation, scale, dropout
        start(self.down.weight, generator)
        with torch.no_grad():
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, x: Tensor) -> Tensor:
        inside = functional.dropout(_activated(self.down(x), self.activation), self.dropout,
                                    self.training)  # fmt: skip
        result: Tensor = self.up(inside)
        return result if self.scale == 1 else self.scale * result


def start(weight: Tensor, generator: torch.Generator) -> None:
    """Draw a projection (out, in) as torch and peft do: uniform within 1 / sqrt(in)."""
    bound = 1 / math.sqrt(weight.shape[1])
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)


def _activated(x: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return functional.relu(x)
        case "gelu":
            return functional.gelu(x)
        case "tanh":
            return torch.tanh(x)
        case "none":
            return x
    raise ValueError(f"{activation!r} is none of {', '.join(ACTIVATIONS)}")


class SerialAdapter(Around):
    """A serial bottleneck adapter A after a layer: h + A(h), h what the layer computes (Houlsby et
    al. 2019). In transformers it lies before the residual sum and its norm.

    It cannot be folded in: f stands between.
    """

    kind: ClassVar[str] = "serial"

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        h: Tensor = self.layer(*args, **kwargs)
        result: Tensor = h + self.insert(h)
        return result


class Line(nn.Module):
    """Hands a tensor on, within a forward pass, from where it is read to where it is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Tensor | None = None

    def take(self) -> Tensor:
        given, self.given = self.given, None
        if given is None:
            raise RuntimeError("the layer that reads the adapter's input was not called before")
        return given


class Tap(Holding):
    """A layer whose input is read for a `ParallelAdapter` further on."""

    def __init__(self, layer: nn.Module, line: Line) -> None:
        super().__init__(layer)
        self.line = line

    def forward(self, x: Tensor) -> Tensor:
        self.line.given = x
        result: Tensor = self.layer(x)
        return result


class ParallelAdapter(Around):
    """A parallel bottleneck adapter A beside a part of the network: f(x) + A(x) (He et al. 2022,
    "Towards a unified view", eq. 12, with their s as the scale of A).

    `layer` is the last one of the part; its first layer, which reads x, is in a `Tap` on the same
    `line`.
    """

    kind: ClassVar[str] = "parallel"

    def __init__(self, layer: nn.Module, insert: nn.Module, line: Line) -> None:
        super().__init__(layer, insert)
        self.line = line

    def forward(self, z: Tensor) -> Tensor:
        x = self.line.take()
        result: Tensor = self.layer(z) + self.insert(x)
        return result
