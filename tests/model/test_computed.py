"""Layers that compute their weight become plain ones; those that do more do not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.model.copies.computed import fold_computed_layers
from petra.testing.architectures.normed import StandardisedConv


class Cosine(nn.Linear):
    """Rows of length one."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, functional.normalize(self.weight, dim=1), self.bias)


class Padded(StandardisedConv):
    """Pads by the size of its input first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (x.shape[-1] % 2, 0)))


class Scaled(StandardisedConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Noisy(StandardisedConv):
    def standardised(self) -> Tensor:
        return self.weight + torch.randn_like(self.weight)


class Gated(StandardisedConv):
    """The weight depends on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * x.mean(), self.bias, self.stride, self.padding)


class Strided(StandardisedConv):
    """Another stride than the one it tells."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.standardised(), self.bias, 2, self.padding)


class Read(nn.Module):
    """Reads what a plain layer does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StandardisedConv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv.gain.mean()


@pytest.mark.parametrize(
    ("layer", "x", "plain"),
    [
        (StandardisedConv(3, 4, stride=2), torch.randn(2, 3, 6, 6), nn.Conv2d),
        (Cosine(5, 4, bias=False), torch.randn(2, 7, 5), nn.Linear),
    ],
)
def test_a_computed_weight_becomes_a_parameter(
    layer: nn.Module, x: Tensor, plain: type[nn.Module]
) -> None:
    model = nn.Sequential(layer, nn.ReLU()).eval()
    original, expected = copy.deepcopy(model), model(x)
    assert fold_computed_layers(model, lambda m: m(x)) == ("0",)
    assert type(model[0]) is plain
    assert set(dict(model.named_parameters())) <= {"0.weight", "0.bias"}
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(original(x), expected)


@pytest.mark.parametrize("kind", [Padded, Scaled, Noisy, Gated, Strided])
def test_a_layer_that_does_more_is_left(kind: type[nn.Conv2d]) -> None:
    model = nn.Sequential(kind(3, 4)).eval()
    before = dict(model.named_parameters())
    assert fold_computed_layers(model, lambda m: m(torch.randn(2, 3, 5, 5))) == ()
    assert type(model[0]) is kind
    assert all(p is before[name] for name, p in model.named_parameters())


def test_nothing_changes_where_the_model_wants_more_of_a_layer_than_its_result() -> None:
    model, x = Read().eval(), torch.randn(2, 3, 5, 5)
    expected = model(x)
    assert fold_computed_layers(model, lambda m: m(x)) == ()
    assert torch.equal(model(x), expected)


def test_plain_layers_are_not_touched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2))
    assert fold_computed_layers(model, lambda m: m(torch.randn(2, 3, 5, 5))) == ()
