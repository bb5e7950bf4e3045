"""Copies of models as people bring them: with tensors of past passes, and hooks.

Models keep what they compute: attention weights for plots, position biases indexed once. Such
tensors belong to the pass that made them. `copy.deepcopy` fails on those with a history, and a copy
whose weights then change must not go on with what was made of the old ones. So they stay behind,
and the next pass makes them again.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx import Proxy
from torch.overrides import TorchFunctionMode

from petra.core.errors import PetraError
from petra.model.copies.rebinding import rebind
from petra.model.tensor_slots import tensor_slots

_DERIVED = ("_g", "_orig")
"""Endings of parameters that torch's hooks compute a weight from: norms, pruning masks."""


class NotCopyable(PetraError):
    """A model holds what there can be no second of: a lock, an open file, a generator."""


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy of `model`, which stays as it is; tensors shared inside it stay shared.

    Tensors that a past forward pass left behind, on modules or anywhere inside their attributes,
    are not copied: those with a gradient history or made while the model was traced. The attribute
    becomes None, or is missing where the module's class asks whether it has it, and entries of
    dicts and lists go. Weights that hooks compute before every pass (`weight_norm`) are kept as
    plain tensors. Hooks and wrapped methods that know modules of `model` know those of the copy. A
    ``__deepcopy__`` of a module's own that does not give equal weights in memory of their own is
    passed over. Costs the time and memory of the weights.

    Raises NotCopyable, naming the layer and the attribute.
    """
    with contextlib.suppress(Exception):  # whatever a foreign __deepcopy__ raises
        copied = _copied(model, own_way=True)
        if _is_copy(copied, model):
            return copied
    try:
        return _copied(model, own_way=False)
    except MemoryError:
        raise
    except RecursionError:
        raise NotCopyable(
            f"{type(model).__name__} cannot be copied: it is nested too deeply",
            hint=(
                "modules inside modules, or links between objects, go deeper than Python's"
                " recursion limit"
            ),
        ) from None
    except Exception as error:
        raise _not_copyable(model, error) from error


class _Left:
    """Stands in a copy for a tensor that is left behind, until it is taken out."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Left:
        return self


_LEFT = _Left()


class _LeavingBehind(TorchFunctionMode):
    """Answers, inside `copy.deepcopy`, for tensors that cannot be copied; `kept` are those copied
    without history."""

    def __init__(self, kept: frozenset[int]) -> None:
        super().__init__()
        self._kept = kept

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        tensor, memo = args if function is Tensor.__deepcopy__ else (None, {})
        if tensor is None or not (is_of_a_pass(tensor) or tensor.is_inference()):
            return function(*args, **(kwargs or {}))
        if id(tensor) not in memo:
            plain = not is_of_a_pass(tensor) or (
                id(tensor) in self._kept and not _is_traced(tensor)
            )
            memo[id(tensor)] = tensor.detach().clone() if plain else _LEFT
        return memo[id(tensor)]


def is_of_a_pass(value: object) -> bool:
    """Whether a value belongs to one forward pass: a tensor with a gradient history, or one that
    was only traced."""
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return True
    return _is_traced(value) or (isinstance(value, Tensor) and not value.is_leaf)


def _is_traced(value: object) -> bool:
    if isinstance(value, FakeTensor | FunctionalTensor | Proxy):
        return True
    return isinstance(value, Tensor) and torch._is_functional_tensor(value)


def _copied(model: nn.Module, *, own_way: bool) -> nn.Module:
    """`model` copied, with the `__deepcopy__` of its modules, or else attribute by attribute."""
    memo: dict[int, Any] = {}
    with torch.no_grad(), _LeavingBehind(_computed_weights(model)):
        if not own_way:
            _copy_by_attributes(model, memo)
        copied: nn.Module = copy.deepcopy(model, memo)
        rebind(copied, memo)
    _take_out(memo)
    return copied


def _computed_weights(model: nn.Module) -> frozenset[int]:
    """Ids of tensors that modules cannot do without: buffers, and weights that hooks compute anew
    before every pass."""
    found = {id(slot.tensor) for slot in tensor_slots(model) if not slot.is_parameter}
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and any(
                f"{name}{end}" in module._parameters for end in _DERIVED
            ):
                found.add(id(value))
    return frozenset(found)


def _copy_by_attributes(model: nn.Module, memo: dict[int, Any]) -> None:
    """Put a copy of every module into `memo`, made without the `__deepcopy__` of its class, unless
    it is torch's."""
    own = [m for m in model.modules() if not _copies_itself(m)]
    for module in own:
        memo[id(module)] = type(module).__new__(type(module))
    for module in own:
        vars(memo[id(module)]).update(copy.deepcopy(vars(module), memo))


def _copies_itself(module: nn.Module) -> bool:
    """Whether torch has given the module a way of being copied that is needed: graphs, scripts,
    parametrizations."""
    method = getattr(type(module), "__deepcopy__", None)
    return method is not None and str(getattr(method, "__module__", "")).startswith("torch.")


def _is_copy(copied: object, model: nn.Module) -> bool:
    """Whether the weights of `copied` are those of `model`, in memory of their own."""
    if type(copied) is not type(model) or copied is model:
        return False
    assert isinstance(copied, nn.Module)
    old = {slot.key: slot.tensor for slot in tensor_slots(model)}
    new = {slot.key: slot.tensor for slot in tensor_slots(copied)}
    if list(old) != list(new) or any(
        m is n for m, n in zip(model.modules(), copied.modules(), strict=False)
    ):
        return False
    return all(_equal_apart(new[key], tensor) for key, tensor in old.items())


def _equal_apart(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    if (
        type(b) not in (Tensor, nn.Parameter)
        or b.layout != torch.strided
        or b.is_meta
        or not b.numel()
    ):
        return a is not b
    a, b = a.detach(), b.detach()
    # NaN is NaN's equal.
    return a.data_ptr() != b.data_ptr() and bool(((a == b) | ((a != a) & (b != b))).all())


# -- what copies must not hold ---------------------------------------------------------------------


def _take_out(memo: dict[int, Any]) -> None:
    """Remove what was left behind from every container and object that `memo` says was copied."""
    for value in list(memo.values()):
        if isinstance(value, nn.Module):
            for name in [name for name, held in vars(value).items() if _is_left(held)]:
                forget(value, name)
        elif isinstance(value, dict):
            for key in [key for key, held in value.items() if _is_left(held)]:
                del value[key]
        elif isinstance(value, list):
            value[:] = [held for held in value if not _is_left(held)]
        elif isinstance(value, set):
            value.discard(_LEFT)
        elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
            for name in [name for name, held in _attributes(value) if _is_left(held)]:
                object.__setattr__(value, name, None)


def forget(module: nn.Module, name: str) -> None:
    """Put an attribute in the state in which the module's class computes it: missing if it asks
    whether it is there.

    It asks by a string, as ``hasattr(self, "bias")`` does, where ``self.bias is None`` has none.
    """
    if any(
        name in _strings(function) for cls in type(module).__mro__ for function in _methods(cls)
    ):
        del vars(module)[name]
    else:
        vars(module)[name] = None


def _methods(cls: type) -> Iterator[types.CodeType]:
    if cls in (object, nn.Module):
        return
    for value in vars(cls).values():
        function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if isinstance(function, types.FunctionType):
            yield function.__code__


def _strings(code: types.CodeType) -> Iterator[str]:
    for value in code.co_consts:
        if isinstance(value, str):
            yield value
        elif isinstance(value, types.CodeType):
            yield from _strings(value)


def _is_left(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return any(map(_is_left, value))
    return (
        value is _LEFT
        or isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
        or _is_traced(value)
    )


def _attributes(value: object) -> list[tuple[str, object]]:
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = getattr(cls, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return list(found.items())


# -- refusing --------------------------------------------------------------------------------------


def _not_copyable(model: nn.Module, error: Exception) -> NotCopyable:
    """What cannot be copied, found by trying every attribute alone."""
    said = next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                with torch.no_grad(), _LeavingBehind(frozenset()):
                    copy.deepcopy(value, {id(m): m for m in model.modules()})
            except Exception as cause:  # noqa: BLE001 - the same
                said = next(
                    (line.strip() for line in str(cause).splitlines() if line.strip()),
                    type(cause).__name__,
                )
                return NotCopyable(
                    f"layer {path!r}: attribute {name!r}, a {type(value).__name__}, cannot be"
                    f" copied: {said}",
                    hint=(
                        "petra works on copies of the model: make such objects where they are used,"
                        " not in the model"
                    ),
                )
    return NotCopyable(f"{type(model).__name__} cannot be copied: {said}")
