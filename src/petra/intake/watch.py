"""Seeing into a model while it runs: which module is at work, what it took and gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Watch:
    """`stack` holds the paths of the modules at work, innermost last, also when one raised."""

    model: nn.Module
    stack: list[str] = field(default_factory=list)

    @property
    def layer(self) -> str:
        """The innermost module at work, in words."""
        return layer_name(self.model, self.stack[-1] if self.stack else "")


def layer_name(model: nn.Module, path: str) -> str:
    kind = type(model.get_submodule(path)).__name__
    return f"layer {path!r} ({kind})" if path else f"the model itself ({kind})"


Seen = Callable[[str, list[Tensor], list[Tensor]], None]
"""seen(path, taken, given): called when a module has finished."""


@contextmanager
def watching(model: nn.Module, seen: Seen = lambda path, taken, given: None) -> Iterator[Watch]:
    """Follow the calls of all modules of `model`."""
    watch = Watch(model)
    hooks = []
    for path, module in model.named_modules():

        def enter(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            watch.stack.append(path)

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any, path: str = path) -> None:
            watch.stack.pop()
            seen(path, _tensors((args, kwargs)), _tensors(out))

        hooks.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


class Function(TorchFunctionMode):
    """Knows the function of torch's that the model has called, `name`."""

    name = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.name = getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that draws random numbers, with the module at work."""

    def __init__(self, watch: Watch, function: Function) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch, self.function = watch, function
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            name = self.function.name or func.__name__.split(".")[0].rstrip("_")
            self.found.append(f"{name} in {self.watch.layer}")
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> list[Tensor]:
    found = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    if not found and hasattr(value, "values"):  # an output class that the tree does not know
        found = [leaf for leaf in value.values() if isinstance(leaf, Tensor)]
    return found
