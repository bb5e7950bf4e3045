"""Why a layer is in no trace: never used, used without a call, or without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from petra.model.surgery import differentiable, evaluating

NOT_USED = "the example inputs do not reach it"
READ = "its weight is read directly, without calling it"
NO_GRADIENT = (
    "it is called where no gradients are kept (no_grad, detach), and they are what is followed"
)


def why_not_followed(
    model: nn.Module, forward: Callable[[nn.Module], Iterable[Tensor]], paths: Iterable[str]
) -> dict[str, str]:
    """For each of the layers at `paths`, which a trace by gradients has not met or a hook not seen
    called, the reason; '' where it is called like any other. Cost: one pass with gradients."""
    layers = {path: model.get_submodule(path) for path in paths}
    called: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, path=path: called.add(path))
        for path, layer in layers.items()
    ]
    try:
        with evaluating(model), differentiable(model):
            reached = _parameters_behind(list(forward(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: _reason(layer, path in called, reached) for path, layer in layers.items()}


def _reason(layer: nn.Module, called: bool, reached: set[int]) -> str:
    followed = any(id(p) in reached for p in layer.parameters(recurse=False))
    if called:
        return "" if followed else NO_GRADIENT
    return READ if followed else NOT_USED


def _parameters_behind(outputs: list[Tensor]) -> set[int]:
    """Ids of the parameters that the outputs have a gradient for."""
    todo: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen: set[Any] = set(todo)
    found: set[int] = set()
    while todo:
        function = todo.pop()
        if hasattr(function, "variable"):
            found.add(id(function.variable))
        for before, _ in function.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                todo.append(before)
    return found
