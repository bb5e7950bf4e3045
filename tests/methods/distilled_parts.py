"""Teachers and students, and what passes between them."""

from __future__ import annotations

import torch

from petra.methods.distill.features import Pair
from petra.testing.stage_suite import small_problem

MODEL, TASK = small_problem()


G = torch.Generator().manual_seed(0)


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [str(pair) for pair in pairs]
