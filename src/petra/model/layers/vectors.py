"""Vectors beside layers: IA3 scales what passes them, BitFit shifts it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.model.layers.adapters import Around
from petra.model.layers.lora import matrix, write


class Vector(nn.Module):
    """`values` (n,), which start as one number."""

    def __init__(self, size: int, value: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.full((size,), value))

    def like(self, x: Tensor) -> Tensor:
        """The values in the type of `x`: code around a layer may count on that of its output."""
        return self.values.to(x.dtype)


class ScaledLayer(Around):
    """IA3 (Liu et al. 2022): keys and values times a vector where they are made, or the hidden
    activations of a feed-forward network where they are read.

    `side` is "output" (W x + b) * l or "input" W (x * l) + b.
    """

    kind: ClassVar[str] = "ia3"
    insert: Vector

    def __init__(self, layer: nn.Module, insert: Vector, side: str) -> None:
        super().__init__(layer, insert)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if self.side == "input":
            inner: Tensor = self.layer(x * self.insert.like(x))
            return inner
        made: Tensor = self.layer(x)
        return made * self.insert.like(made)

    def folded(self) -> nn.Module | None:
        layer: Any = self.layer
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            return None  # codes; zeros that are kept stay zero
        values = self.insert.values.detach()
        outwards = self.side == "output"
        write(layer, matrix(layer).detach() * (values.unsqueeze(1) if outwards else values))
        if outwards and layer.bias is not None:
            with torch.no_grad():
                layer.bias.mul_(values)
        return self.layer


class ShiftedLayer(Around):
    """BitFit (Ben Zaken et al. 2022): the bias of a layer, a norm's too, is trained. What is learnt
    lies beside it, from zero.
    """

    kind: ClassVar[str] = "bitfit"
    insert: Vector

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        made: Tensor = self.layer(*args, **kwargs)
        return made + self.insert.like(made)

    def folded(self) -> nn.Module | None:
        bias = self.layer._parameters.get("bias")
        if bias is None:
            return None
        with torch.no_grad():
            bias.add_(self.insert.values.detach())
        return self.layer
