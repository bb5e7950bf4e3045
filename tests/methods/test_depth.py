"""Depth pruning: which blocks may go, which one goes, what is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from depth_parts import Branch, Shift, apart, droppable_blocks
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.prune.depth import DepthPrune
from petra.model.outline import outline_of
from petra.networks.resnet import CifarResNet
from petra.space.domains import Integer
from petra.tasks.classification import classification
from petra.testing.stage_suite import small_problem

MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def test_the_blocks_of_a_resnet_that_keep_their_shape() -> None:
    found = droppable_blocks(CifarResNet(20).eval(), torch.randn(2, 3, 32, 32))
    expected = {"layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"}
    assert set(found) == expected


@pytest.mark.parametrize(("depth", "most"), [(8, 1), (20, 4), (56, 13)])
def test_the_search_takes_no_more_than_half(depth: int, most: int) -> None:
    declared = DepthPrune.card(outline_of(CifarResNet(depth))).parameter("blocks")
    assert declared is not None
    assert declared.domain == Integer(1, most, log=True)
    assert declared.limits.contains(20)


@pytest.mark.parametrize("per", ["block", "weight"])
def test_the_least_missed_block_goes_by_brute_force(per: str) -> None:
    """Against leaving every block out by hand and comparing predictions on the very same items."""
    model: Any = copy.deepcopy(MODEL)
    torch.manual_seed(0)
    model.block2.conv1, model.block2.bn1 = nn.Conv2d(16, 2, 3, padding=1), nn.BatchNorm2d(2).eval()
    model.block2.conv2 = nn.Conv2d(2, 16, 3, padding=1)
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    pruned, trace = DepthPrune(blocks=1, per=per).apply(copy.deepcopy(model), context)
    inputs, _ = next(TASK.train.batches(256, seed=context.seed_for("probe")))
    costs = {}
    with torch.no_grad():
        for name in ("block1", "block2", "block3"):
            without = copy.deepcopy(model)
            setattr(without, name, nn.Identity())
            distance = float(apart(TASK, without(inputs), model(inputs)))
            weights = sum(p.numel() for p in getattr(model, name).parameters())
            costs[name] = distance / (weights if per == "weight" else 1)
    assert trace.touched == (min(costs, key=costs.__getitem__),)
    assert isinstance(pruned.get_submodule(trace.touched[0]), nn.Identity)


def test_distance_is_counted_per_what_is_saved() -> None:
    """Three blocks of which each is the cheapest by one of the three counts: the least missed; one
    of many activations and few weights; one of many weights and few activations.
    """
    torch.manual_seed(0)
    blocks = {"1": Branch(2, 1, 2.0), "2": Branch(64, 1, 1.5), "3": Branch(16, 5, 2.0)}
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        *blocks.values(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    inputs, _ = next(TASK.train.batches(256, seed=context.seed_for("probe")))
    costs: dict[str, dict[str, float]] = {"block": {}, "activation": {}, "weight": {}}
    with torch.no_grad():
        for name, block in blocks.items():
            without = copy.deepcopy(model)
            setattr(without, name, nn.Identity())
            distance = float(apart(TASK, without(inputs), model(inputs)))
            middle, kernel = block.up.out_channels, block.up.kernel_size[0]
            costs["block"][name] = distance
            costs["activation"][name] = distance / (len(inputs) * (middle + 8) * 8 * 8)
            costs["weight"][name] = distance / (2 * 8 * middle * kernel**2)
    cheapest = {per: min(cost, key=cost.__getitem__) for per, cost in costs.items()}
    assert cheapest == {"block": "1", "activation": "2", "weight": "3"}
    for per, name in cheapest.items():
        _, trace = DepthPrune(blocks=1, per=per).apply(copy.deepcopy(model), context)
        assert trace.touched == (name,), per


def test_a_block_that_does_nothing_goes_first() -> None:
    model = copy.deepcopy(MODEL)
    nn.init.zeros_(model.block2.bn2.weight)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(model.block2.bn2.bias)  # type: ignore[union-attr, arg-type]
    context = Context(task=TASK, teacher=copy.deepcopy(model), seed=1)
    x = TASK.example(32)
    before = model(x)
    pruned, trace = DepthPrune(blocks=1).apply(copy.deepcopy(model), context)
    assert trace.touched == ("block2",)
    assert torch.allclose(pruned(x), before, atol=1e-6)


def test_what_is_left_is_measured_again_after_every_removal() -> None:
    """Blocks `1` and `2` do the same and either suffices, since their sum is squashed: alone they
    are the two least missed, but without the one the other is missed the most.
    """
    torch.manual_seed(0)
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(3 * torch.eye(4))
    model = nn.Sequential(
        nn.Linear(6, 4), Shift(0, 4.0), Shift(0, 4.2), Shift(1, 1.0), nn.Tanh(), head
    ).eval()
    with torch.no_grad():
        model[0].weight *= 0.1
    x, y = torch.randn(64, 6), torch.arange(64) % 4
    context = Context(
        task=classification((x, y), (x, y), (x, y)), teacher=copy.deepcopy(model), seed=1
    )

    def missed(*gone: str) -> float:
        without = copy.deepcopy(model)
        for name in gone:
            setattr(without, name, nn.Identity())
        with torch.no_grad():
            return float(apart(context.task, without(x), model(x)))

    alone = {name: missed(name) for name in "123"}
    first, second, last = sorted(alone, key=alone.__getitem__)
    assert {first, second} == {"1", "2"}
    assert missed(first, last) < missed(first, second)
    _, trace = DepthPrune(blocks=2, per="block").apply(copy.deepcopy(model), context)
    assert trace.touched == (first, last)
    assert trace.details["distance"] == {
        name: pytest.approx(distance, rel=1e-3, abs=1e-6)
        for name, distance in ((first, alone[first]), (last, missed(first, last)))
    }


def test_as_many_go_as_asked_and_the_rest_have_a_reason() -> None:
    _, trace = DepthPrune(blocks=2).apply(copy.deepcopy(MODEL), CONTEXT)
    assert len(trace.touched) == 2
    assert len(trace.skipped) == 1
    assert not set(trace.touched) & set(trace.skipped)


def test_it_refuses_to_leave_no_block() -> None:
    with pytest.raises(StageRefused, match="3 blocks"):
        DepthPrune(blocks=3).apply(copy.deepcopy(MODEL), CONTEXT)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(StageRefused, match="0 blocks"):
        DepthPrune().apply(plain, CONTEXT)


def test_a_block_called_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.block(self.block(x))
            return y

    assert droppable_blocks(Twice(), torch.randn(2, 4)) == ()
