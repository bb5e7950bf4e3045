"""A loss of a third party for classification, with a parameter that the search sets.

Everything here is a third party's: it imports petra, and petra does not know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Loss


@dataclass(frozen=True)
class PolyLoss(Loss):
    """Cross entropy + epsilon (1 - p) (Leng et al. 2022, "Poly-1")."""

    name: ClassVar[str] = "poly"

    epsilon: float = parameter(
        1.0, Real(-0.5, 5.0), "weight of the first polynomial term", limits=Real(-1.0, 100.0)
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits = main_output(outputs)
        p = functional.softmax(logits, 1).gather(1, target[:, None])[:, 0]
        return functional.cross_entropy(logits, target) + self.epsilon * (1 - p).mean()
