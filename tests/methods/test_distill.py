"""Distillation: the mixture, the feature distance, which blocks match, and that students move towards their teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.distill.distill import Distill, mixed_loss
from petra.methods.distill.features import matching_blocks, relative_distance, tapped
from petra.tasks.base import Task
from petra.testing.stage_suite import small_problem
from petra.workloads.digits import DigitsNet

MODEL, TASK = small_problem()
CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)
G = torch.Generator().manual_seed(0)


def test_the_mixture() -> None:
    hard, soft = torch.tensor(2.0), torch.tensor(6.0)
    assert float(mixed_loss(hard, soft, 0.0)) == 2.0
    assert float(mixed_loss(hard, soft, 1.0)) == 6.0
    assert float(mixed_loss(hard, soft, 0.25)) == pytest.approx(3.0)


def test_relative_distance_by_loops() -> None:
    student, teacher = ([torch.randn(s, generator=G) for s in ((2, 3), (4, 1, 5))] for _ in range(2))
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        above = sum((float(a) - float(b)) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True))
        expected += above / sum(float(b) ** 2 for b in t.flatten()) / 2
    assert float(relative_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_distance(teacher, teacher)) == 0.0


def test_blocks_match_by_name_and_shape() -> None:
    student = copy.deepcopy(MODEL)
    student.block2 = nn.Sequential(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1))
    student.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())  # no padding: another shape
    student.other = nn.Sequential(nn.Identity())
    found = matching_blocks(student, MODEL, TASK.example(2))
    assert found == ()  # everything behind the stem has another shape
    student.stem = copy.deepcopy(MODEL.stem)
    assert set(matching_blocks(student, MODEL, TASK.example(2))) == {"stem", "block1", "block2", "block3"}


def test_taps_see_the_latest_pass_and_are_removed() -> None:
    student = copy.deepcopy(MODEL)
    with tapped(student, MODEL, ("block1",)) as (own, theirs), torch.no_grad():
        student(TASK.example(3))
        MODEL(TASK.example(3))
        MODEL(TASK.example(5))
        assert len(own.outputs()[0]) == 3
        assert len(theirs.outputs()[0]) == 5
    assert not any(m._forward_hooks for m in (*student.modules(), *MODEL.modules()))


@pytest.mark.parametrize("features", [0.0, 3.0])
def test_a_damaged_student_moves_towards_its_teacher(digits_problem: tuple[DigitsNet, Task], features: float) -> None:
    teacher, task = digits_problem
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.5 * p.std() * torch.randn(p.shape, generator=G) if p.ndim > 1 else 0.0)
    before = copy.deepcopy(student)
    context = Context(task=task, teacher=teacher, seed=1)
    student, trace = Distill(epochs=3, lr=0.02, batch_size=64, features=features).apply(student, context)
    x = task.val.head(200)
    with torch.no_grad():
        distances = [float(task.distillation(m(x), teacher(x), temperature=4.0)) for m in (before, student)]
    assert distances[1] < 0.5 * distances[0]
    assert bool(trace.details["blocks_matched"]) == bool(features)


def test_features_without_a_common_block_are_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(StageRefused, match="no block"):
        Distill(features=1.0).apply(plain, CONTEXT)
