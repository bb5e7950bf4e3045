"""Why a step of training failed: what the batch holds is looked at first, then the weights, then
the learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petra.core.errors import DataError, DivergedError, StageRefused
from petra.tasks.base import Task
from petra.tasks.check import check_targets, first_not_finite
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, batch_size, named


@dataclass(frozen=True)
class Blame:
    """The batch at hand: items from `position` on of a pass over `split`, shuffled by `seed`, in
    batches of `size`."""

    task: Task
    split: Split
    seed: int | None
    inputs: Inputs
    target: Tensor
    position: int
    size: int

    def _place(self, i: int) -> str:
        number = self.split.item_at(self.position + i, self.seed, self.size)
        return f"{self.split.name} split, item {number}"

    def data(self, width: Tensor | None = None) -> None:
        """Raise DataError, naming split and item, if the batch cannot be trained on; `width` (1,
        ...) is a prediction.

        Shapes and label ranges are held against it.
        """
        odd = first_not_finite(*named(self.inputs).values(), self.target)
        if odd is not None:
            which = "targets" if first_not_finite(self.target) == odd else "inputs"
            raise DataError(
                f"{self._place(odd)}: NaN or infinity in the {which}",
                hint="drop such items or fill the gaps",
            )
        if width is not None:
            where = f"{self.split.name} split, batch of {len(self.target)} items"
            check_targets(self.task, self.target, width, self._place, where=where)

    def error(self, error: Exception, width: Tensor | None) -> None:
        """Raise what `error`, raised by forward pass or loss, comes from where that is known; else
        return."""
        self.data(width)
        if batch_size(self.inputs) == 1 and width is None:
            raise StageRefused(
                f"a batch of one item cannot be trained on: {str(error).splitlines()[0]}",
                hint="batch normalisation needs two items and more: a larger batch_size",
            ) from error

    def loss(self, loss: float, model: nn.Module, *, step: int, total: int, rate: str) -> None:
        """Raise DataError for data that makes the loss what it is, else DivergedError."""
        self.data()
        said = f"the training loss is {loss} at step {step + 1} of {total}"
        if step == 0:
            raise DivergedError(
                said, hint="it is so before the first step: the model's outputs are the cause"
            )
        wrecked = next(
            (n for n, p in model.named_parameters() if not torch.isfinite(p).all()), None
        )
        seen = f"the weights {wrecked!r} are no longer finite: " if wrecked else ""
        raise DivergedError(
            said, hint=f"{seen}training led there; try a lower learning rate than {rate}"
        )
