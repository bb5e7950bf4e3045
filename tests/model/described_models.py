"""A network with what descriptions meet, and how it goes through files."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block as users write them: functional calls, plain attributes, a buffer that is
    not saved.
    """

    def __init__(self, channels: int, *, scale: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.activation = torch.relu
        self.cut = functools.partial(torch.clamp, min=0.0)
        self.scale = scale
        self.names = {"kind": "block", "sizes": (channels, [1, 2])}
        self.register_buffer("gain", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        return self.activation(x + self.scale * self.gain * self.conv2(y))


class Net(nn.Module):
    """Small enough to run, odd enough to go wrong: shared layers, tied weights, a transposed
    convolution, a GRU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.norm = nn.GroupNorm(2, 6)
        self.shared = nn.Hardswish()
        self.again = self.shared
        self.rnn = nn.GRU(6, 5, batch_first=True)
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.layers = [self.head, "not registered"]
        self.weights = [self.embed.weight]
        self.owner = weakref.ref(self)
        self.extra: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.norm(self.up(self.blocks(self.stem(x)))))
        x, _ = self.rnn(x.mean(-1).transpose(1, 2))
        return self.layers[0](x[:, -1])


def changed(original: nn.Module) -> nn.Module:
    """A copy with other weights."""
    model = copy.deepcopy(original)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
        for b in model.buffers():
            if b.is_floating_point():
                b += torch.rand(b.shape, generator=generator)
    return model


def set_attributes(model: Any) -> None:
    model.blocks[0].scale = float("inf")
    model.blocks[1].scale = -0.0
    model.blocks[1].names = {
        "kind": "other",
        "sizes": (1, [2, (3,)]),
        "set": {2, 1},
        "size": torch.Size([1, 2]),
    }
    model.new, model.dtype = None, torch.bfloat16
    del model.blocks[0].names


def replace_layers(model: Any) -> None:
    model.blocks[0].bn1 = nn.Identity()
    model.shared = nn.ReLU6()  # no longer what `again` is
    model.norm = nn.BatchNorm2d(6, momentum=None).eval()
    model.stem = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 8, 3, padding="same", padding_mode="circular")
    )


def drop_a_layer(model: Any) -> None:
    model.blocks = nn.Sequential(model.blocks[1], nn.PReLU())


def one_block_twice(model: Any) -> None:
    model.blocks[0] = model.blocks[1]


def untie(model: Any) -> None:
    model.head.weight = nn.Parameter(model.head.weight.detach() * 2)
    model.again = nn.Hardswish()


def tie(model: Any) -> None:
    model.blocks[0].conv2.bias = model.blocks[1].conv2.bias
    model.blocks[0].bn1.running_mean = model.blocks[1].bn1.running_mean


def freeze(model: Any) -> None:
    model.stem.requires_grad_(False)
    model.embed.requires_grad_(False)


def add_and_remove_tensors(model: Any) -> None:
    model.stem.bias = None
    model.blocks[0].conv1.bias = nn.Parameter(torch.randn(8))
    model.head.bias = nn.Parameter(torch.zeros(7))
    model.register_buffer("mask", torch.tensor([True, False]))
    del model.blocks[1].gain
    model.blocks[1].register_buffer("gain", torch.tensor(2.0))


def channels_last(model: Any) -> None:
    model.to(memory_format=torch.channels_last)


def double(model: Any) -> None:
    model.blocks[0].bn1.running_mean = model.blocks[0].bn1.running_mean.double()
    model.embed.weight.data = model.embed.weight.data.t().contiguous().t()


def reorder(model: Any) -> None:
    model.blocks = nn.Sequential(*reversed(list(model.blocks)))


def partly_train(model: Any) -> None:
    model.blocks[0].bn1.train()


CHANGES: list[Callable[[Any], None]] = [
    set_attributes, replace_layers, drop_a_layer, one_block_twice, untie, tie, freeze,
    add_and_remove_tensors, channels_last, double, reorder, partly_train,
]  # fmt: skip
