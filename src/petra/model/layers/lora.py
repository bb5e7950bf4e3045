"""Low-rank changes of linear layers: LoRA, rsLoRA and DoRA.

The base may be any layer with `in_features` and `out_features`, of float weights or of codes, and
Hugging Face's transposed ones. Only float ones can take the change in.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.model.kinds import is_transposed_linear
from petra.model.layers.adapters import Around, Holding, start

ALPHA = 8.0
"""The numerator of the scale, peft's default: at rank 8 the change counts once."""


def lora_scale(rank: int, kind: str) -> float:
    """alpha / r, for LoRA (Hu et al. 2022) and DoRA; alpha / sqrt(r) for rsLoRA (Kalajdzievski
    2023), so that the size of the change does not fall with the rank.
    """
    return ALPHA / (math.sqrt(rank) if kind == "rslora" else rank)


def sizes(layer: Any) -> tuple[int, int]:
    """Widths of what goes into a linear layer and comes out, whatever is around it."""
    while isinstance(layer, Holding):
        layer = layer.layer
    if is_transposed_linear(layer):
        return layer.weight.shape[0], layer.weight.shape[1]
    return int(layer.in_features), int(layer.out_features)


def matrix(layer: Any) -> Tensor:
    """The weight of a linear layer of any make as (out, in)."""
    weight: Tensor = layer.weight
    return weight.T if _is_transposed(layer) else weight


def editable(layer: nn.Module) -> bool:
    """Whether other values can be written into the layer's own float weight, every one of them."""
    weight = layer._parameters.get("weight")
    linear = isinstance(layer, nn.Linear) or is_transposed_linear(layer)
    return linear and weight is not None and not getattr(layer, "keep_zeros", False)


def write(layer: Any, weight: Tensor) -> None:
    """Give an `editable` layer the weight (out, in)."""
    with torch.no_grad():
        layer.weight.copy_(weight.T if _is_transposed(layer) else weight)


def _is_transposed(layer: Any) -> bool:
    return is_transposed_linear(layer) or getattr(layer, "how", "") == "flipped"


class LowRank(nn.Module):
    """scale B A x, A (rank, in), B (out, rank). B starts at zero."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rank: int,
        *,
        scale: float,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        self.scale, self.dropout = scale, dropout
        start(self.down.weight, generator)
        nn.init.zeros_(self.up.weight)

    def change(self) -> Tensor:
        """scale B A (out, in)."""
        return self.scale * self.up.weight @ self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.up(self.down(functional.dropout(x, self.dropout, self.training)))
        return self.scale * result


class Directed(LowRank):
    """The same, and beside it `magnitude` (out,): the lengths of the rows of W + scale B A."""

    def __init__(self, inputs: int, outputs: int, rank: int, **options: Any) -> None:
        super().__init__(inputs, outputs, rank, **options)
        self.magnitude = nn.Parameter(torch.ones(outputs))


class LoraLayer(Around):
    """W x + scale B A x (LoRA, rsLoRA)."""

    kind: ClassVar[str] = "lora"
    insert: LowRank

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x) + self.insert(x)
        return result

    def folded(self) -> nn.Module | None:
        if not editable(self.layer):
            return None
        write(self.layer, matrix(self.layer).detach() + self.insert.change().detach())
        return self.layer


class DoraLayer(Around):
    """m (W + scale B A) x / ||W + scale B A|| + b, norms by row (Liu et al. 2024, "DoRA", eq. 5).

    Gradients do not pass the norm (their section 4.3). Costs a product of the factors in every
    pass, until it is folded in.
    """

    kind: ClassVar[str] = "lora"
    insert: Directed

    def __init__(self, layer: nn.Module, insert: Directed) -> None:
        super().__init__(layer, insert)
        with torch.no_grad():
            insert.magnitude.copy_(matrix(layer).norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        bias = getattr(self.layer, "bias", None)
        given: Tensor = self.layer(x)
        plain = given if bias is None else given - bias
        result: Tensor = (plain + self.insert(x)) * self._gain()
        return (result if bias is None else result + bias).to(given.dtype)

    def _gain(self) -> Tensor:
        norm = (matrix(self.layer) + self.insert.change()).norm(dim=1)
        gain: Tensor = self.insert.magnitude / norm.detach()
        return gain

    def folded(self) -> nn.Module | None:
        if not editable(self.layer):
            return None
        changed = matrix(self.layer).detach() + self.insert.change().detach()
        write(self.layer, self._gain().detach().unsqueeze(1) * changed)
        return self.layer
