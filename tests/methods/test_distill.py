"""Distillation: the mixture, the feature distance, which blocks match, and that students move
towards their teacher.
"""

from __future__ import annotations

import copy

import pytest
import torch
from distilled_parts import MODEL, TASK, G, names
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.distill.distill import Distill, mixed_loss
from petra.methods.distill.features import Pair, Spot, matched, relative_distance, tapped
from petra.tasks.base import Task
from petra.workloads.digits import DigitsNet

CONTEXT = Context(task=TASK, teacher=MODEL, seed=1)


def test_the_mixture() -> None:
    hard, soft = torch.tensor(2.0), torch.tensor(6.0)
    assert float(mixed_loss(hard, soft, 0.0)) == 2.0
    assert float(mixed_loss(hard, soft, 1.0)) == 6.0
    assert float(mixed_loss(hard, soft, 0.25)) == pytest.approx(3.0)


def test_relative_distance_by_loops() -> None:
    student, teacher = (
        [torch.randn(s, generator=G) for s in ((2, 3), (4, 1, 5))] for _ in range(2)
    )
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        above = sum(
            (float(a) - float(b)) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)
        )
        expected += above / sum(float(b) ** 2 for b in t.flatten()) / 2
    assert float(relative_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_distance(teacher, teacher)) == 0.0


def test_blocks_match_by_name_and_shape() -> None:
    student = copy.deepcopy(MODEL)
    student.block2 = nn.Sequential(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1))
    # No padding: another shape.
    student.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    student.other = nn.Sequential(nn.Identity())
    found = matched(student, MODEL, TASK.example(2))
    assert found == ()  # everything behind the stem has another shape
    student.stem = copy.deepcopy(MODEL.stem)
    found = matched(student, MODEL, TASK.example(2))
    assert {str(pair) for pair in found} == {"stem", "block1", "block2", "block3"}


def test_taps_see_the_latest_pass_and_are_removed() -> None:
    student = copy.deepcopy(MODEL)
    with (
        tapped(student, MODEL, [Pair(Spot("block1"), Spot("block1"))]) as (own, theirs),
        torch.no_grad(),
    ):
        student(TASK.example(3))
        MODEL(TASK.example(3))
        MODEL(TASK.example(5))
        assert len(own.outputs()[0]) == 3
        assert len(theirs.outputs()[0]) == 5
        # Passes the blocks by.
        student.forward = lambda x: student.head(student.stem(x).mean((2, 3)))
        student(TASK.example(3))
        assert own.outputs() == [None]
    assert not any(m._forward_hooks for m in (*student.modules(), *MODEL.modules()))


@pytest.mark.parametrize("features", [0.0, 3.0])
def test_a_damaged_student_moves_towards_its_teacher(
    digits_problem: tuple[DigitsNet, Task], features: float
) -> None:
    teacher, task = digits_problem
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.5 * p.std() * torch.randn(p.shape, generator=G) if p.ndim > 1 else 0.0)
    before = copy.deepcopy(student)
    context = Context(task=task, teacher=teacher, seed=1)
    student, trace = Distill(epochs=3, lr=0.02, batch_size=64, features=features).apply(
        student, context
    )
    x = task.val.head(200)
    with torch.no_grad():
        distances = [
            float(task.distance()({"output": m(x)}, {"output": teacher(x)}))
            for m in (before, student)
        ]
    assert distances[1] < 0.5 * distances[0]
    assert bool(trace.details["blocks_matched"]) == bool(features)


def test_features_without_a_common_block_are_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(StageRefused, match="no block"):
        Distill(features=1.0).apply(plain, CONTEXT)


# -- blocks of other names -------------------------------------------------------------------------


class Chain(nn.Module):
    """Blocks of given widths, under a name of its own, in a container that passes the last block's
    output on.
    """

    def __init__(self, name: str, widths: list[int]) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.Tanh())
            for a, b in zip([3, *widths], widths, strict=False)
        ]
        self.add_module(name, nn.Sequential(*blocks))
        self.name = name
        self.classifier = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.get_submodule(self.name)(x).mean((2, 3)))
        return logits


def test_blocks_match_by_shape_in_the_order_they_run() -> None:
    x = TASK.example(2)
    small, large = Chain("small", [8, 8, 16]), Chain("large", [8, 8, 8, 8, 16, 16, 12])
    assert matched(small, large, x) == ()
    # Two blocks of 8 channels stand for four: the second and the fourth. The containers pass on
    # what counts already.
    by_shape = ["small.0 ~ large.1", "small.1 ~ large.3", "small.2 ~ large.5"]
    assert names(matched(small, large, x, match="shape")) == by_shape
    assert names(matched(large, small, x, match="shape")) == [
        " ~ ".join(reversed(p.split(" ~ "))) for p in by_shape
    ]
    twin = copy.deepcopy(small)
    assert names(matched(small, twin, x, match="shape")) == ["small.0", "small.1", "small.2"]


@pytest.mark.parametrize(("features_kind", "widths"), [("values", [8, 12]), ("attention", [6, 10])])
def test_a_student_with_other_names_moves_towards_its_teachers_blocks(
    features_kind: str, widths: list[int]
) -> None:
    """With attention even widths may differ. Distances fall further than with logits alone."""
    torch.manual_seed(0)
    student, teacher = Chain("a", widths), Chain("b", [8, 8, 12])
    distances = []
    for weight in (0.0, 3.0):
        stage = Distill(
            epochs=4,
            lr=0.05,
            batch_size=32,
            features=weight,
            features_kind=features_kind,
            match="shape",
        )
        result, _ = stage.apply(copy.deepcopy(student), Context(task=TASK, teacher=teacher, seed=1))
        pairs = matched(result, teacher, TASK.example(2), kind=features_kind, match="shape")
        assert pairs
        with tapped(result, teacher, pairs) as (own, theirs), torch.no_grad():
            result(TASK.val.head(32))
            teacher(TASK.val.head(32))
            distances.append(float(relative_distance(own.outputs(), theirs.outputs())))
    assert distances[1] < 0.7 * distances[0]


def test_which_blocks_only_means_something_with_features() -> None:
    card = Distill.card()
    assert not {"match", "features_kind"} & set(card.normalize({}).params)
    assert {"match", "features_kind"} <= set(card.normalize({"features": 0.5}).params)
