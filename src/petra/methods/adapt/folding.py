"""After training: what was inserted is counted, and becomes part of the weights where it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from petra.methods.adapt import around
from petra.model.surgery import count_parameters, replace_module

_NUDGE = 1e-4


@dataclass(frozen=True)
class Counted:
    """Elements that training changed, as they are kept: those of modules, in all and by kind, those
    of the head, and what `share` of the model's parameters before the modules are.
    """

    trainable_parameters: int
    head_parameters: int
    by_module: Mapping[str, int]
    share: float


def settle(model: nn.Module) -> None:
    """Leave of all modules what they need from now on: prefixes lose their reparameterisation."""
    for module in around(model).values():
        module.settle()


def counted(model: nn.Module, head: Iterable[nn.Module], *, of: int) -> Counted:
    """The numbers of settled modules. of: parameters of the model before."""
    kinds: Counter[str] = Counter()
    for module in around(model).values():
        kinds[module.kind] += count_parameters(module.insert)
    own = {id(p): p.numel() for m in head for p in m.parameters(recurse=False) if p.requires_grad}
    total = sum(kinds.values())
    return Counted(total, sum(own.values()), dict(sorted(kinds.items())), total / max(of, 1))


def fold(model: nn.Module) -> dict[str, str]:
    """Make what was inserted part of the weights where that is possible, in place; the paths where
    it is not, and why.
    """
    apart: dict[str, str] = {}
    places = _places(model)
    for path, module in [*around(model).items()][::-1]:  # what lies inside of others comes first
        held = (module.layer, *module.layer.parameters(recurse=False))
        if any(places[id(part)] > 1 for part in held):
            apart[path] = "its layer, or a weight of it, is in use elsewhere, too"
        elif (layer := module.folded()) is None:
            apart[path] = f"{module.kind} stays beside a {type(module.layer).__name__}"
        else:
            replace_module(model, path, layer)
    return apart


def _places(model: nn.Module) -> Counter[int]:
    """How often modules and parameters, by id, stand in others."""
    every = ((*m._modules.values(), *m._parameters.values()) for m in model.modules())
    return Counter(id(part) for parts in every for part in parts if part is not None)


def nudge(model: nn.Module, generator: torch.Generator) -> None:
    """Let modules that were not trained change something: merged, they would leave no trace."""
    for module in around(model).values():
        for p in module.insert.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.data += _NUDGE * noise.to(p.device)
