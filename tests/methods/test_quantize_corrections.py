"""What is done to a network around its quantization: equalisation, smoothing, bias correction,
mixed precision.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from unequal_layers import NOTHING, Unequal, images, simplified

from petra.methods.quantize.equalize import (
    equalizable_pairs,
    equalize_layers,
    equalizing_scale,
    input_ranges,
    output_ranges,
    scale_inputs,
)
from petra.methods.quantize.ptq import quantize_static, trace
from petra.methods.quantize.worse import relative_distance


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- cross-layer equalisation ----------------------------------------------------------------------


def test_equalizing_scale_gives_both_sides_one_range() -> None:
    r1, r2 = torch.tensor([8.0, 0.5, 0.0, 1.0]), torch.tensor([2.0, 2.0, 3.0, 0.0])
    s = equalizing_scale(r1, r2)
    assert s.tolist() == [2.0, 0.5, 1.0, 1.0]  # channels that are dead on one side are left
    assert torch.allclose((r1 / s)[:2], (r2 * s)[:2])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_input_ranges_are_those_of_each_input_channel(groups: int) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    expected = []
    for channel in range(4):  # what a channel's unit impulse can excite at most
        x = torch.zeros(1, 4, 5, 5)
        x[0, channel, 2, 2] = 1.0
        expected.append(float(layer(x).detach().abs().max()))
    assert input_ranges(layer.weight, groups).tolist() == pytest.approx(expected)
    s = torch.rand(4) + 0.5
    x = torch.randn(2, 4, 5, 5)
    scaled = functional.conv2d(
        x / s.reshape(1, 4, 1, 1), scale_inputs(layer.weight, s, groups), groups=groups
    )
    torch.testing.assert_close(scaled, layer(x))


def test_equalisation_is_exact_and_makes_ranges_alike() -> None:
    model, x = Unequal(), images(6)
    traced = simplified(model, x)
    pairs, skipped = equalize_layers(traced)
    assert [pair.paths for pair in pairs] == [
        ("stem", "depthwise"),
        ("depthwise", "grouped"),
        ("up", "down"),
    ]
    assert skipped["down"] == "aten.gelu.default does not scale with its input"
    assert skipped["head"] == "the model's output"
    assert "mean" in skipped["grouped"]
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)
    for pair in pairs:
        first, second = (
            traced.get_parameter(layer.args[1].target) for layer in (pair.first, pair.second)
        )
        groups = {"depthwise": 16, "grouped": 2}.get(pair.paths[1], 1)
        torch.testing.assert_close(
            output_ranges(first), input_ranges(second, groups), rtol=0.02, atol=1e-4
        )


def test_shared_weights_and_second_readers_are_not_equalised() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu(self.b(functional.relu(self.a(self.a(x)))))
            return self.c(y) + y

    pairs, skipped = equalizable_pairs(trace(Tied().eval(), torch.randn(4, 8)))
    assert pairs == []
    assert skipped["a"] == "shares its weight with another call"
    assert skipped["b"] == "several readers of its output"


def test_equalisation_rescues_unequal_channels() -> None:
    model, x = Unequal(), images(64)
    errors = {}
    for equalize in ("none", "cross_layer"):
        result = quantize_static(
            model, x, [x], observer="minmax", exclude=NOTHING, equalize=equalize
        )
        with torch.no_grad():
            errors[equalize] = relative_distance(result.model(x), model(x))
    assert errors["cross_layer"] < 0.5 * errors["none"]
