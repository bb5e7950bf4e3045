"""Models that compute in 16 bits and are called with, and return, what they did before: float32.

The precision changes at the model's border, by a hook on either side, so that the module tree, the
names and the signature stay those of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from petra.model.copies.copying import copy_model

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""bfloat16 has float32's range and 8 bits of precision, float16 11 bits and nothing beyond 65,504.
"""


@dataclass(frozen=True)
class _Narrow:
    """Forward pre-hook: floating-point arguments in `dtype`, but for those by the names in `wide`,
    or, where that is None, all.
    """

    dtype: torch.dtype
    wide: tuple[str, ...] | None = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.wide is None:
            return args, kwargs
        names = [name for name in kwargs if name not in self.wide]
        narrow = _narrowed((args, {name: kwargs[name] for name in names}), self.dtype)
        return narrow[0], kwargs | narrow[1]


@dataclass(frozen=True)
class _NarrowResult:
    """Forward hook of what computes in float32: its result in `dtype`."""

    dtype: torch.dtype

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return _narrowed(output, self.dtype)


def _narrowed(tree: Any, dtype: torch.dtype) -> Any:
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, tree)


def _widen(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook: floating-point results in float32."""
    return tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, output)


def halve(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Let `model`, in place, compute in `dtype`: weights, buffers and arithmetic; inputs and
    outputs stay float32.

    A module that says `in_float32` is left as it is, up to its result: dates and counts have more
    digits than 16 bits, which a normalisation takes away. Where the model begins with one, its
    inputs are not narrowed before.
    """
    # Not `model.to`, which drops the imaginary part of complex tensors.

    def halved(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(halved)  # type: ignore[no-untyped-call]
    for module in model.modules():
        if getattr(module, "in_float32", False):
            module.register_forward_hook(_NarrowResult(dtype))
    model.register_forward_pre_hook(_Narrow(dtype, _read_wide(model)), with_kwargs=True)
    model.register_forward_hook(_widen)
    return model


def _read_wide(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the inputs that modules in float32 read first; None for all there are."""
    while isinstance(model, nn.Sequential) and len(model):
        model = model[0]
    if getattr(model, "in_float32", False):
        return None
    found: tuple[str, ...] = getattr(model, "normalised_inputs", ())
    return found


def half_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision that `halve` gave the model, None where it did not."""
    return next(
        (hook.dtype for hook in model._forward_pre_hooks.values() if isinstance(hook, _Narrow)),
        None,
    )


def widened(model: nn.Module) -> nn.Module:
    """A copy of a halved model that computes in float32, with the weights that it has left."""
    wide = copy_model(model).float()
    for module in wide.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            ours = [
                key
                for key, hook in hooks.items()
                if isinstance(hook, _Narrow | _NarrowResult) or hook is _widen
            ]
            for key in ours:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
    return wide
