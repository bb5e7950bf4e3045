"""Networks whose single weights go, and how often they are zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.methods.base import Context
from petra.tasks.classification import classification

G = torch.Generator().manual_seed(0)


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


class Kinds(nn.Module):
    """One layer of each kind on one input, each with its own inputs' norms; one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.up = nn.ConvTranspose2d(12, 4, 2, groups=2)
        self.head, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.up(self.grouped(self.first(x))).mean((2, 3)))
        return logits


def kinds() -> tuple[Kinds, Context]:
    torch.manual_seed(0)
    model = Kinds().eval()
    x, y = torch.randn(32, 4, 5, 5, generator=G), torch.randint(0, 3, (32,), generator=G)
    return model, Context(task=classification((x, y), (x, y), (x, y)), teacher=model, seed=1)
