"""What all architectures of the zoo have: seeded weights that are not trivial, a small task."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs, call, map_inputs
from petra.tasks.regression import regression

Problem = tuple[nn.Module, Task]
Draw = Callable[[torch.Generator, int], Inputs]

CLASSES = 4
TRAIN, VAL, TEST = 64, 32, 16
TORCH_GAIN = 3**0.5  # torch's own layers start with weights that lose this factor each
BatchNorm = nn.modules.batchnorm._BatchNorm
_NORMS = (BatchNorm, nn.GroupNorm, nn.LayerNorm)


def classifier(make: Callable[[], nn.Module], draw: Draw, *, gain: float = TORCH_GAIN) -> Problem:
    """A model of `CLASSES` logits with random weights, and random inputs with random labels.

    `gain` multiplies weight matrices, so that differences between items survive a dozen layers.
    """
    model, inputs = _settled(make, draw, gain)
    labels = torch.randint(0, CLASSES, (TRAIN + VAL + TEST,), generator=_generator(2))
    return model, classification(*_splits(inputs, labels))


def regressor(make: Callable[[], nn.Module], draw: Draw, *shape: int) -> Problem:
    """The same for real outputs of `shape` per item."""
    model, inputs = _settled(make, draw, TORCH_GAIN)
    targets = torch.randn(TRAIN + VAL + TEST, *shape, generator=_generator(2))
    return model, regression(*_splits(inputs, targets))


def normal(*shape: int) -> Callable[[torch.Generator, int], Tensor]:
    """Items of one float tensor of `shape`."""
    return lambda generator, n: torch.randn(n, *shape, generator=generator)


def _settled(make: Callable[[], nn.Module], draw: Draw, gain: float) -> tuple[nn.Module, Inputs]:
    """The model, its norms' gains and statistics different by channel, as after training.

    Most of what a BatchNorm puts out is positive: where activations cut away half of it, a random
    network of fifty layers is chaotic, and the rounding of a quantized one decides what it returns.
    """
    inputs = draw(_generator(1), TRAIN + VAL + TEST)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
        hooks = []
        for module in model.modules():
            if isinstance(module, _NORMS) and module.weight is not None:
                module.weight.uniform_(0.4, 1.2)
                module.bias.normal_(0.5 if isinstance(module, BatchNorm) else 0.0, 0.1)
            if isinstance(module, BatchNorm) and module.track_running_stats:
                hooks.append(module.register_forward_pre_hook(_measure))
        call(model, map_inputs(inputs, lambda t: t[:TRAIN]))
        for hook in hooks:
            hook.remove()
    return model, inputs


def _measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Take the statistics of a BatchNorm from its input. Channels that hardly vary are not blown up
    to unit variance: training would give them small gains, and what is blown up of a quantized
    network is its rounding.
    """
    assert isinstance(module, BatchNorm)
    assert module.running_mean is not None
    assert module.running_var is not None
    by_channel = inputs[0].transpose(0, 1).flatten(1)
    variance = by_channel.var(1)
    module.running_mean.copy_(by_channel.mean(1))
    module.running_var.copy_(variance.clamp_min(0.1 * float(variance.mean())))


def _splits(inputs: Inputs, targets: Tensor) -> list[tuple[Inputs, Tensor]]:
    bounds = ((0, TRAIN), (TRAIN, TRAIN + VAL), (TRAIN + VAL, TRAIN + VAL + TEST))
    parts = (slice(a, b) for a, b in bounds)
    return [(map_inputs(inputs, operator.itemgetter(part)), targets[part]) for part in parts]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
