"""Modules around the factors: one to train them in, and the ordinary layers they end as."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.methods.lowrank.factorize import Factors, fold, fold_factors, svd, unfold

Layer = nn.Linear | nn.Conv1d | nn.Conv2d


class TrainableFactors(nn.Module):
    """A layer whose weight is composed from U, s and V in every forward pass, at full rank, so that all three train.

    Exists only while a stage runs. It costs what the dense layer costs plus one product of the factors.
    """

    def __init__(self, layer: Layer, how: str) -> None:
        super().__init__()
        factors = svd(unfold(layer.weight.detach(), how))
        self.U, self.s, self.V = (nn.Parameter(t.contiguous()) for t in (factors.U, factors.s, factors.V))
        self.bias = layer.bias
        self.how = how
        self.shape = layer.weight.shape
        # In a list so that the dense weight is neither trained, moved nor saved with this module.
        self._dense = [layer]

    @property
    def factors(self) -> Factors:
        return Factors(self.U, self.s, self.V)

    def weight(self) -> Tensor:
        """The dense weight."""
        return fold(self.factors.compose(), self.shape, self.how)

    def forward(self, x: Tensor) -> Tensor:
        layer = self._dense[0]
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, self.weight(), self.bias)
        output: Tensor = layer._conv_forward(x, self.weight(), self.bias)
        return output

    def as_dense(self) -> Layer:
        """The layer this was made from, with what was learnt."""
        layer = self._dense[0].to(self.s.device)
        layer.weight = nn.Parameter(self.weight().detach())
        layer.bias = self.bias
        return layer


def factored(layer: Layer, factors: Factors, how: str) -> nn.Sequential:
    """Two ordinary layers for one: they apply `factors`, of its unfolded weight, and the last has its bias."""
    weights = fold_factors(*factors.split(), layer.weight.shape, how)
    rank = len(weights[0])
    first, last = _linear_pair(layer, rank) if isinstance(layer, nn.Linear) else _conv_pair(layer, rank, how)
    for part, weight in zip((first, last), weights, strict=True):
        part.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if layer.bias is not None:
        last.bias = nn.Parameter(layer.bias.detach().clone())
    return nn.Sequential(first, last).train(layer.training)


def _linear_pair(layer: nn.Linear, rank: int) -> tuple[Layer, Layer]:
    return (
        nn.Linear(layer.in_features, rank, bias=False, device="meta"),
        nn.Linear(rank, layer.out_features, bias=False, device="meta"),
    )


def _conv_pair(layer: nn.Conv1d | nn.Conv2d, rank: int, how: str) -> tuple[Layer, Layer]:
    """Convolutions in -> rank -> out whose kernels, strides, paddings and dilations together are the layer's.

    Spatial: the first takes the last dimension's share of all of them, the second the first dimension's. That also
    holds for padding modes other than zeros, because padding acts on each dimension alone.
    """
    make = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Conv1d
    dims = len(layer.kernel_size)
    on_first = [how == "channel" or (dims == 2 and d == 1) for d in range(dims)]
    on_last = [not mine for mine in on_first]

    def share(mine: list[bool], inputs: int, outputs: int) -> Layer:
        def pick(values: tuple[int, ...], neutral: int) -> tuple[int, ...]:
            return tuple(v if m else neutral for v, m in zip(values, mine, strict=True))

        padding = layer.padding if isinstance(layer.padding, str) else pick(layer.padding, 0)
        return make(
            inputs,
            outputs,
            pick(layer.kernel_size, 1),  # type: ignore[arg-type]
            stride=pick(layer.stride, 1),  # type: ignore[arg-type]
            padding=padding,  # type: ignore[arg-type]
            dilation=pick(layer.dilation, 1),  # type: ignore[arg-type]
            bias=False,
            padding_mode=layer.padding_mode,
            device="meta",
        )

    return share(on_first, layer.in_channels, rank), share(on_last, rank, layer.out_channels)
