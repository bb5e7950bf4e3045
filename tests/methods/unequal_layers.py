"""Networks that quantize badly, and what is measured of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from petra.methods.quantize.ptq import simplify, trace

NOTHING: frozenset[str] = frozenset()


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


class Unequal(nn.Module):
    """Grouped, depthwise and linear layers; the channels between them differ a thousandfold, for no
    reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 4)
        with torch.no_grad():
            c, d = torch.logspace(-2, 1, 16), torch.logspace(-2, 1, 32)
            self.bn.weight.copy_(c)
            self.depthwise.weight.div_(c.reshape(-1, 1, 1, 1))
            self.up.weight.mul_(d[:, None])
            self.up.bias.mul_(d)
            self.down.weight.div_(d)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn(self.stem(x))), 2)
        x = self.grouped(functional.leaky_relu(self.depthwise(x), 0.1)).mean((2, 3))
        return self.head(functional.gelu(self.down(functional.relu(self.up(x)))))


def simplified(model: nn.Module, x: Tensor) -> GraphModule:
    traced = trace(model, x)
    simplify(traced)
    return traced


def sequences(n: int) -> Tensor:
    return torch.randn(n, 5, 6, generator=torch.Generator().manual_seed(n))
