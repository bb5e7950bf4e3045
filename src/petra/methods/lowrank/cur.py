"""Low-rank decomposition by columns and rows of the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.methods.base import Context, parameter
from petra.methods.lowrank.decomposition import CUR, Decomposition
from petra.methods.lowrank.stage import Decompose
from petra.methods.lowrank.unfold import Calls
from petra.space.domains import Choice


@dataclass(frozen=True)
class CURDecompose(Decompose):
    """Replace layers by thinner ones made of their own columns and rows: W ~ C U R, U = C^+ W R^+.

    Columns and rows are those with the largest leverage scores (Mahoney & Drineas 2009). Two layers
    are C U and R, three are C, U and R; one composes them back into a dense layer of lower rank,
    which saves nothing by itself. Which layers, which ranks and when it pays are as in lowrank.svd;
    rules read the singular values.

    When it helps: where weights have outlying or sparse rows and columns, which SVD smears over all
    factors; R is then a selection of the neurons themselves. When it does not: its error is never
    below that of the SVD of equal rank, and the rules choose ranks by what an SVD would lose.
    Costs: one SVD per layer.
    """

    name: ClassVar[str] = "lowrank.cur"

    unfold: str = parameter(
        "channel", Choice(("channel", "spatial")), "how a convolution's weight becomes a matrix"
    )

    @property
    def _convolutions(self) -> str:
        return self.unfold

    def _decomposition(
        self, layer: nn.Module, path: str, how: str, calls: Calls, context: Context
    ) -> Decomposition:
        return CUR(layer, how, calls, self.layers)
