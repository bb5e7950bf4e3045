"""Re-estimation of batch-norm statistics: pruning and factoring change what layers put out, not
what norms expect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.model.surgery import evaluating
from petra.space.domains import Choice, Integer
from petra.space.effects import FLOAT_WEIGHTS, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, batch_size, call

BATCH = 64
NO_NORM = "the model has no batch norm with statistics"


def norms_with_statistics(model: nn.Module) -> dict[str, _BatchNorm]:
    return {
        path: m
        for path, m in model.named_modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats
    }


def estimate_statistics(model: nn.Module, batches: Iterable[Inputs]) -> dict[str, str]:
    """Replace mean and variance of every batch norm by the averages over `batches`; no more.

    Every norm normalises with the statistics of the batch meanwhile, as in training, so that those
    behind it see what they will see afterwards. Returns path -> reason for the norms left as they
    were. Costs one forward pass.
    """
    norms = norms_with_statistics(model)
    before = {path: {k: v.clone() for k, v in norm.named_buffers()} for path, norm in norms.items()}
    momenta = {path: norm.momentum for path, norm in norms.items()}
    skipped: dict[str, str] = {}
    with evaluating(model), torch.no_grad():
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.training = True
        try:
            for inputs in batches:
                call(model, inputs)
        finally:
            for path, norm in norms.items():
                norm.momentum = momenta[path]
                if not norm.num_batches_tracked:
                    norm.load_state_dict(before[path], strict=False)
                    skipped[path] = "is not called"
    return skipped


@dataclass(frozen=True)
class EstimateBatchNorm(Stage):
    """Estimate the statistics of all batch norms anew on training items, without training (He et
    al. 2017 and others).

    When it helps: after pruning or decomposition, whose norms still expect the untouched model's
    activations: often most of the points lost come back in a second, and what is trained or
    quantized next starts from there. When it does not: after training stages, which keep the
    statistics up to date. Costs one forward pass over `samples` items.
    """

    name: ClassVar[str] = "repair.batchnorm"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    samples: int = parameter(
        1024,
        Choice((512, 1024, 4096)),
        "items of the training split seen",
        limits=Integer(16, 10**7),
    )

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return "" if norms_with_statistics(model) else NO_NORM

    @property
    def structure_from_weights(self) -> bool:
        return False

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        if not norms_with_statistics(model):
            raise StageRefused(NO_NORM)
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu")
        norms = [*norms_with_statistics(model)]
        if not norms:
            raise StageRefused(NO_NORM)
        batches: list[Inputs] = []
        items = 0
        for inputs, _ in context.task.train.batches(
            BATCH, seed=context.seed_for("samples"), drop_last=True
        ):
            batches.append(inputs)
            items += batch_size(inputs)
            if items >= self.samples:
                break
        try:
            skipped = estimate_statistics(model, batches)
        except ValueError as error:  # torch's, for a channel with a single value
            raise StageRefused(
                f"a batch has no statistics: {error}",
                hint="give training batches of two items and more",
            ) from error
        touched = tuple(path for path in norms if path not in skipped)
        if not touched:
            raise StageRefused("no batch norm of the model is called", layer=norms[0])
        return model, StageTrace(self.name, touched, skipped, details={"samples": items})
