"""Replacing a model's layers by layers that hold codes, one kind of layer at a time.

A table says in which format the weights of each kind of layer are to be stored. What is found in
the model, what can be treated and what the result is worth is found out here;
`petra.model.layers.quantized` and `weight_only` have the layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.kernels import USUAL, Kernels
from petra.methods.quantize.parameters import check_excluded
from petra.methods.quantize.quantized_share import (
    LayerCall,
    check_weights,
    measure_shares,
    multiplications,
    output_change,
    predictions,
)
from petra.methods.quantize.rounding import pack, per_channel, per_group
from petra.methods.quantize.selection import (
    KINDS,
    Selection,
    choose,
    is_linear,
    is_plain,
    kind_of,
    largest_block,
    matrices,
    output_axis,
)
from petra.model.kinds import is_transposed_linear
from petra.model.layers.dynamic_lstm import DynamicQuantizedLSTM
from petra.model.layers.quantized import (
    Codes,
    DynamicQuantizedLinear,
    Int4Linear,
    QuantizedEmbedding,
)
from petra.model.layers.weight_only import WeightOnly, WeightOnlyRecurrent
from petra.model.surgery import aliases_of, replace_module, weight_bytes
from petra.tasks.inputs import Inputs

STORED: tuple[type[nn.Module], ...] = (
    DynamicQuantizedLinear,
    Int4Linear,
    QuantizedEmbedding,
    WeightOnly,
    WeightOnlyRecurrent,
    DynamicQuantizedLSTM,
)
"""The modules that stand for layers whose weights are codes."""

Made = dict[tuple[object, ...], Codes]
"""Codes that weights have already, by weight and form."""


@dataclass
class StoredLayers:
    """What became of a model.

    `formats` maps the replaced layers to the format their weights have now.
    """

    model: nn.Module
    formats: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


def store_weights(
    model: nn.Module,
    example: Inputs,
    formats: Mapping[str, str],
    *,
    exclude: frozenset[str],
    block: int = 32,
    kernels: Kernels = USUAL,
) -> StoredLayers:
    """Replace the layers of `model`, which is modified, by layers that hold codes.

    formats: one of `FORMATS` for each of `KINDS`. exclude: module paths that stay float, with all
    inside them. block: weights that share a scale at 4 bits; halved for layers whose inputs it does
    not divide. kernels: those that the integer layers will run in.

    Layers that share a weight keep sharing its codes; if one of them cannot be treated, none is.
    Costs four forward passes of the example and, at 4 bits, 16 passes over the weights. Raises
    StageRefused when no layer can be treated.
    """
    check_excluded(model, exclude)
    choice = choose(model, formats, exclude, block, kernels=kernels)
    result = StoredLayers(model, skipped=choice.skipped)
    before, reference = weight_bytes(model), predictions(model, example)
    aliases = aliases_of(model)
    macs, others, all_macs = multiplications(model, example, choice.layers)
    total = {id(p): p.numel() for p in model.parameters()}
    sizes = {
        path: {id(p): p.numel() for p in choice.stored(path).values()} for path in choice.formats
    }
    made: Made = {}
    # Children before parents.
    swaps = [_Swap.of(path, aliases[path], choice, made) for path in reversed(choice.formats)]
    result.model = _apply(model, swaps, example, reference, result)
    if not result.formats:
        reasons = [f"{path or 'the model'}: {reason}" for path, reason in result.skipped.items()]
        raise StageRefused(
            "no layer's weights can be stored as codes",
            hint="; ".join(reasons[:5]) or "it has none",
        )
    calls = [
        (
            LayerCall(path, macs[path], sizes[path], in_8_bits=result.formats[path] == "dynamic")
            if path in result.formats
            else LayerCall(path, macs[path], {}, result.skipped[path])
        )
        for path in choice.layers
    ]
    of = {
        path: sum(p.numel() for p in matrices(layer).values())
        for path, layer in choice.layers.items()
    }
    check_weights(calls, sum(total.values()), of)
    after, stored = predictions(result.model, example), weight_bytes(result.model)
    codes = sum(
        p.numel() * p.element_size() for p in result.model.parameters() if id(p) not in total
    )
    shares = measure_shares(
        calls,
        others,
        macs=all_macs,
        elements=sum(total.values()),
        code_bytes=codes,
        all_bytes=stored,
    )
    result.details = {
        "formats": dict(Counter(result.formats.values())),
        **shares.as_details(),
        "weight_bytes": [before, stored],
        "output_change": output_change(reference, after),
    }
    return result


def replace_layers(
    model: nn.Module,
    formats: Mapping[str, str],
    exclude: frozenset[str] = frozenset(),
    kernels: Kernels = USUAL,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Give layers codes in place, by `formats` of their kinds ("float" by default), embeddings if
    they are plain; paths of those, and why others of these kinds are left.

    Layers that share a weight keep sharing its codes; what they share with layers that keep it in
    float, they lose. A layer that is the whole model is left.
    """
    asked = {kind for kind, name in formats.items() if name != "float"}
    given = dict.fromkeys(KINDS, "float") | dict(formats)
    choice = choose(model, given, exclude, block=0, ties=False, kernels=kernels)
    skipped = {p: why for p, why in choice.skipped.items() if kind_of(choice.layers[p]) in asked}
    done, made, aliases = [], Made(), aliases_of(model)
    for path in choice.formats:
        layer = choice.layers[path]
        if not path or (isinstance(layer, nn.Embedding | nn.EmbeddingBag) and not is_plain(layer)):
            skipped[path] = "it does more than look rows up" if path else "it is the whole model"
            continue
        _Swap.of(path, aliases[path], choice, made).do(model)
        done.append(path)
    return tuple(done), skipped


# -- replacing -------------------------------------------------------------------------------------


@dataclass
class _Swap:
    """A layer found under `paths`, the one to put in its place, and the parameters it then
    loses.
    """

    path: str
    paths: list[str]
    format: str
    before: nn.Module
    after: nn.Module
    lost: dict[str, nn.Parameter]

    @classmethod
    def of(cls, path: str, paths: list[str], choice: Selection, made: Made) -> _Swap:
        module = choice.layers[path]
        stored = choice.stored(path)
        codes = {name: _encode(choice, path, weight, made) for name, weight in stored.items()}
        return cls(
            path,
            paths,
            choice.formats[path],
            module,
            _replacement(module, choice.formats[path], codes),
            stored,
        )

    def do(self, model: nn.Module) -> nn.Module:
        if isinstance(self.after, WeightOnly):
            for name in self.lost:
                self.before._parameters[name] = None
        return _put(model, self.paths, self.after)

    def undo(self, model: nn.Module) -> nn.Module:
        self.before._parameters.update(self.lost)
        return _put(model, self.paths, self.before)


def _put(model: nn.Module, paths: Iterable[str], module: nn.Module) -> nn.Module:
    for path in paths:
        if path:
            replace_module(model, path, module)
        else:
            model = module
    return model


def _encode(choice: Selection, path: str, weight: nn.Parameter, made: Made) -> Codes:
    """The codes of a weight; those it has already when another layer shares it in the same form."""
    module, name = choice.layers[path], choice.formats[path]
    largest = choice.largest if id(weight) in choice.integer else 127
    # Our own layers hold rows of (out, in).
    rows = is_transposed_linear(module) and name in ("dynamic", "int4")
    key = (id(weight), name == "int4", name == "float16", rows, output_axis(module))
    if key not in made:
        W = weight.detach().T.contiguous() if rows else weight.detach()
        codes, scale = _codes(W, name, 0 if rows else output_axis(module), largest, choice.block)
        made[key] = Codes(nn.Parameter(codes.contiguous(), requires_grad=False), scale)
    return made[key]


def _codes(
    W: Tensor, name: str, axis: int, largest: int, block: int
) -> tuple[Tensor, Tensor | None]:
    if name == "float16":
        return W.half(), None
    if name == "int4":
        q, s = per_group(W, largest_block(W.shape[1], block))
        return pack(q), s
    return per_channel(W, largest, axis)


def _replacement(module: nn.Module, name: str, codes: Mapping[str, Codes]) -> nn.Module:
    if is_linear(module) and name in ("dynamic", "int4"):
        layer = DynamicQuantizedLinear if name == "dynamic" else Int4Linear
        return layer(codes["weight"], module._parameters.get("bias")).train(module.training)
    if isinstance(module, nn.Embedding) and is_plain(module):
        return QuantizedEmbedding(codes["weight"], module.padding_idx).train(module.training)
    if isinstance(module, nn.RNNBase):
        recurrent = DynamicQuantizedLSTM if name == "dynamic" else WeightOnlyRecurrent
        return recurrent(module, codes)
    return WeightOnly(module, codes)


def _apply(
    model: nn.Module,
    swaps: list[_Swap],
    example: Inputs,
    reference: Tensor,
    result: StoredLayers,
) -> nn.Module:
    """Make the swaps that leave a model that runs; one that reaches into a layer in an odd way
    keeps that layer.
    """
    for swap in swaps:
        model = swap.do(model)
    if _error(model, example, reference):
        for swap in reversed(swaps):
            model = swap.undo(model)
        kept = []
        for swap in swaps:
            model = swap.do(model)
            if error := _error(model, example, reference):
                model = swap.undo(model)
                result.skipped[swap.path] = f"the model uses it other than by calling it ({error})"
            else:
                kept.append(swap)
        swaps = kept
    result.formats = {swap.path: swap.format for swap in reversed(swaps)}
    return model


def _error(model: nn.Module, example: Inputs, reference: Tensor) -> str:
    try:
        after = predictions(model, example)
        finite = torch.equal(after.isfinite(), reference.isfinite())
    except (AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
        return str(error).strip().split("\n")[0]
    return "" if finite else "its outputs are not finite"
