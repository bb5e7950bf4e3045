"""Which layers of a model can hold codes, and in which format: by kind of layer, size, and what
they share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from petra.core.kernels import USUAL, Kernels
from petra.methods.quantize.quantized_share import EXCLUDED, TO_STAY
from petra.model.kinds import Convolution, is_transposed_linear
from petra.model.surgery import has_derived_weight, is_under

KINDS = ("linear", "convolution", "embedding", "recurrent", "attention", "other")
FORMATS = ("float", "dynamic", "int8", "int4", "float16")
"""`dynamic` is for linear layers, and recurrent ones that the runtime has such kernels for: int8
weights and integer arithmetic on activations quantized on the spot. The others are formats to store
weights in, for float arithmetic; `int4` is for linear layers and embeddings, others get int8.
"""

_OVERHEAD = 256
"""Bytes of the operators that decode a weight, below which storing it as codes saves nothing."""

_SMALLEST_BLOCK = 16
# Its weight is used without calling it.
_ATTENTION_OUTPUT = nn.modules.linear.NonDynamicallyQuantizableLinear
_FLOAT16_MAX = 65504.0
_RECURRENT_FORWARDS = (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)


def kind_of(module: nn.Module) -> str:
    """One of `KINDS`."""
    if is_linear(module):
        return "linear"
    if isinstance(module, Convolution):
        return "convolution"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    return "attention" if isinstance(module, nn.MultiheadAttention) else "other"


def is_linear(module: nn.Module) -> bool:
    """Whether calling the module is a matrix product and a bias, no more."""
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward and type(module) is not _ATTENTION_OUTPUT
    return is_transposed_linear(module)


@dataclass
class Selection:
    """Layers to treat, in order of definition, with their formats, and why the others are not."""

    layers: dict[str, nn.Module] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    block: int = 32
    integer: frozenset[int] = frozenset()  # ids of the weights of integer arithmetic
    largest: int = 127  # code of those

    def stored(self, path: str) -> dict[str, nn.Parameter]:
        """Those weights of a layer that take less room as codes, by name."""
        module, bits = self.layers[path], {"float16": 16, "int4": 4}.get(self.formats[path], 8)

        def saved(weight: nn.Parameter) -> float:
            scales = (
                weight.numel() / self.block
                if bits == 4
                else weight.shape[output_axis(module)]
                if bits == 8
                else 0
            )
            return (4 - bits / 8) * weight.numel() - 4 * scales

        own = matrices(module)
        worth = {name: weight for name, weight in own.items() if saved(weight) > _OVERHEAD}
        whole = self.formats[path] == "dynamic" and isinstance(module, nn.RNNBase)
        return own if worth and whole else worth


def choose(
    model: nn.Module,
    formats: Mapping[str, str],
    exclude: frozenset[str],
    block: int,
    *,
    ties: bool = True,
    kernels: Kernels = USUAL,
) -> Selection:
    choice = Selection(block=block, largest=kernels.largest_weight)
    for path, module in model.named_modules():
        if not matrices(module):
            continue
        choice.layers[path] = module
        kind = kind_of(module)
        wanted = formats[kind]
        if is_under(path, exclude):
            choice.skipped[path] = EXCLUDED
        elif wanted == "float":
            choice.skipped[path] = f"{TO_STAY}{kind} layers are to stay in float"
        elif reason := _objection(path, module, wanted):
            choice.skipped[path] = reason
        else:
            choice.formats[path] = _format(module, kind, wanted, block, kernels)
            if not choice.stored(path):
                choice.skipped[path] = "its weights are too small to gain anything"
                del choice.formats[path]
    if ties:
        _keep_ties(model, choice)
    choice.integer = frozenset(
        id(p)
        for path, name in choice.formats.items()
        if name == "dynamic"
        for p in choice.stored(path).values()
    )
    return choice


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own weights, by name; biases and what norms hold are not worth storing as
    codes.
    """
    if isinstance(module, nn.LayerNorm):
        return {}
    own = module.named_parameters(recurse=False)
    return {name: p for name, p in own if p.ndim >= 2 and p.is_floating_point()}


def _objection(path: str, module: nn.Module, wanted: str) -> str:
    if has_derived_weight(module) or "parametrizations" in path.split("."):
        return "its weight is computed from other parameters"
    if module._modules and not isinstance(module, nn.MultiheadAttention):
        return "its weights belong to a module that holds other layers"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks"
    if isinstance(module, nn.RNNBase) and type(module).forward not in _RECURRENT_FORWARDS:
        return "its class does more than a recurrent layer of torch"
    for name, weight in matrices(module).items():
        if weight.dtype != torch.float32:
            return f"{name} is {str(weight.dtype).removeprefix('torch.')}, not float32"
        if not torch.isfinite(weight).all():
            return f"{name} has infinite or undefined values"
        if wanted == "float16" and weight.abs().max() > _FLOAT16_MAX:
            return f"{name} has values beyond {_FLOAT16_MAX:g}"
    return ""


def _format(module: nn.Module, kind: str, wanted: str, block: int, kernels: Kernels) -> str:
    """The format a layer can have that is nearest to the wanted one."""
    integer = kind == "linear" or (
        isinstance(module, nn.RNNBase) and module.mode in kernels.recurrent and not module.proj_size
    )
    if wanted == "dynamic" and not integer:
        return "int8"
    if wanted == "int4" and not (is_plain(module) and largest_block(_inputs(module), block)):
        return "int8"
    return wanted


def is_plain(module: nn.Module) -> bool:
    """Whether a layer of our own takes its place: a linear layer, or a table that does nothing but
    look up.
    """
    if isinstance(module, nn.Embedding):
        return type(module).forward is nn.Embedding.forward and module.max_norm is None
    return is_linear(module)


def _inputs(module: nn.Module) -> int:
    """Length of the rows of a linear layer's or a table's weight."""
    weight = module._parameters["weight"]
    assert weight is not None
    return weight.shape[0] if is_transposed_linear(module) else weight.shape[1]


def largest_block(inputs: int, block: int) -> int:
    """The largest block, of at most `block`, that divides the inputs; 0 when only one too small
    does.
    """
    while block >= _SMALLEST_BLOCK and inputs % block:
        block //= 2
    return block if block >= _SMALLEST_BLOCK else 0


def output_axis(module: nn.Module) -> int:
    """The dimension of a layer's weight that counts its outputs."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return 1 if module.groups == 1 else 0
    return 1 if is_transposed_linear(module) else 0


def _keep_ties(model: nn.Module, choice: Selection) -> None:
    """One copy of a weight that layers share: if one of them keeps it in float all do, if one has
    int8 all do.
    """
    owners: dict[int, list[str]] = defaultdict(list)
    for path, module in model.named_modules():
        for p in module.parameters(recurse=False):
            owners[id(p)].append(path)
    while left := {
        path: other
        for path in choice.formats
        for weight in choice.stored(path).values()
        for other in owners[id(weight)]
        if other not in choice.formats
    }:
        for path, other in left.items():
            del choice.formats[path]
            choice.skipped[path] = f"it shares a weight with {other!r}, which stays in float"
    for path in [path for path, name in choice.formats.items() if name == "int4"]:
        if any(
            choice.formats[o] == "int8" for p in choice.stored(path).values() for o in owners[id(p)]
        ):
            choice.formats[path] = "int8"
