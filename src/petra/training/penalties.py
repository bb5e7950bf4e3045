"""Penalties on weights: what a training stage may add to the task's loss to shape weights while it
trains.

The mathematics is one function per penalty: of a matrix W (C, k) with one row per channel, or of
the gains of a batch normalisation. The rows are one layer's filters (`make_penalty`) or, for
penalties that prepare channels for being cut, all weights that would go with a channel
(`make_channel_penalty`): behind a batch normalisation a filter's length alone means nothing, and
coupled layers must agree on their weak channels (Fang et al. 2023, "DepGraph").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.kinds import WEIGHTED, BatchNorm

PENALTIES = ("orthogonality", "hoyer", "norm", "adaptive", "bn_l1", "group_lasso", "growing")
# Those that prepare channels for being cut.
OVER_CHANNELS = frozenset({"hoyer", "group_lasso", "growing"})

Channels = Callable[[], Tensor]
"""Gives W (C, k): all weights that go with each of C channels, one row per channel.

Gradients pass through.
"""


def filters(layer: nn.Module) -> Tensor:
    """(C, k) weight of a linear or convolutional layer, one row per output channel.

    Gradients pass through.
    """
    module: Any = layer
    weight: Tensor = module.weight
    if getattr(layer, "transposed", False):
        # (in, out / groups, ...), and groups are counted along the inputs.
        grouped = weight.reshape(module.groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).reshape(module.out_channels, -1)
    return weight.flatten(1)


def lengths(W: Tensor) -> Tensor:
    """(C,) ||w_c||_2."""
    norms: Tensor = torch.linalg.vector_norm(W, dim=1)
    return norms


def orthogonality(W: Tensor) -> Tensor:
    """||W W^T - I||_F^2 / C, with W^T W and its identity in their place where that is smaller: the
    two differ by the constant (C - k) / C, so they train alike. Bansal et al. 2018, soft
    orthogonality.
    """
    gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    return (gram - torch.eye(len(gram), dtype=W.dtype, device=W.device)).square().sum() / W.shape[0]


def hoyer(W: Tensor) -> Tensor:
    """||n||_1 / ||n||_2 of the channels' norms n_c = ||w_c||_2: from 1 (one channel left) to
    sqrt(C) (all alike).

    Does not depend on the scale of W, so it spreads norms without shrinking them (Hoyer 2004; Yang
    et al. 2020).
    """
    norms = lengths(W)
    return norms.sum() / norms.square().sum().clamp_min(1e-24).sqrt()


def norm(W: Tensor) -> Tensor:
    """sum_c (1 - ||w_c||_2)^2: every output neuron is pulled to unit length (Georgiou et al.
    2021).
    """
    return (1 - lengths(W)).square().sum()


def adaptive(W: Tensor, gradient: Tensor) -> Tensor:
    """sum exp(-|dL/dw|) w^2, with the gradient taken as a constant: weights the loss hardly depends
    on decay most.
    """
    return (torch.exp(-gradient.detach().abs()) * W.square()).sum()


def bn_l1(gamma: Tensor) -> Tensor:
    """sum |gamma| of a batch normalisation's gains (Liu et al. 2017, Network Slimming)."""
    return gamma.abs().sum()


def group_lasso(W: Tensor) -> Tensor:
    """sum_c ||w_c||_2: channels go to zero as a whole (Wen et al. 2016)."""
    return lengths(W).sum()


def growth(scores: Tensor) -> Tensor:
    """(C,) (max s - s_c) / (max s - min s): 1 for the least important channel, 0 for the most;
    zeros if all equal.
    """
    low, high = scores.min(), scores.max()
    return (high - scores) / (high - low) if float(high) > float(low) else torch.zeros_like(scores)


def growing(W: Tensor, coefficients: Tensor) -> Tensor:
    """sum_c lambda_c ||w_c||_2^2, an L2 penalty with a coefficient per channel (C,).

    Wang et al. 2021, "Neural Pruning via Growing Regularization", raise lambda step by step on the
    channels that are to go; grading it by importance instead of choosing a share beforehand follows
    Torch-Pruning (Fang et al. 2023).
    """
    return (coefficients * W.square().sum(1)).sum()


class Growing:
    """`weight` times the sum over groups of `growing`. Each call is a training step, the `steps`-th
    has full force: lambda_c = step / steps * growth(||w_c||_2 at the start).
    """

    def __init__(self, groups: Sequence[Channels], *, weight: float, steps: int) -> None:
        self._groups = groups
        self._rates = [growth(lengths(W().detach())) for W in groups]
        self._weight, self._steps, self._step = weight, steps, 0

    def skip(self, steps: int) -> None:
        """Be as after so many steps more."""
        self._step += steps

    def __call__(self) -> Tensor:
        self._step += 1
        force = self._weight * min(1.0, self._step / self._steps)
        terms = [growing(W(), rates) for W, rates in zip(self._groups, self._rates, strict=True)]
        return force * torch.stack(terms).sum()


def _adaptive(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    return adaptive(weight, torch.zeros_like(weight) if weight.grad is None else weight.grad)


_OF_LAYER: Mapping[str, Callable[[nn.Module], Tensor]] = {
    "orthogonality": lambda m: orthogonality(filters(m)),
    "norm": lambda m: norm(filters(m)),
    "adaptive": _adaptive,
    "bn_l1": lambda m: bn_l1(m.weight),  # type: ignore[arg-type]
}


def penalised_layers(kind: str, model: nn.Module) -> dict[str, nn.Module]:
    """The layers, by path, that a penalty of layers acts on: batch normalisations with gains for
    bn_l1, linear and convolutional layers for the others, without those that are frozen. A weight
    that several layers share is taken once.
    """
    found: dict[str, nn.Module] = {}
    weights: set[int] = set()
    for path, module in model.named_modules():
        kinds = (BatchNorm,) if kind == "bn_l1" else WEIGHTED
        weight = module._parameters.get("weight")
        if weight is None or not weight.requires_grad:
            continue
        if isinstance(module, kinds) and id(weight) not in weights:
            found[path] = module
            weights.add(id(weight))
    return found


def make_penalty(kind: str, layers: Sequence[nn.Module], *, weight: float) -> Callable[[], Tensor]:
    """`weight` times the sum over `layers` (at least one) of the penalty `kind`, as `fit` takes it.

    To be called when the gradient of the task's loss lies in the weights' ``grad``: that is where
    `adaptive` reads it, so that it costs no second backward pass.
    """
    of_layer = _OF_LAYER[kind]
    return lambda: weight * torch.stack([of_layer(m) for m in layers]).sum()


def make_channel_penalty(
    kind: str, groups: Sequence[Channels], *, weight: float, steps: int
) -> Callable[[], Tensor]:
    """`weight` times the sum over `groups` (at least one) of the penalty `kind`, one of
    OVER_CHANNELS, as `fit` takes it. To be called once per training step, of `steps` in all.
    """
    if kind == "growing":
        return Growing(groups, weight=weight, steps=steps)
    of_channels = {"hoyer": hoyer, "group_lasso": group_lasso}[kind]
    return lambda: weight * torch.stack([of_channels(W()) for W in groups]).sum()
