"""Which weights training changes: those that require a gradient.

A candidate starts with all weights trainable (`unfreeze`). What a stage freezes stays so for the
stages after it, through copies, surgery and the cache, until one calls `unfreeze`.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn


def unfreeze(model: nn.Module) -> None:
    """Let training change every floating-point weight of `model`."""
    for p in model.parameters():
        if p.is_floating_point():
            p.requires_grad_(True)


def freeze(model: nn.Module, *, but: Collection[nn.Module] = ()) -> None:
    """Keep training away from all weights of `model` but those of the modules `but`, which it may
    change.
    """
    for p in model.parameters():
        p.requires_grad_(False)
    for module in but:
        unfreeze(module)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The module's own weights, not those of modules inside it, that training changes."""
    return [p for p in module.parameters(recurse=False) if p.requires_grad]


def changing(model: nn.Module) -> dict[str, Tensor]:
    """What training may change, by name: weights that are not frozen, and all buffers."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {**weights, **dict(model.named_buffers())}


def frozen_layers(model: nn.Module) -> tuple[str, ...]:
    """Paths of the modules with floating-point weights of their own, all of them frozen."""
    return tuple(path for path, module in model.named_modules() if is_frozen(module))


def is_frozen(module: nn.Module) -> bool:
    """Whether the module has floating-point weights of its own and training changes none."""
    own = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
    return bool(own) and not any(p.requires_grad for p in own)
