"""Tasks that petra knows nothing of, over outputs by name: a detector and a segmenter."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import petra
from petra.core.errors import StageRefused
from petra.core.trial import TrialStatus
from petra.intake import examine
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.testing.measures_suites import TaskSuite
from petra.training.loop import TrainConfig, fit, predict_all

SIDE, MOST = 16, 2
"""Pixels of a picture's side, and boxes in it at most. The detector has a cell for 4 x 4 pixels."""


def pictures(n: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bright rectangles on noise (n, 1, SIDE, SIDE); their boxes (n, MOST, 4), -1 where there are
    fewer: middle, height and width, as shares; and the pixels' classes (n, SIDE, SIDE).
    """
    g = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(n, 1, SIDE, SIDE, generator=g)
    boxes, masks = torch.full((n, MOST, 4), -1.0), torch.zeros(n, SIDE, SIDE, dtype=torch.int64)
    for i in range(n):
        for k in range(int(torch.randint(1, MOST + 1, (1,), generator=g))):
            height, width = (int(v) for v in torch.randint(4, 8, (2,), generator=g))
            top = int(torch.randint(0, SIDE - height + 1, (1,), generator=g))
            left = k * SIDE // 2 + int(torch.randint(0, SIDE // 2 - width + 1, (1,), generator=g))
            images[i, 0, top : top + height, left : left + width] += 1
            masks[i, top : top + height, left : left + width] = 1
            middle = (top + height / 2, left + width / 2)
            boxes[i, k] = torch.tensor([*middle, height, width]) / SIDE
    return images, boxes, masks


class Detector(nn.Module):
    """For each of 16 cells, a logit of there being the middle of a box, and the box."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.there, self.box = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        boxes = torch.sigmoid(self.box(y)).flatten(2).transpose(1, 2)
        return {"scores": self.there(y).flatten(1), "boxes": boxes}


def cells(target: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells hold a middle, (n, 16), and the box there, (n, 16, 4)."""
    there, boxes = torch.zeros(len(target), 16), torch.zeros(len(target), 16, 4)
    for k in range(MOST):
        row, column = (4 * target[:, k, :2].clamp(0, 0.999)).long().unbind(1)
        real = (target[:, k, 0] >= 0).nonzero()[:, 0]
        place = (4 * row + column)[real]
        there[real, place] = 1.0
        boxes[real, place] = target[real, k]
    return there, boxes


def detection(outputs: Outputs, target: Tensor) -> Tensor:
    there, boxes = cells(target)
    logits = outputs["scores"]
    found = functional.binary_cross_entropy_with_logits(logits, there, pos_weight=torch.tensor(5.0))
    off = functional.l1_loss(outputs["boxes"], boxes, reduction="none").sum(2)
    return found + (off * there).sum() / there.sum().clamp(min=1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    sides = [
        (torch.minimum(a[..., i] + a[..., 2 + i] / 2, b[..., i] + b[..., 2 + i] / 2)
         - torch.maximum(a[..., i] - a[..., 2 + i] / 2, b[..., i] - b[..., 2 + i] / 2)).clamp(min=0)
        for i in range(2)
    ]  # fmt: skip
    both = sides[0] * sides[1]
    return both / (a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - both)


def found_boxes(outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
    """Share of a picture's boxes that one of its two surest covers by half, (n,)."""
    surest = outputs["scores"].topk(MOST, 1).indices
    guess = outputs["boxes"].gather(1, surest[..., None].expand(-1, -1, 4))
    best = overlap(guess[:, :, None], targets[:, None]).amax(1)
    real = targets[..., 0] >= 0
    return ((best > 0.5) & real).sum(1) / real.sum(1)


def detecting(train: int = 400, val: int = 150, test: int = 150) -> Task:
    splits = [pictures(n, seed=i)[:2] for i, n in enumerate((train, val, test))]
    return petra.task(*splits, loss=detection, score=found_boxes, maximize=True)


class Segmenter(nn.Module):
    """Logits of every pixel's class under ``out``, and, as some have, coarse ones in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head, self.coarse = nn.Conv2d(16, 2, 3, padding=1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        found = {"out": self.head(y)}
        return {**found, "aux": self.coarse(y)} if self.training else found


def both_heads(outputs: Outputs, target: Tensor) -> Tensor:
    loss = functional.cross_entropy(outputs["out"], target)
    return loss + 0.4 * functional.cross_entropy(outputs["aux"], target)


def shared(prediction: Tensor, targets: Tensor) -> Tensor:
    """Intersection over union of the rectangles in each picture, (n,)."""
    ours, theirs = prediction.argmax(1) == 1, targets == 1
    return (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))


def segmenting(train: int = 200, val: int = 100, test: int = 100) -> Task:
    splits = [pictures(n, seed=i)[::2] for i, n in enumerate((train, val, test))]
    losses = {"fine": lambda p, t: functional.cross_entropy(p, t), "both": both_heads}
    return petra.task(*splits, loss=losses, score=shared, maximize=True, metrics=["accuracy"])


@pytest.fixture(scope="module", params=["detector", "segmenter"])
def problem(request: pytest.FixtureRequest) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    detects = request.param == "detector"
    model, task = (Detector(), detecting()) if detects else (Segmenter(), segmenting())
    config = TrainConfig(epochs=8 if detects else 3, lr=0.01, optimizer="adamw", batch_size=32)
    fit(model, task, config, seed=0)
    return model, task


class TestTask(TaskSuite):
    @pytest.fixture
    def problem(self, problem: tuple[nn.Module, Task]) -> tuple[nn.Module, Task]:
        return problem

    def test_its_losses_are_losses(self, problem: tuple[nn.Module, Task], batch: object) -> None:
        """Of the segmenter, one is of outputs that only training has."""
        if isinstance(problem[0], Detector):
            super().test_its_losses_are_losses(problem, batch)  # type: ignore[arg-type]


def test_they_are_examined_and_learn(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    examined = examine(model, task)
    detects = isinstance(model, Detector)
    assert examined.interface.judged == (("scores", "boxes") if detects else ("out",))
    outputs, targets = predict_all(model.eval(), task.test)
    found = task.score(outputs, targets)
    assert found.mean > 0.4
    assert 0 < found.stderr < 0.06


@pytest.mark.slow
def test_a_study(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    model, task = problem
    cut = [{"stage": "prune.structured", "params": {"ratio": 0.3}}]
    first = cut if isinstance(model, Detector) else []  # whose training has no other branches
    study = petra.compress(
        model,
        task,
        objectives=("quality", "size"),
        space={
            "initial": [
                ["quantize.static"],
                [*first, {"stage": "distill", "params": {"epochs": 2}}],
            ]
        },
        budget={"trials": 2},
        workdir=tmp_path / "study",
    )  # fmt: skip
    assert [t.failure for t in study.trials if t.status is not TrialStatus.COMPLETE] == []
    outputs, targets = predict_all(model.eval(), task.val)
    expected = task.score(outputs, targets)
    base = study.trials[0].metrics["quality"]
    assert base.mean == pytest.approx(expected.mean, abs=1e-3)
    assert base.stderr == pytest.approx(expected.stderr, rel=0.01)


def test_a_branch_that_only_training_has_is_named_when_layers_were_cut() -> None:
    torch.manual_seed(0)
    task = segmenting(40, 20, 20)
    model = examine(Segmenter(), task).model
    context = Context(task, model, seed=0)
    model, _ = STAGES.get("prune.structured")(ratio=0.5).apply(copy.deepcopy(model), context)
    with pytest.raises(StageRefused, match="runs, but not in training mode") as caught:
        fit(model, task, TrainConfig(epochs=1, lr=0.01), seed=0)
    assert "auxiliary head" in str(caught.value.hint)
