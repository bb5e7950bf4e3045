"""What a low-rank stage works on, from choosing layers to putting their factors in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from petra.methods.base import Context
from petra.methods.lowrank.unfold import Calls
from petra.model.kinds import Convolution
from petra.tasks.inputs import Inputs, batch_size, map_inputs

BATCH = 64


def not_decomposed(layer: nn.Module) -> str:
    """Why a layer of this kind has no factors."""
    reason = f"{type(layer).__name__} layers are not decomposed"
    if isinstance(layer, nn.RNNBase):
        reason += ": their kernels take whole weights (prune.recurrent narrows them)"
    return reason


@dataclass
class Work:
    """What a stage works on: `layers` maps paths of layers to how they are unfolded."""

    model: nn.Module
    context: Context
    example: Inputs
    calls: Mapping[str, Calls]
    layers: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def give_up(self, reasons: Mapping[str, str]) -> None:
        """Leave layers as they are, for reasons."""
        self.skipped.update(reasons)
        for path in reasons:
            self.layers.pop(path, None)

    def batches(self, items: int) -> Iterator[Inputs]:
        """Inputs of `items` training items, on the stage's device."""
        seed = self.context.seed_for("samples")
        for inputs, _ in self.context.task.train.batches(BATCH, seed=seed):
            taken = min(items, batch_size(inputs))
            if taken == 0:
                return
            first = map_inputs(inputs, lambda t, k=taken: t[:k])  # type: ignore[misc]
            yield map_inputs(first, lambda t: t.to(self.context.device))
            items -= taken


def per_item(model: nn.Module, calls: Mapping[str, Calls], items: int) -> dict[str, Calls]:
    """Calls with the batch of `items` in front where a linear layer saw it folded into other
    dimensions (windows).
    """

    def unfolded(shape: torch.Size) -> torch.Size:
        if len(shape) < 2 or shape[0] == items or shape[0] % items:
            return shape
        return torch.Size((items, shape[0] // items, *shape[1:]))

    return {
        path: (
            seen
            if isinstance(model.get_submodule(path), Convolution)
            else tuple((unfolded(inputs), unfolded(output)) for inputs, output in seen)
        )
        for path, seen in calls.items()
    }
