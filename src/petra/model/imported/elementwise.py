"""ONNX's operators that compute element by element.

Every function takes an operator's attributes and its inputs, None for those that are absent, and
returns what it makes. Names, attributes and defaults are those of the ONNX standard (Operators.md).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from petra.model.imported.values import (
    Unreadable,
    Value,
    is_static,
    operands,
    plain,
    tensor,
)

Attributes = Mapping[str, Any]
Run = Callable[..., Value | tuple[Value, ...]]


def _unary(function: Callable[[Tensor], Tensor]) -> Run:
    return lambda attributes, x: function(tensor(x))


def _pairwise(function: Callable[[Any, Any], Any]) -> Run:
    """Of two inputs or, of Sum and its like, any number."""
    return lambda attributes, *inputs: reduce(function, operands(inputs))


def _compared(function: Callable[[Any, Any], Any]) -> Run:
    return lambda attributes, a, b: function(*operands((a, b)))


def _divide(attributes: Attributes, a: Value, b: Value) -> Value:
    """Whole numbers are cut off towards zero."""
    a, b = operands((a, b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        whole = not any(x.is_floating_point() if isinstance(x, Tensor) else False for x in (a, b))
        if whole and not any(isinstance(x, float) for x in (a, b)):
            return torch.div(tensor(a), tensor(b), rounding_mode="trunc")
        return a / b
    return np.frompyfunc(_cut, 2, 1)(a, b)


def _cut(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float) or b == 0:
        return a / b if b != 0 else math.nan
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a // b  # sizes are not negative


def _modulo(attributes: Attributes, a: Value, b: Value) -> Value:
    a, b = operands((a, b))
    if not (isinstance(a, Tensor) or isinstance(b, Tensor)):
        return a % b
    fmod = attributes.get("fmod", 0)
    return torch.fmod(tensor(a), tensor(b)) if fmod else torch.remainder(tensor(a), tensor(b))


def _power(attributes: Attributes, a: Value, b: Value) -> Value:
    """The result has the type of the base."""
    a, b = operands((a, b))
    if not isinstance(a, Tensor):
        return a**b
    return torch.pow(a, b).to(a.dtype)


def _least(a: Any, b: Any) -> Any:
    return (
        torch.minimum(*_both(a, b))
        if _any_tensor(a, b)
        else np.frompyfunc(torch.sym_min, 2, 1)(a, b)
    )


def _greatest(a: Any, b: Any) -> Any:
    return (
        torch.maximum(*_both(a, b))
        if _any_tensor(a, b)
        else np.frompyfunc(torch.sym_max, 2, 1)(a, b)
    )


def _any_tensor(*values: Any) -> bool:
    return any(isinstance(value, Tensor) for value in values)


def _both(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    like = a if isinstance(a, Tensor) else b
    return tuple(  # type: ignore[return-value]
        x if isinstance(x, Tensor) else torch.full((), x, dtype=like.dtype) for x in (a, b)
    )


def _mean(attributes: Attributes, *inputs: Value) -> Value:
    return reduce(operator.add, operands(inputs)) / len(inputs)


def _where(attributes: Attributes, condition: Value, a: Value, b: Value) -> Value:
    if all(map(is_static, (condition, a, b))):
        chosen = np.asarray(condition, object).astype(bool)
        return np.where(chosen, np.asarray(a, object), np.asarray(b, object))
    a, b = operands((a, b)) if not (is_static(a) and is_static(b)) else (plain(a), plain(b))
    a, b = (tensor(x) if isinstance(x, np.ndarray) else x for x in (a, b))
    return torch.where(tensor(condition), a, b)


def _negated(attributes: Attributes, x: Value) -> Value:
    return ~x if isinstance(x, Tensor) else np.logical_not(np.asarray(x, object).astype(bool))


def _negative(attributes: Attributes, x: Value) -> Value:
    return -x if isinstance(x, Tensor) else -np.asarray(x, object)


def _clip(attributes: Attributes, x: Value, low: Value = None, high: Value = None) -> Value:
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    if is_static(x):
        found = np.asarray(x, object)
        found = found if low is None else np.frompyfunc(torch.sym_max, 2, 1)(found, plain(low))
        return found if high is None else np.frompyfunc(torch.sym_min, 2, 1)(found, plain(high))
    if low is None and high is None:
        return x
    if plain(low) == 0 and high is None and is_static(low):
        return torch.relu(x)
    low, high = (
        tensor(b) if isinstance(b, np.ndarray) and b.ndim else plain(b) for b in (low, high)
    )
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (None if b is None else tensor(b).reshape(()) for b in (low, high))
    return torch.clamp(x, low, high)


_KINDS = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    11: torch.float64,
}
"""PyTorch's types by ONNX's number of them; half precision is refused with the file."""


def kind_of(number: int) -> torch.dtype:
    if number not in _KINDS:
        raise Unreadable("a cast to a type that petra does not compute in: export it in float32")
    return _KINDS[number]


def _cast(attributes: Attributes, x: Value, like: Value = None) -> Value:
    kind = kind_of(attributes["to"]) if like is None else tensor(like).dtype
    if isinstance(x, Tensor):
        return x.to(kind)
    if kind is torch.bool:
        function: Callable[[Any], Any] = bool
    else:
        function = torch.sym_float if kind.is_floating_point else torch.sym_int
    return np.frompyfunc(function, 1, 1)(np.asarray(x, object))


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=attributes.get("approximate", "none"))


def _prelu(attributes: Attributes, x: Tensor, slope: Value) -> Tensor:
    return torch.where(x < 0, x * plain(slope), x)


def _shrink(attributes: Attributes, x: Tensor) -> Tensor:
    lambd, bias = attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


def _hard_sigmoid(attributes: Attributes, x: Tensor) -> Value:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(x)
    return (alpha * x + beta).clamp(0, 1)


def _elu(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.elu(x, attributes.get("alpha", 1.0))


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Abs": torch.abs,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "HardSwish": functional.hardswish,
    "Mish": functional.mish,
    "IsNaN": torch.isnan,
}

ELEMENTWISE: Mapping[str, Run] = {
    **{name: _unary(function) for name, function in _FUNCTIONS.items()},
    "Add": _pairwise(operator.add),
    "Sub": _pairwise(operator.sub),
    "Mul": _pairwise(operator.mul),
    "Sum": _pairwise(operator.add),
    "Div": _divide,
    "Mod": _modulo,
    "Pow": _power,
    "Min": _pairwise(_least),
    "Max": _pairwise(_greatest),
    "Mean": _mean,
    "Equal": _compared(operator.eq),
    "Less": _compared(operator.lt),
    "LessOrEqual": _compared(operator.le),
    "Greater": _compared(operator.gt),
    "GreaterOrEqual": _compared(operator.ge),
    "And": _compared(operator.and_),
    "Or": _compared(operator.or_),
    "Xor": _compared(operator.xor),
    "Not": _negated,
    "Neg": _negative,
    "Where": _where,
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": _cast,
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": _elu,
    "Celu": lambda a, x: functional.celu(x, a.get("alpha", 1.0)),
    "Selu": lambda a, x: _selu(x, a),
    "HardSigmoid": _hard_sigmoid,
    "ThresholdedRelu": lambda a, x: functional.threshold(x, a.get("alpha", 1.0), 0.0),
    "Shrink": _shrink,
    "Gelu": _gelu,
    "PRelu": _prelu,
}


def _selu(x: Tensor, attributes: Attributes) -> Value:
    alpha = attributes.get("alpha", 1.67326319217681884765625)
    gamma = attributes.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * (torch.exp(x) - 1))
