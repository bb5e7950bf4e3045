"""Small networks that each pose one structural difficulty, with example inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Conv + BN with an identity shortcut: the stem and the block's end share their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv1, self.bn1 = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv2, self.bn2 = nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenated features, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn, self.c = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1)
        self.d, self.fc = nn.Conv2d(24, 12, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = torch.cat([a, self.b(a)], 1)
        c = torch.cat([b, self.c(F.relu(self.bn(b)))], 1)
        return self.fc(self.d(c).mean((2, 3)))


class Inception(nn.Module):
    """Branches of unequal widths, concatenated and added to a shortcut: each makes some of the
    shortcut's channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv1d(2, 8, 5, padding=2),
            nn.Conv1d(2, 12, 3, padding=1),
            nn.Conv1d(2, 20, 1),
        )
        self.bn, self.shortcut, self.fc = nn.BatchNorm1d(40), nn.Conv1d(2, 40, 1), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.bn(torch.cat([self.a(x), self.b(x), self.c(x)], 1))
        return self.fc(F.relu(branches + self.shortcut(x)).mean(2))


class Gated(nn.Module):
    """Halves of one layer multiplied: by chunk (the halves may shrink) or at a fixed index (they
    may not).
    """

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 32), nn.Linear(16, 12), nn.Linear(12, 3)
        self.fixed = fixed

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        u, v = (h[:, :16], h[:, 16:]) if self.fixed else h.chunk(2, -1)
        return self.c(F.relu(self.b(u * torch.sigmoid(v))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.bn = (
            nn.Conv2d(3, 16, 3),
            nn.Conv2d(16, 32, 3, groups=4),
            nn.BatchNorm2d(32),
        )
        self.p, self.fc = nn.Conv2d(32, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.p(F.relu(self.bn(self.g(F.relu(self.a(x))))))).mean((2, 3)))


def separable() -> nn.Module:
    """Depthwise-separable convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 24), nn.Sigmoid(), nn.Linear(24, 3)
    )


class Temporal(nn.Module):
    """1-D convolutions, flattened into the classifier, so that one channel is many of its
    inputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = (
            nn.Conv1d(2, 16, 5, padding=2),
            nn.BatchNorm1d(16),
            nn.Conv1d(16, 8, 3, padding=1),
        )
        self.fc = nn.Linear(8 * 20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(F.relu(self.bn(self.a(x))))).flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.r, self.e = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn(self.a(x)))
        return self.fc(
            (h * torch.sigmoid(self.e(F.relu(self.r(h.mean((2, 3), keepdim=True)))))).mean((2, 3))
        )


class Upsampling(nn.Module):
    """A transposed convolution, whose weight counts outputs in dimension 1; the output is an
    image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.t, self.o = (
            nn.Conv2d(3, 16, 3, 2),
            nn.ConvTranspose2d(16, 8, 3, 2),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.t(F.relu(self.a(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.b.weight = self.a.weight
        self.m, self.o = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.m(F.relu(self.b(F.relu(self.a(self.i(x))))))))


class Padded(nn.Module):
    """Zero channels put before and after: cutting channel i on both sides keeps every shape and is
    still wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 16, 1),
        )
        self.inner, self.fc = nn.Conv2d(16, 12, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        h = F.pad(F.relu(self.b(x)), (0, 0, 0, 0, 4, 4)) + self.c(x)
        return self.fc(F.relu(self.inner(h)).mean((2, 3)))


class Attention(nn.Module):
    """A pre-norm transformer block with heads in a hard-coded view, and a learnt position table."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.pos, self.norm = (
            nn.Linear(6, 16),
            nn.Parameter(torch.randn(1, 5, 16)),
            nn.LayerNorm(16),
        )
        self.qkv, self.p = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.o = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x) + self.pos
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        x = x + self.p(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16))
        return self.o((x + self.down(F.gelu(self.up(x)))).mean(1))


class ManyOutputs(nn.Module):
    """The classifier comes first in the module list, a hidden layer is an output too, and one head
    is unused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a_classifier, self.side = nn.Linear(8, 3), nn.Linear(12, 2)
        self.unused = nn.Linear(12, 12)
        self.z_first, self.hidden = nn.Linear(6, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = F.relu(self.z_first(x))
        features = self.hidden(h)
        return {
            "side": self.side(h),
            "logits": self.a_classifier(F.relu(features)),
            "features": features,
        }


class GroupNormed(nn.Module):
    """Group norms: the channels of one of their groups can only go together, those of a single
    group not at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gn = nn.Conv2d(3, 24, 3, padding=1), nn.GroupNorm(6, 24)
        self.b, self.whole = nn.Conv2d(24, 16, 3), nn.GroupNorm(1, 16)
        self.c, self.fc = nn.Conv2d(16, 12, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.whole(self.b(F.relu(self.gn(self.a(x))))))
        return self.fc(F.relu(self.c(x)).mean((2, 3)))


class Volumes(nn.Module):
    """3-D convolutions, a transposed one with one filter per channel (whose weight counts channels
    in dimension 0).
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv3d(2, 12, 3, padding=1), nn.BatchNorm3d(12)
        self.up, self.b = nn.ConvTranspose3d(12, 12, 2, 2, groups=12), nn.Conv3d(12, 10, 1)
        self.fc = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.bn(self.a(x)))))
        return self.fc(F.relu(self.b(x)).mean((2, 3, 4)))


class GatedMLP(nn.Module):
    """Llama's feed-forward with a root mean square norm; a dict in and a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.gain = nn.Linear(6, 16), nn.Parameter(torch.ones(16))
        self.gate, self.up = nn.Linear(16, 40, bias=False), nn.Linear(16, 40, bias=False)
        self.down, self.o = nn.Linear(40, 16, bias=False), nn.Linear(16, 3)

    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        h = self.e(x) * mask[..., None]
        normed = self.gain * h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        h = h + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return {"logits": self.o(h.mean(1)), "hidden": h}


def images(n: int, size: int = 9) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))


def rows(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n))
