"""Weights that are computed from other tensors at every call, put in their place as plain weights.

Covers ``torch.nn.utils.parametrize`` (weight_norm, spectral_norm, orthogonal and anything
registered by hand) and the older forms that are hooks: ``torch.nn.utils.weight_norm``,
``spectral_norm`` and the masks of ``torch.nn.utils.prune``.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


@torch.no_grad()
def fold_parametrizations(model: nn.Module) -> tuple[str, ...]:
    """Replace every computed weight of `model`, in place, by a parameter that holds its value in
    evaluation mode.

    What the model computes in evaluation mode stays the same, bit for bit; it pickles, and stages
    see plain layers. Training modes are left as they are. Returns the names of the weights. Costs
    one computation of each of them.
    """
    folded: list[str] = []
    for path, module in list(model.named_modules()):
        names = [*_fold_hooked(module), *_fold_registered(module)]
        if names:
            _forget_readers(module)
        if names and isinstance(module, nn.RNNBase):
            module._init_flat_weights()
        folded += [f"{path}.{name}" if path else name for name in names]
    return tuple(folded)


def _fold_registered(module: nn.Module) -> list[str]:
    """Weights with parametrizations, whose module has a class of its own that computes them."""
    if not parametrize.is_parametrized(module):
        return []
    registered = cast(nn.ModuleDict, module.parametrizations)
    registered.eval()  # a spectral norm would iterate while it trains
    values = {name: getattr(module, name).detach().clone() for name in registered}
    trained = {
        name: [p.requires_grad for p in step.parameters()] for name, step in registered.items()
    }
    del module._modules["parametrizations"]
    # Not torch's own removal: it changes that class, which a copy shares with what it is a copy of.
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        if trained[name]:
            module.register_parameter(name, nn.Parameter(value, requires_grad=any(trained[name])))
        else:
            module.register_buffer(name, value)
    return list(values)


def _fold_hooked(module: nn.Module) -> list[str]:
    """Weights that a hook computes before every call."""
    names = []
    training, module.training = module.training, False
    for hook in list(module._forward_pre_hooks.values()):
        known: Any = hook
        if isinstance(hook, WeightNorm | SpectralNorm):
            known(module, None)
            remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
            remove(module, known.name)
            names.append(known.name)
        elif isinstance(hook, prune.BasePruningMethod):
            known(module, None)
            prune.remove(module, known._tensor_name)  # type: ignore[no-untyped-call]
            names.append(known._tensor_name)
    module.training = training
    return names


def _forget_readers(module: nn.Module) -> None:
    """Remove what would translate an older state dict into tensors that the module has no more."""
    for number, hook in list(module._load_state_dict_pre_hooks.items()):
        if str(getattr(hook, "hook", hook).__module__).startswith("torch.nn.utils."):
            del module._load_state_dict_pre_hooks[number]
