"""Mixup: training on convex combinations of pairs of items (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from petra.core.rng import generator
from petra.tasks.inputs import Inputs, batch_size, map_inputs


class Mixup:
    """Mixes every item of a batch with another one of it, in shares drawn once per batch from
    Beta(alpha, alpha).

    Used as a task's augmentation; `loss` then belongs to the batch mixed last. Inputs must be
    floating point.
    """

    def __init__(self, alpha: float, *, seed: int) -> None:
        self._alpha = alpha
        self._shares = generator(seed, "mixup shares")
        self.share, self.order = 1.0, torch.empty(0, dtype=torch.int64)

    def __call__(self, inputs: Inputs, random: torch.Generator) -> Inputs:
        self.share = float(self._shares.beta(self._alpha, self._alpha))
        self.order = torch.randperm(batch_size(inputs), generator=random)
        return map_inputs(inputs, lambda t: self.share * t + (1 - self.share) * t[self.order])

    def skip(self, steps: int) -> None:
        """Be as after so many batches more."""
        for _ in range(steps):
            self._shares.beta(self._alpha, self._alpha)

    def loss(self, against: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
        """share * L(y) + (1 - share) * L(y of the other item), where `against(y)` is the mean loss
        for targets y.
        """
        other = target[self.order.to(target.device)]
        return self.share * against(target) + (1 - self.share) * against(other)
