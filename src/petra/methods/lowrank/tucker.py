"""Low-rank decomposition of convolutions on both sides: Tucker-2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.methods.base import Context, parameter
from petra.methods.lowrank.decomposition import Decomposition, ExactSVD, Tucker2
from petra.methods.lowrank.stage import Decompose
from petra.methods.lowrank.unfold import Calls
from petra.space.domains import Choice


@dataclass(frozen=True)
class TuckerDecompose(Decompose):
    """Replace a convolution by a pointwise one, a thin core and a pointwise one (Tucker-2).

    Input and output channels have a rank each; the rule is applied to both channel modes (Kim et
    al. 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications"). Weights with one matrix to them (linear layers, embeddings, pointwise
    convolutions) and transposed convolutions are split in two by SVD, as two sides would have equal
    ranks and a core that saves nothing; lowrank.svd with three layers keeps the core apart. One of
    the `layers` stands for all: a dense layer of the lower ranks, which saves nothing by itself.

    When it helps: wide convolutions with kernels of 3x3 and more, where it saves more
    multiply-accumulates at equal error than one rank does, for both channel modes are cut. When it
    does not: thin or pointwise layers, and latency at batch 1, as one kernel becomes three. Costs:
    seconds.
    """

    name: ClassVar[str] = "lowrank.tucker"

    layers: int = parameter(
        3,
        Choice((1, 3), usual=3),
        "layers that a convolution becomes; 1: itself, dense, at the ranks three would have",
    )

    @property
    def _convolutions(self) -> str:
        return "channel"

    def _decomposition(
        self, layer: nn.Module, path: str, how: str, calls: Calls, context: Context
    ) -> Decomposition:
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and max(layer.kernel_size) > 1:
            return Tucker2(layer, how, calls, self.layers)
        return ExactSVD(layer, how, calls, min(self.layers, 2))
