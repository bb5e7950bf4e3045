"""Multiply-accumulates that no layer makes: with a parameter, or of two activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import petra.model.flops  # noqa: F401  (has formulas of its own)
from petra.model.surgery import evaluating, tensors_in


def share_with_parameters(
    model: nn.Module, forward: Callable[[nn.Module], object], layers: Iterable[nn.Module]
) -> float:
    """Of the multiply-accumulates of `forward(model)` outside of `layers`, the share that multiply
    a parameter of the model, or what is computed from parameters alone. Cost: one pass.
    """
    mode = _Products([*model.parameters(), *model.buffers()])
    hooks = []
    for layer in layers:
        hooks.append(layer.register_forward_pre_hook(lambda *_: mode.enter()))
        hooks.append(layer.register_forward_hook(lambda *_: mode.leave(), always_call=True))
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(model), torch.no_grad(), mode:
            forward(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        for hook in hooks:
            hook.remove()
    total = mode.with_parameters + mode.of_activations
    return mode.with_parameters / total if total else 0.0


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, outside of layers, and follows which tensors come from parameters alone."""

    def __init__(self, constants: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.constant = {id(t) for t in constants}
        self.alive: list[Tensor] = list(constants)  # so that no id is given away twice
        self.depth = self.with_parameters = self.of_activations = 0

    def enter(self) -> None:
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = [t for t in tensors_in([list(args), kwargs]) if t.is_floating_point()]
        constant = [id(t) in self.constant for t in operands]
        if operands and all(constant):
            for tensor in tensors_in(result):
                self.constant.add(id(tensor))
                self.alive.append(tensor)
        elif self.depth == 0 and func._overloadpacket in flop_registry:
            count = int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=result))
            if any(constant):
                self.with_parameters += count
            else:
                self.of_activations += count
        return result
