"""Augmentations of image batches (n, c, h, w), drawn from a passed generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Random crops of zero-padded images: each moves by up to `pixels` in both directions."""
    n, _, h, w = images.shape
    padded = functional.pad(images, (pixels,) * 4)
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator)
    rows = (dy[:, None] + torch.arange(h)).view(n, 1, h, 1)
    columns = (dx[:, None] + torch.arange(w)).view(n, 1, 1, w)
    item = torch.arange(n).view(n, 1, 1, 1)
    channel = torch.arange(images.shape[1]).view(1, -1, 1, 1)
    return padded[item, channel, rows, columns]


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip every image left to right with probability one half."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
