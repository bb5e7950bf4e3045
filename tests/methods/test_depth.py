"""Depth pruning: which blocks may go, which one goes, what is left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.prune.depth import TEMPERATURE, DepthPrune, droppable_blocks
from petra.testing.stage_suite import small_problem
from petra.workloads.resnet import CifarResNet

MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def test_the_blocks_of_a_resnet_that_keep_their_shape() -> None:
    found = droppable_blocks(CifarResNet(20).eval(), torch.randn(2, 3, 32, 32))
    expected = {"layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"}
    assert set(found) == expected


def test_the_least_missed_block_goes_by_brute_force() -> None:
    """Against leaving every block out by hand and comparing predictions on the very same items."""
    pruned, trace = DepthPrune(blocks=1, per="block").apply(copy.deepcopy(MODEL), CONTEXT)
    inputs, _ = next(TASK.train.batches(256, seed=CONTEXT.seed_for("probe")))
    distances = {}
    with torch.no_grad():
        for name in ("block1", "block2", "block3"):
            without = copy.deepcopy(MODEL)
            setattr(without, name, nn.Identity())
            distances[name] = float(
                TASK.distillation(without(inputs), MODEL(inputs), temperature=TEMPERATURE)  # type: ignore[arg-type]
            )
    assert trace.touched == (min(distances, key=distances.__getitem__),)
    assert isinstance(pruned.get_submodule(trace.touched[0]), nn.Identity)


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
