"""Convolutions and linear layers that compute their weight from their own parameters in `forward`.

Weight standardisation and its kin are written as subclasses (the `ScaledStdConv` of image models).
Such a layer is a plain one with a constant weight as soon as it is no longer trained that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from petra.model.surgery import evaluating, tensors_in

_PLAIN: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: functional.linear,
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_ASKS = ("__get__", "size", "dim", "ndimension", "numel", "is_floating_point")


@torch.no_grad()
def fold_computed_layers(
    model: nn.Module, forward: Callable[[nn.Module], object]
) -> tuple[str, ...]:
    """Make plain layers, in place, of those that are one product with a weight they compute.

    What `forward(model)` returns stays the same up to rounding, else nothing is changed. Returns
    the paths. Costs three passes over each such layer, and two of `forward` where there are any.
    """
    found = {
        path: layer
        for path, module in model.named_modules()
        if (layer := _computed(module)) is not None
    }
    if not found:
        return ()
    with evaluating(model):
        before = list(tensors_in(forward(model)))
    modules = {path: model.get_submodule(path) for path in found}
    states = {path: (type(module), dict(vars(module))) for path, module in modules.items()}
    for path, (weight, bias) in found.items():
        _become_plain(modules[path], weight, bias)
    if _agrees(model, forward, before):
        return tuple(found)
    for path, (kind, state) in states.items():
        modules[path].__class__ = kind
        vars(modules[path]).update(state)
    return ()


def _agrees(model: nn.Module, forward: Callable[[nn.Module], object], before: list[Tensor]) -> bool:
    try:
        with evaluating(model):
            after = list(tensors_in(forward(model)))
    except (AttributeError, TypeError, RuntimeError, ValueError, LookupError):
        return False  # code around a layer wants more of it than its result
    return len(after) == len(before) and all(map(_close, after, before))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def _base_of(module: nn.Module) -> type[nn.Module] | None:
    """The plain class that a layer's own is made of, if it computes in another way."""
    base = next((kind for kind in _PLAIN if isinstance(module, kind)), None)
    if base is None or type(module) is base or module._modules or module._buffers:
        return None
    own: Any = type(module)
    kept = [name for name in ("forward", "_conv_forward") if hasattr(base, name)]
    return None if all(getattr(own, n) is getattr(base, n) for n in kept) else base


def _computed(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight and bias that a layer computes, if using them is all it does to its input."""
    base = _base_of(module)
    if base is None or module._parameters.get("weight") is None:
        return None
    first = _watched(module, base)
    second = _watched(module, base)
    own = module._parameters["weight"]
    if first is None or second is None or own is None or first[0] is own:
        return None
    if first[0].shape != own.shape:
        return None
    same = torch.equal(first[0], second[0])  # not so where it is random
    return (first[0], first[1]) if same and torch.isfinite(first[0]).all() else None


def _watched(module: Any, base: type[nn.Module]) -> tuple[Tensor, Tensor | None] | None:
    kernel = getattr(module, "kernel_size", ())
    reach = [d * (k - 1) + 3 for k, d in zip(kernel, getattr(module, "dilation", ()), strict=True)]
    inputs = module.in_features if base is nn.Linear else module.in_channels
    x = torch.linspace(-1, 1, 2 * inputs * torch.Size(reach).numel()).reshape(2, inputs, *reach)
    watch = _Watch(x.to(module.weight), _PLAIN[base])
    try:
        with evaluating(module), watch:
            result = module(watch.x)
    except (AttributeError, TypeError, RuntimeError, ValueError, LookupError):
        return None
    call = watch.call
    if call is None or watch.meddles or result is not watch.result:
        return None
    geometry = _ARGUMENTS[3:] if base is not nn.Linear else ()
    if any(_tuple(call[n], kernel) != _tuple(getattr(module, n), kernel) for n in geometry):
        return None
    return call["weight"].detach().clone(), None if call["bias"] is None else call["bias"].detach()


def _tuple(value: object, kernel: tuple[int, ...]) -> object:
    if isinstance(value, int):
        return (value,) * len(kernel)
    return tuple(value) if isinstance(value, (list, tuple)) else value


class _Watch(TorchFunctionMode):
    """Notes the one call that may read `x`, and whether anything else does."""

    def __init__(self, x: Tensor, product: Callable[..., Tensor]) -> None:
        super().__init__()
        self.x, self.product = x, product
        self.call: dict[str, Any] | None = None
        self.result: Tensor | None = None
        self.meddles = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        value = func(*args, **kwargs)
        reads = [t for t in tensors_in([list(args), kwargs]) if t is self.x or t is self.result]
        if not reads or getattr(func, "__name__", "") in _ASKS:
            return value
        named = {**_DEFAULTS, **dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        if func is self.product and self.call is None and named["input"] is self.x:
            self.call, self.result = named, value
        else:
            self.meddles = True
        return value


def _become_plain(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    base = _base_of(module)
    assert base is not None
    trained = any(p.requires_grad for p in module.parameters())
    state = dict(vars(module))
    state["_parameters"] = {
        "weight": nn.Parameter(weight, requires_grad=trained),
        "bias": None if bias is None else nn.Parameter(bias.clone(), requires_grad=trained),
    }
    vars(module).update(state)
    module.__class__ = base
