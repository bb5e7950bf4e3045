"""Makes of a copy of a model one in which every channel shows in the outputs."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.channels.breakage import BREAKAGE
from petra.model.kinds import BatchNorm, is_weighted
from petra.model.surgery import evaluating, has_derived_weight
from petra.tasks.inputs import Inputs, call

# a weight without a larger entry is one that keeps a branch quiet at first, such as a layer scale
SWITCHED_OFF = 1e-2


def shake(model: nn.Module, generator: torch.Generator) -> None:
    """Change all weights a little, so that no channel is silent by chance (gains of zero or next to
    it, for one).
    """
    for p in model.parameters():
        if p.is_floating_point():
            noise = torch.randn(p.shape, generator=generator).to(p)
            off = torch.logical_or(p.data == 0, p.data.abs().amax() < SWITCHED_OFF)
            p.data = torch.where(off, 0.1 * noise, p.data * (1 + 0.1 * noise))
            p.requires_grad_(True)


def amplify(model: nn.Module, example: Inputs) -> None:
    """Scale every weighted layer so that its outputs on the example spread by one, and give batch
    norms the statistics of what they then see, in one pass from input to output.

    In a deep network with small initial weights the signal fades on its way, and no channel would
    show; and attention that is nearly uniform would not show that channels have moved to another
    head.
    """

    def scale(layer: Any, inputs: object, output: Tensor) -> Tensor:
        spread = output.std()
        if not 0 < float(spread) < math.inf:
            return output
        for name in {"weight", "bias"} & set(layer._parameters):
            if layer._parameters[name] is not None:
                layer._parameters[name].data /= spread
        return output / spread

    layers = [m for m in model.modules() if is_weighted(m) and not has_derived_weight(m)]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches, here one
        with contextlib.suppress(*BREAKAGE):  # a batch norm needs more than one value
            call(model, example)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for hook in hooks:
        hook.remove()
