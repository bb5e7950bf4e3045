"""ONNX's operators that compute over axes: sums, norms, products of what was computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from petra.model.imported.elementwise import Attributes, Run
from petra.model.imported.values import Unreadable, Value, is_static, numbers, tensor


def _softmax(function: Callable[..., Tensor]) -> Run:
    """Before opset 13, over all axes from the one named; `flat` says so."""

    def run(attributes: Attributes, x: Tensor) -> Tensor:
        flat = attributes.get("flat", False)
        axis = attributes.get("axis", 1 if flat else -1)
        if not flat or axis in (-1, x.ndim - 1):
            return function(x, dim=axis)
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


def reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Run:
    """Over the axes named by an attribute or an input; without any, over all of them."""

    def run(attributes: Attributes, x: Value, axes: Value = None) -> Value:
        given = attributes.get("axes") if axes is None else numbers(axes)
        if not given and attributes.get("noop_with_empty_axes", 0):
            return x
        keep = bool(attributes.get("keepdims", 1))
        if is_static(x) and function is _product:
            return math.prod(numbers(x)) if not keep else np.array([math.prod(numbers(x))], object)
        x = tensor(x)
        chosen = [axis % x.ndim for axis in given] if given else list(range(x.ndim))
        return function(x, chosen, keep)

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _best(function: Callable[..., Tensor]) -> Run:
    def run(attributes: Attributes, x: Tensor) -> Tensor:
        if attributes.get("select_last_index", 0):
            raise Unreadable("the last of equal values is asked for")
        axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
        return function(x, dim=axis, keepdim=keep)

    return run


def _cumulative(attributes: Attributes, x: Value, axis: Value) -> Tensor:
    if attributes.get("exclusive", 0) or attributes.get("reverse", 0):
        raise Unreadable("sums that are exclusive or run backwards")
    x = tensor(x)
    return torch.cumsum(x, int(numbers(axis)[0])).to(x.dtype)


def _top(attributes: Attributes, x: Tensor, count: Value = None) -> tuple[Tensor, Tensor]:
    """Of equal values, the first comes first."""
    k = attributes["k"] if count is None else numbers(count)[0]
    axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), places.narrow(axis, 0, k)


# -- products and norms without weights of their own -----------------------------------------------


def _matmul(attributes: Attributes, a: Value, b: Value) -> Tensor:
    return torch.matmul(tensor(a), tensor(b))


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Value = None) -> Tensor:
    a = a.transpose(0, 1) if attributes.get("transA", 0) else a
    b = b.transpose(0, 1) if attributes.get("transB", 0) else b
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    found = a @ b if alpha == 1 else alpha * (a @ b)
    return found if c is None else found + (tensor(c) if beta == 1 else beta * tensor(c))


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Value = None) -> Tensor:
    axis = attributes.get("axis", -1) % x.ndim
    shape = tuple(x.shape[axis:])
    return functional.layer_norm(
        x,
        shape,
        tensor(scale).expand(shape),
        None if bias is None else tensor(bias).expand(shape),
        attributes.get("epsilon", 1e-5),
    )


def _rms_norm(attributes: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    axis = attributes.get("axis", -1) % x.ndim
    axes = list(range(axis, x.ndim))
    return x * torch.rsqrt(x.pow(2).mean(axes, True) + attributes.get("epsilon", 1e-5)) * scale


def _instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    eps = attributes.get("epsilon", 1e-5)
    return functional.instance_norm(x, weight=tensor(scale), bias=tensor(bias), eps=eps)


def _normalised(attributes: Attributes, x: Tensor) -> Tensor:
    p, axis = attributes.get("p", 2), attributes.get("axis", -1)
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def _by_neighbours(attributes: Attributes, x: Tensor) -> Tensor:
    alpha, beta = attributes.get("alpha", 1e-4), attributes.get("beta", 0.75)
    return functional.local_response_norm(
        x, attributes["size"], alpha, beta, attributes.get("bias", 1.0)
    )


def _einsum(attributes: Attributes, *inputs: Value) -> Tensor:
    return torch.einsum(attributes["equation"], *map(tensor, inputs))


OVER_AXES: Mapping[str, Run] = {
    "GlobalAveragePool": lambda a, x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax(list(range(2, x.ndim)), keepdim=True),
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "ReduceMean": reduced(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": reduced(lambda x, axes, keep: x.sum(axes, keep).to(x.dtype)),
    "ReduceMax": reduced(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": reduced(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": reduced(_product),
    "ReduceL1": reduced(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": reduced(lambda x, axes, keep: x.pow(2).sum(axes, keep).sqrt()),
    "ReduceSumSquare": reduced(lambda x, axes, keep: x.pow(2).sum(axes, keep)),
    "ReduceLogSumExp": reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ReduceLogSum": reduced(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ArgMax": _best(torch.argmax),
    "ArgMin": _best(torch.argmin),
    "CumSum": _cumulative,
    "TopK": _top,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "LpNormalization": _normalised,
    "LRN": _by_neighbours,
}
