"""What depth pruning is tried on: blocks that add to their input, and what is asked of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.methods.prune.depth import TEMPERATURE
from petra.methods.prune.stand_ins import stand_ins
from petra.tasks.base import Task


def droppable_blocks(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    return tuple(stand_ins(model, example)[0])


def apart(task: Task, a: Tensor, b: Tensor) -> Tensor:
    """The distance of two predictions, as the stage takes it."""
    return task.distance().setting(temperature=TEMPERATURE)({"output": a}, {"output": b})


class Branch(nn.Module):
    """A residual branch of `middle` channels through convolutions of `kernel` x `kernel`, scaled by
    `gain`.
    """

    def __init__(self, middle: int, kernel: int, gain: float) -> None:
        super().__init__()
        self.up = nn.Conv2d(8, middle, kernel, padding=kernel // 2, bias=False)
        self.down = nn.Conv2d(middle, 8, kernel, padding=kernel // 2, bias=False)
        self.down.weight.data *= gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(torch.relu(self.up(x)))
        return y


class Shift(nn.Module):
    """A block that adds `amount` to one feature, whatever the input."""

    def __init__(self, feature: int, amount: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.copy_(amount * torch.eye(4)[feature])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.layer(x)
        return y
