"""Losses and judged outputs that cannot be worked with are named first of all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import petra
from petra.core.errors import DataError
from petra.intake import examine
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.training.loop import predict_all


def simple(**given: object) -> Task:
    pair = (torch.randn(40, 4), torch.randn(40))
    settings: dict[str, object] = {
        "loss": lambda p, t: functional.mse_loss(p[:, 0], t),
        "score": lambda p, t: float((p[:, 0] - t).abs().mean()),
        "maximize": False,
    }
    return petra.task(pair, pair, pair, **{**settings, **given})  # type: ignore[arg-type]


class More(nn.Module):
    """Returns besides its output what `more` makes of it."""

    def __init__(self, more: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.more = nn.Linear(4, 3), more

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.layer(x)
        return {"y": y, "more": self.more(y)}


def constant(y: Tensor) -> Tensor:
    return torch.arange(5.0)


def scalar(y: Tensor) -> Tensor:
    return torch.tensor(0.5)


def every(outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
    return float((outputs["y"][:, 0] - targets).abs().mean())


@pytest.mark.parametrize("more", [constant, scalar])
def test_what_is_the_same_for_all_items_is_no_output_to_be_judged(
    more: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(DataError, match=r"output more: .* has no part for each item"):
        examine(More(more), simple(score=every))
    examined = examine(More(more), simple())
    assert examined.interface.judged == ("y",)
    outputs, _ = predict_all(examined.model, examined.task.val)
    assert list(outputs) == ["y"]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, t: outputs["mask"].mean(), r"'own' raised KeyError: 'mask', of outputs y"),
        (
            lambda p, t: functional.cross_entropy(p, t.byte()),
            r"raised \w+Error: .* of outputs y \(8, 3\)",
        ),
        (lambda p, t: (p[:, 0] - t).square(), r"returned shape \(8,\)"),
        (lambda p, t: 0.0, "returned float without a gradient"),
        (lambda p, t: (p.detach()[:, 0] - t).mean(), r"returned shape \(\) without a gradient"),
    ],
)
def test_a_loss_that_cannot_train_is_named_at_once(loss: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        examine(More(torch.relu), simple(loss=loss))


def test_an_output_for_every_step_is_not_judged() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
            inside = x * mask
            return {"y": inside.sum(1, keepdim=True), "steps": inside}

    items = [torch.randn(3 + i % 5) for i in range(40)]
    padding = petra.Padding(mask="mask", mask_type="float32")
    split = petra.ragged({"x": items}, torch.randn(40), padding=padding)
    with pytest.raises(DataError, match=r"output steps: .* has another shape for other items"):
        examine(Steps(), petra.task(split, split, split, loss=own_mse, score=every, maximize=False))
    examine(Steps(), petra.task(split, split, split, loss=own_mse, score="mae", maximize=False))


def test_outputs_of_other_shapes_are_left_where_nobody_looks() -> None:
    """Of every step, as many as the longest item of a batch has; a table as long as a batch is."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(16, 3))

        def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
            inside = x * mask
            return {"y": inside.sum(1, keepdim=True), "steps": inside, "table": self.table}

    items = [torch.randn(3 + i // 16) for i in range(40)]
    padding = petra.Padding(mask="mask", mask_type="float32")
    split = petra.ragged({"x": items}, torch.randn(40), padding=padding)
    task = petra.task(split, split, split, loss=own_mse, score="mae", maximize=False)
    outputs, targets = predict_all(Steps(), task.val, batch_size=16)
    assert {name: len(t) for name, t in outputs.items()} == {"y": 40}
    assert len(targets) == 40


def own_mse(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(prediction[:, 0], target)


def test_targets_by_name_are_packed() -> None:
    items = [(torch.randn(4), {"boxes": torch.zeros(2, 4)}) for _ in range(20)]
    task = petra.task(
        items, items, items, loss=lambda p, t: p.mean(), score=lambda p, t: 0.0, maximize=True
    )
    with pytest.raises(DataError) as caught:
        examine(nn.Linear(4, 1), task)
    assert "boxes and labels as (most, 5)" in str(caught.value.hint)
