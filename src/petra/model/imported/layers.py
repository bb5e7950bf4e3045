"""Nodes that hold weights, as the layers of PyTorch's that they are: what stages look for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.imported.file import Operation
from petra.model.imported.recurrent import RECURRENT
from petra.model.imported.values import Unreadable, Value, is_static, tensor
from petra.model.imported.windows import SamePadding, even, stated_pads

_Make = Mapping[int, Callable[..., nn.Module]]
_CONVOLUTIONS: _Make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: _Make = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@dataclass
class Weights:
    """Constants of the graph by name, as layers take them: what several layers read is one
    parameter, also where one of them reads it transposed.
    """

    known: Mapping[str, Value]
    transposed: Mapping[str, str] = field(default_factory=dict)
    _made: dict[tuple[int, bool], nn.Parameter] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor | None:
        """A constant, None where `name` is none."""
        return tensor(self.known[name]) if name in self.known else None

    def matrix(self, name: str) -> Tensor | None:
        """A constant float32 matrix, None for anything else."""
        value = self.known.get(name)
        if value is None or is_static(value) or value.ndim != 2:
            return None
        return value if value.dtype == torch.float32 else None

    def parameter(self, name: str, *, turned: bool = False) -> nn.Parameter:
        """`turned`: with its two axes exchanged."""
        if name in self.transposed:
            name, turned = self.transposed[name], not turned
        key = (id(self.known[name]), turned)  # a value may have several names
        if key not in self._made:
            value = tensor(self.known[name])
            self._made[key] = nn.Parameter((value.T if turned else value).contiguous())
        return self._made[key]


Layer = tuple[nn.Module, tuple[str, ...]]
"""A layer, and the names of what it is called with."""


def layer_of(node: Operation, weights: Weights) -> Layer | None:
    """The layer that a node is, None where it is none: its weights are computed, or it has none.
    Raises Unreadable for what PyTorch's layer cannot do.
    """
    make = _LAYERS.get(node.op)
    return make(node, weights) if make else None


def _set(layer: Any, weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    layer.weight = weight
    layer.bias = bias
    return layer.eval()  # type: ignore[no-any-return]


def _read(node: Operation, position: int) -> str:
    return node.reads[position] if len(node.reads) > position else ""


def _convolution(node: Operation, weights: Weights) -> Layer | None:
    weight, bias = _read(node, 1), _read(node, 2)
    W = weights.tensor(weight)
    if W is None or (bias and bias not in weights.known):
        raise Unreadable("a convolution whose weights are computed")
    rank, a = W.ndim - 2, node.attributes
    if rank not in _CONVOLUTIONS:
        raise Unreadable(f"a convolution over {rank} axes")
    groups, pads = a.get("group", 1), stated_pads(a, rank)
    plain = pads is not None and even(pads)
    with torch.device("meta"):
        layer = _CONVOLUTIONS[rank](
            W.shape[1] * groups,
            W.shape[0],
            tuple(W.shape[2:]),
            tuple(a.get("strides") or [1] * rank),
            tuple(p for p, _ in pads) if pads is not None and plain else 0,
            tuple(a.get("dilations") or [1] * rank),
            groups,
        )
    done = _set(layer, weights.parameter(weight), weights.parameter(bias) if bias else None)
    if not plain:
        before = SamePadding({"kernel_shape": list(W.shape[2:]), **a})
        done = nn.Sequential(before, done).eval()
    return done, (node.reads[0],)


def _transposed_convolution(node: Operation, weights: Weights) -> Layer | None:
    weight, bias = _read(node, 1), _read(node, 2)
    W = weights.tensor(weight)
    if W is None or (bias and bias not in weights.known):
        raise Unreadable("a convolution whose weights are computed")
    rank, a = W.ndim - 2, node.attributes
    pads = stated_pads(a, rank)
    if rank not in _TRANSPOSED or pads is None or not even(pads) or a.get("output_shape"):
        raise Unreadable("a transposed convolution with uneven padding or a stated output shape")
    groups = a.get("group", 1)
    with torch.device("meta"):
        layer = _TRANSPOSED[rank](
            W.shape[0],
            W.shape[1] * groups,
            tuple(W.shape[2:]),
            tuple(a.get("strides") or [1] * rank),
            tuple(p for p, _ in pads),
            tuple(a.get("output_padding") or [0] * rank),
            groups,
            dilation=tuple(a.get("dilations") or [1] * rank),
        )
    done = _set(layer, weights.parameter(weight), weights.parameter(bias) if bias else None)
    return done, (node.reads[0],)


def linear(weights: Weights, weight: str, bias: str, *, turned: bool) -> nn.Module:
    """A linear layer of a constant matrix; `turned`: it is (inputs, outputs)."""
    W = weights.parameter(weight, turned=turned)
    with torch.device("meta"):
        layer = nn.Linear(W.shape[1], W.shape[0])
    return _set(layer, W, weights.parameter(bias) if bias else None)


def _product(node: Operation, weights: Weights) -> Layer | None:
    if weights.matrix(node.reads[1]) is None:
        return None
    return linear(weights, node.reads[1], "", turned=True), (node.reads[0],)


def _gemm(node: Operation, weights: Weights) -> Layer | None:
    a, bias = node.attributes, _read(node, 2)
    W = weights.matrix(node.reads[1])
    scaled = a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1 or a.get("transA", 0)
    if W is None or scaled:
        return None
    turned = not a.get("transB", 0)
    b = weights.tensor(bias) if bias else None
    outputs = W.shape[1] if turned else W.shape[0]
    if bias and (b is None or b.shape != (outputs,)):
        return None
    return linear(weights, node.reads[1], bias, turned=turned), (node.reads[0],)


def _embedding(node: Operation, weights: Weights) -> Layer | None:
    table, index = weights.matrix(node.reads[0]), node.reads[1]
    if table is None or node.attributes.get("axis", 0) != 0 or index in weights.known:
        return None
    with torch.device("meta"):
        layer = nn.Embedding(*table.shape)
    layer.weight = weights.parameter(node.reads[0])
    return layer.eval(), (index,)


def _batch_norm(node: Operation, weights: Weights) -> Layer | None:
    if node.attributes.get("training_mode", 0) or len([w for w in node.writes if w]) > 1:
        raise Unreadable("a batch norm in training mode: export the model in evaluation mode")
    if not node.attributes.get("spatial", 1):
        raise Unreadable("a batch norm with statistics for every place")
    scale, bias, mean, var = (weights.tensor(name) for name in node.reads[1:5])
    if scale is None or bias is None or mean is None or var is None:
        raise Unreadable("a batch norm whose weights are computed")
    layer = BatchNormOfAnyRank(len(mean), node.attributes.get("epsilon", 1e-5))
    layer.running_mean, layer.running_var = mean.clone(), var.clone()
    names = node.reads[1], node.reads[2]
    return _set(layer, *(weights.parameter(name) for name in names)), (node.reads[0],)


class BatchNormOfAnyRank(nn.modules.batchnorm._BatchNorm):
    """A batch norm over the second axis of inputs with any number of others: files do not say how
    many there are.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""


def norm(weights: Weights, scale: str, bias: str, epsilon: float) -> nn.Module:
    """A norm over the last axis, of constants."""
    W = weights.parameter(scale)
    with torch.device("meta"):
        layer = nn.LayerNorm(len(W), epsilon)
    return _set(layer, W, weights.parameter(bias) if bias else None)


def _layer_norm(node: Operation, weights: Weights) -> Layer | None:
    scale, bias = weights.tensor(node.reads[1]), _read(node, 2)
    last = node.attributes.get("axis", -1) == -1 and len([w for w in node.writes if w]) == 1
    if scale is None or scale.ndim != 1 or not last or (bias and bias not in weights.known):
        return None
    done = norm(weights, node.reads[1], bias, node.attributes.get("epsilon", 1e-5))
    return done, (node.reads[0],)


def _recurrent(node: Operation, weights: Weights) -> Layer | None:
    constants = [weights.tensor(_read(node, i)) if _read(node, i) else None for i in (1, 2, 3)]
    W, R, B = constants
    if W is None or R is None or (_read(node, 3) and B is None) or _read(node, 4):
        raise Unreadable("a recurrent layer with computed weights, or with lengths of items")
    if len(node.reads) > 7 and node.reads[7]:
        raise Unreadable("a recurrent layer with peepholes")
    layer = RECURRENT[node.op](node.attributes, W, R, B)
    states = tuple(_read(node, i) for i in (5, 6)[: 1 + (node.op == "LSTM")])
    return layer.eval(), (node.reads[0], *states)


_LAYERS: Mapping[str, Callable[[Operation, Weights], Layer | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "Gemm": _gemm,
    "Gather": _embedding,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    **dict.fromkeys(RECURRENT, _recurrent),
}

LAYERS = frozenset(_LAYERS)
"""Operators that may become layers."""
