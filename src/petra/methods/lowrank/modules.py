"""Modules around the factors: the layers that replace one, and one to train factors in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from petra.methods.lowrank.factorize import Factors, svd
from petra.methods.lowrank.unfold import compose, fold, fold_factors, unfold
from petra.model.kinds import Convolution, is_transposed_linear

_CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def how_to_unfold(layer: nn.Module, convolutions: str) -> str:
    """The unfolding that fits a layer, given that for `convolutions`; '' for layers that are not
    decomposed.

    Exact classes only: a subclass may do anything with its weight (as the output projection of
    multi-head attention, which is read and never called).
    """
    if type(layer) is nn.Linear or type(layer) is nn.Conv3d:
        return "channel"
    if type(layer) in (nn.Conv1d, nn.Conv2d):
        return convolutions
    if type(layer) in _TRANSPOSED:
        return "transposed"
    if type(layer) is nn.Embedding:
        return "lookup"
    if is_transposed_linear(layer):
        return "flipped"
    return ""


def _of(index: int, name: str) -> Any:
    def get(self: nn.Sequential) -> Any:
        return getattr(self[index], name)

    return property(get, doc=f"`{name}` of the layer at {index}.")


def _each_dimension(name: str) -> Any:
    """The layer's own `name`, as code around a convolution asks for it to pad by hand: of every
    dimension, one factor has it, and the others have the least there is."""

    def get(self: nn.Sequential) -> Any:
        values = [getattr(layer, name) for layer in self]
        said = [value for value in values if isinstance(value, str)]
        return said[0] if said else tuple(map(max, zip(*values, strict=True)))

    return property(get, doc=f"`{name}` of the convolution that the layers make up.")


class Factored(nn.Sequential):
    """Ordinary layers in place of one, with what code around it may ask that one for besides its
    output.

    Some models read a layer's weight, most often for its type only (T5). `weight` is the composed
    one: correct, at the cost of the product of the factors on every reading; in an exported graph
    nothing is left of a reading that only asks for type, device or shape.
    """

    def __init__(self, how: str, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.how = how

    @property
    def weight(self) -> Tensor:
        weights: list[Any] = [layer.weight for layer in self]
        return compose(weights, self.how)

    bias = _of(-1, "bias")
    in_features = _of(0, "in_features")
    out_features = _of(-1, "out_features")
    in_channels = _of(0, "in_channels")
    out_channels = _of(-1, "out_channels")
    num_embeddings = _of(0, "num_embeddings")
    embedding_dim = _of(-1, "out_features")
    padding_idx = _of(0, "padding_idx")
    stride = _each_dimension("stride")
    kernel_size = _each_dimension("kernel_size")
    padding = _each_dimension("padding")
    dilation = _each_dimension("dilation")


class TrainableFactors(nn.Module):
    """A layer whose weight is composed from U, s and V in every forward pass, so that all three
    train.

    Exists only while a stage runs. It costs what the dense layer costs plus one product of the
    factors. In evaluation mode it computes with `preview` where that is set: what truncation would
    leave, so that a validation score is that of the model to come. Changing the mode forgets the
    preview.
    """

    preview: Tensor | None = None

    def __init__(self, layer: nn.Module, how: str) -> None:
        super().__init__()
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        self.how = how
        self.shape = weight.shape
        self.trains = bool(layer.weight.requires_grad)
        self.set_factors(svd(unfold(weight, how)))
        self.bias: nn.Parameter | None = layer.bias  # type: ignore[assignment]
        # In a list so that the dense weight is neither trained, moved nor saved with this module.
        self._dense = [layer]

    def set_factors(self, factors: Factors) -> None:
        self.U, self.s, self.V = (
            nn.Parameter(t.contiguous(), self.trains) for t in (factors.U, factors.s, factors.V)
        )

    @property
    def factors(self) -> Factors:
        return Factors(self.U, self.s, self.V)

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return fold(self.factors.compose(), self.shape, self.how)

    def train(self, mode: bool = True) -> TrainableFactors:
        self.preview = None
        return super().train(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        weight = self.weight if self.training or self.preview is None else self.preview
        tensors = {"weight": weight} | ({} if self.bias is None else {"bias": self.bias})
        return functional_call(self._dense[0], tensors, args, kwargs)

    def as_dense(self) -> nn.Module:
        """The layer this was made from, with what was learnt."""
        layer: Any = self._dense[0].to(self.s.device)
        layer.weight = nn.Parameter(self.weight.detach().contiguous(), self.trains)
        layer.bias = self.bias
        return layer  # type: ignore[no-any-return]


def factored(layer: nn.Module, matrices: Sequence[Tensor], how: str) -> Factored:
    """Two or three ordinary layers for one: they apply the factors of its unfolded weight; the last
    has its bias.
    """
    weights = fold_factors(matrices, _weight(layer).shape, how)
    rank = matrices[-1].shape[0]
    if isinstance(layer, Convolution):
        first, middle, last = _convolutions(layer, rank, how)
    else:
        first, middle, last = _linears(layer, rank, how)
    return _assemble(
        layer, how, [first, last] if len(weights) == 2 else [first, middle, last], weights
    )


def tucker_factored(layer: nn.Module, U: Tensor, G: Tensor, V: Tensor) -> Factored:
    """A pointwise convolution V^T, the core G with the layer's kernel, stride and padding, and a
    pointwise one U.
    """
    assert isinstance(layer, Convolution)
    r_out, r_in = G.shape[:2]
    ones = [1] * (G.ndim - 2)
    every = [True] * len(ones)
    parts = [
        _CONVS[len(ones)](layer.in_channels, r_in, 1, bias=False, device="meta"),
        _share(layer, every, r_in, r_out),
        _CONVS[len(ones)](r_out, layer.out_channels, 1, bias=False, device="meta"),
    ]
    return _assemble(
        layer, "tucker", parts, (V.T.reshape(r_in, -1, *ones), G, U.reshape(-1, r_out, *ones))
    )


def _assemble(
    layer: nn.Module, how: str, parts: Sequence[nn.Module], weights: Sequence[Tensor]
) -> Factored:
    """Fill empty `parts` with `weights` and, the last one, with the layer's bias."""
    old = _weight(layer)
    for part, weight in zip(parts, weights, strict=True):
        value = weight.detach().clone(memory_format=torch.contiguous_format)
        part.weight = nn.Parameter(value, requires_grad=old.requires_grad)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        parts[-1].bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return Factored(how, *parts).train(layer.training)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _linears(layer: nn.Module, rank: int, how: str) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Empty layers in -> rank -> rank -> out; the first of an embedding is a thinner embedding."""
    inputs, outputs = (
        _weight(layer).shape if how in ("flipped", "lookup") else _weight(layer).shape[::-1]
    )
    first: nn.Module
    if isinstance(layer, nn.Embedding):
        first = nn.Embedding(inputs, rank, padding_idx=layer.padding_idx, device="meta")
    else:
        first = nn.Linear(inputs, rank, bias=False, device="meta")
    middle, last = (nn.Linear(rank, width, bias=False, device="meta") for width in (rank, outputs))
    return first, middle, last


def _convolutions(
    layer: Convolution, rank: int, how: str
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Empty convolutions in -> rank -> rank -> out whose kernels, strides, paddings and dilations
    together are the layer's.

    Spatial: the first takes the last dimension's share of all of them, the last the first
    dimension's. That also holds for padding modes other than zeros, because padding acts on each
    dimension alone.
    """
    dims = len(layer.kernel_size)
    middle = _CONVS[dims](rank, rank, 1, bias=False, device="meta")
    if how == "transposed":
        last: nn.Module = type(layer)(
            rank,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            output_padding=layer.output_padding,
            dilation=layer.dilation,
            bias=False,
            device="meta",
        )  # type: ignore[call-arg]
        return _CONVS[dims](layer.in_channels, rank, 1, bias=False, device="meta"), middle, last
    on_first = [how == "channel" or (dims == 2 and d == 1) for d in range(dims)]
    on_last = [not mine for mine in on_first]
    first = _share(layer, on_first, layer.in_channels, rank)
    return first, middle, _share(layer, on_last, rank, layer.out_channels)


def _share(layer: Convolution, mine: Sequence[bool], inputs: int, outputs: int) -> nn.Module:
    """An empty convolution with the layer's kernel, stride, padding and dilation in the dimensions
    that are `mine`.
    """

    def pick(values: Sequence[int], neutral: int) -> tuple[int, ...]:
        return tuple(v if m else neutral for v, m in zip(values, mine, strict=True))

    return _CONVS[len(mine)](
        inputs,
        outputs,
        pick(layer.kernel_size, 1),
        stride=pick(layer.stride, 1),
        padding=layer.padding if isinstance(layer.padding, str) else pick(layer.padding, 0),
        dilation=pick(layer.dilation, 1),
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )
