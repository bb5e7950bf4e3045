"""Whether a batch is fit to be judged and trained on; the item that is not is named."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, named


def check_targets(
    task: Task, target: Tensor, width: Tensor, place: Callable[[int], str], *, where: str
) -> None:
    """Hold targets (n, ...) against one prediction, `width` (1, ...); names the first failure.

    `place(i)` says where entry i is. Raises DataError: of the batch when every item is wrong, else
    of the item.
    """

    def fits(part: Tensor, where: str) -> None:
        task.check(width.expand(len(part), *width.shape[1:]), part, where=where)

    try:
        fits(target, where)
    except DataError as whole:
        for i in range(len(target)):
            try:
                fits(target[i : i + 1], place(i))
            except DataError as error:
                if i == 0:
                    break
                raise DataError(error.message, hint=whole.hint) from None
        raise


def first_not_finite(*tensors: Tensor) -> int | None:
    """Number of the first item with NaN or infinity in one of its tensors (n, ...), or None."""
    found = [
        (~t.isfinite()).reshape(len(t), -1).any(1).nonzero()
        for t in tensors
        if t.is_floating_point() and t.numel()
    ]
    numbers = [int(rows[0]) for rows in found if len(rows)]
    return min(numbers, default=None)


def items_not_finite(inputs: Inputs) -> list[int]:
    """Numbers of the items with NaN or infinity in their inputs."""
    found: set[int] = set()
    for t in named(inputs).values():
        if t.is_floating_point() and t.numel() and not torch.isfinite(t).all():
            found |= set((~t.isfinite()).reshape(len(t), -1).any(1).nonzero()[:, 0].tolist())
    return sorted(found)
