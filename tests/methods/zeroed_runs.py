"""The stage of single weights, run."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from zeroed_parts import weighted

from petra.testing.stage_suite import small_problem

MODEL, TASK = small_problem()


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {path: m.weight == 0 for path, m in weighted(model).items()}  # type: ignore[misc]


def fours(layer: Any) -> Tensor:
    """Weights left in every four along a layer's inputs."""
    return (layer.weight != 0).movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
