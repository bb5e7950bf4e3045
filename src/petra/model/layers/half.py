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
    """Forward pre-hook: floating-point arguments in `dtype`."""

    dtype: torch.dtype

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tree_map_only(
            Tensor, lambda t: t.to(self.dtype) if t.is_floating_point() else t, (args, kwargs)
        )


def _widen(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook: floating-point results in float32."""
    return tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, output)


def halve(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Let `model`, in place, compute in `dtype`: weights, buffers and arithmetic; inputs and
    outputs stay float32.
    """
    # Not `model.to`, which drops the imaginary part of complex tensors.

    def halved(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(halved)  # type: ignore[no-untyped-call]
    model.register_forward_pre_hook(_Narrow(dtype), with_kwargs=True)
    model.register_forward_hook(_widen)
    return model


def half_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision that `halve` gave the model, None where it did not."""
    return next(
        (hook.dtype for hook in model._forward_pre_hooks.values() if isinstance(hook, _Narrow)),
        None,
    )


def widened(model: nn.Module) -> nn.Module:
    """A copy of a halved model that computes in float32, with the weights that it has left."""
    wide = copy_model(model).float()
    for hooks in (wide._forward_pre_hooks, wide._forward_hooks):
        for key in [
            key for key, hook in hooks.items() if isinstance(hook, _Narrow) or hook is _widen
        ]:
            del hooks[key]
            wide._forward_pre_hooks_with_kwargs.pop(key, None)
    return wide
