"""Where a deployed int8 graph quantizes: u8 affine activations, s8 symmetric per-channel weights, integer end to end.

A runtime replaces float operators by integer kernels only where quantize-dequantize pairs surround a whole unit it
has a kernel for. Three kinds of operators follow from that:

- *weighted layers*, convolution or linear with a following batch norm (QAT) and activation: quantized inputs, weights
  and output;
- *arithmetic*, which makes new values: add and mul with a following activation, average pooling. Quantized inputs
  and a quantized output with a range of its own;
- *pass-through* operators, which only select, move or clip values (max pooling, reshaping, slicing, padding with zero,
  concatenation): they share the quantization parameters of their input, so that the runtime moves 8-bit codes.

Arithmetic and pass-through operators are quantized only on the way from one weighted layer to the next: a float
tail (the last pooling, the logits, the layer norm of a transformer) is cheaper and more accurate in float.

Sources: Jacob et al. 2018 (arXiv:1712.05877) for the scheme; ONNX Runtime's QDQ selectors for the units.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.observer import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from petra.model.graph import (
    ACTIVATIONS,
    CONVOLUTIONS,
    argument,
    aten,
    is_float32,
    is_weighted,
    multiply_accumulates,
    shape_of,
    sizes,
)

OBSERVERS = {"minmax": MinMaxObserver, "histogram": HistogramObserver}
"""Activation observers. `minmax` keeps the whole calibration range; `histogram` clips outliers to minimise the squared
error, which is better for long-tailed activations and takes about ten times as long to calibrate."""

WEIGHT_MAX = 64
"""Default for the largest weight code. x86 CPUs without VNNI add two u8 x s8 products in 16 bits, which saturates from
65 on (2 x 255 x 65 > 32,767): silently wrong there, right elsewhere. 127 halves the rounding error of the weights, on
CPUs known to have VNNI or Arm dot products. Measured on ResNet-20, CIFAR-10, without VNNI, float 91.7%: 64 keeps 91.6
to 92.1%, 127 falls to 90.8 to 91.0%, at the same speed."""

# Scales are bounded below so that the int32 bias codes, bias / (activation scale * weight scale), cannot overflow
# behind a dead channel.
_ACTIVATION_EPS, _WEIGHT_EPS = 2.0**-14, 2.0**-16

_ARITHMETIC = {aten.add.Tensor, aten.mul.Tensor, aten.mean.dim, aten.avg_pool1d.default, aten.avg_pool2d.default}
_PASS_THROUGH = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.cat.default,
    *ACTIVATIONS,
}
# Operators that hold parameters and have no static integer kernel: named among the skipped layers.
_OTHER_WEIGHTED = (
    "aten.conv_transpose",
    "aten.embedding",
    "aten.batch_norm",
    "aten.layer_norm",
    "aten.group_norm",
    "aten.instance_norm",
    "aten.prelu",
    "aten.lstm",
    "aten.gru",
    "aten.rnn",
    "aten.bilinear",
)


@dataclass(frozen=True)
class LayerCall:
    """One call of a parameterised layer: multiply-accumulates at the traced batch size, weight name and elements."""

    path: str
    quantized: bool
    macs: int
    weight: str
    weight_elements: int


def module_path(node: Node) -> str:
    """Path of the module a node was traced in, '' for the model itself."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def is_under(path: str, names: frozenset[str]) -> bool:
    """Whether a module path is one of `names` or lies inside one of them."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


class DeploymentQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates an exported ATen graph for ONNX Runtime and OpenVINO.

    observer: 'minmax' or 'histogram' (see `OBSERVERS`). exclude: module paths whose layers, with all inside them, stay
    float. weight_max: largest weight code, 1 to 127 (see `WEIGHT_MAX`).

    After `annotate`: `quantized` lists the paths of the quantized layers, one entry per call; `skipped` maps the
    path of every other parameterised layer to the reason; `layers` has the record of both.

    Helps where convolutions and linear layers dominate. Does not help, and is not attempted, for attention products,
    normalisations, embeddings and recurrent cells, which stay float.
    """

    def __init__(self, *, observer: str, exclude: frozenset[str], weight_max: int = WEIGHT_MAX) -> None:
        if observer not in OBSERVERS:
            raise ValueError(f"observer {observer!r} is unknown, allowed: {', '.join(OBSERVERS)}")
        if not 1 <= weight_max <= 127:
            raise ValueError(f"weight_max {weight_max} is out of range, allowed: 1 to 127")
        self.exclude = exclude
        self.quantized: list[str] = []
        self.skipped: dict[str, str] = {}
        self.layers: list[LayerCall] = []
        self._activation = QuantizationSpec(
            torch.uint8, OBSERVERS[observer].with_args(eps=_ACTIVATION_EPS), 0, 255, torch.per_tensor_affine
        )
        self._weight = QuantizationSpec(
            torch.int8,
            PerChannelMinMaxObserver.with_args(eps=_WEIGHT_EPS),
            -weight_max,
            weight_max,
            torch.per_channel_symmetric,
            ch_axis=0,
        )

    @property
    def counts(self) -> Counter[str]:
        """Number of quantized calls of each layer."""
        return Counter(self.quantized)

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate the nodes of `model` in place."""
        weighted = self._select_layers(model)
        wanted = self._wanted(model, weighted)
        integer = self._integer_values(model, weighted, wanted)
        for node in model.graph.nodes:
            if node in weighted:
                self._annotate_weighted(node, wanted)
            elif node in integer and _is_arithmetic(node):
                self._annotate_arithmetic(node)
            elif node in integer and _is_pass_through(node) and not _is_fused_activation(node, weighted, integer):
                self._annotate_pass_through(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing is left to check: only supported nodes are annotated."""

    def _select_layers(self, model: GraphModule) -> set[Node]:
        """The weighted layers to quantize; fills the record of quantized and skipped layers."""
        self.quantized, self.skipped, self.layers = [], {}, []
        chosen = set()
        for node in model.graph.nodes:
            kind = str(node.target) if node.op == "call_function" else ""
            if not (kind.startswith(_OTHER_WEIGHTED) or is_weighted(node)):
                continue
            reason = self._reason_to_skip(node)
            path = module_path(node)
            self.layers.append(_layer_call(node, path, quantized=not reason))
            if reason:
                self.skipped[path] = reason
            else:
                chosen.add(node)
                self.quantized.append(path)
        return chosen

    def _reason_to_skip(self, node: Node) -> str:
        if is_under(module_path(node), self.exclude):
            return "excluded"
        if not is_weighted(node):
            return f"{node.target} has no static integer kernel"
        weight = node.args[1]
        if not (isinstance(weight, Node) and weight.op == "get_attr"):
            return "its weight is computed, not a constant"
        if not is_float32(node.args[0]):
            return "its input is not float32"
        return ""

    def _wanted(self, model: GraphModule, weighted: set[Node]) -> set[Node]:
        """Values some integer kernel will read: inputs of weighted layers, and of what leads only to them."""
        wanted: set[Node] = set()
        for node in reversed(model.graph.nodes):
            if node in weighted:
                wanted.add(node.args[0])
            elif node in wanted and (_is_arithmetic(node) or _is_pass_through(node)) and self._allowed(node):
                wanted.update(node.all_input_nodes)
        return wanted

    def _integer_values(self, model: GraphModule, weighted: set[Node], wanted: set[Node]) -> set[Node]:
        """Values that exist as 8-bit codes: inputs and outputs of weighted layers, and what is made of them alone."""
        integer = {source for node in weighted if isinstance(source := node.args[0], Node)}
        for node in model.graph.nodes:
            if node in weighted:
                last = _end_of_unit(node)
                if _is_convolution(node) or last in wanted:
                    integer.add(last)
            elif node not in wanted or not self._allowed(node):
                continue
            elif _is_arithmetic(node):
                if any(source in integer for source in node.all_input_nodes):
                    integer.update((node, _end_of_unit(node)))
            elif _is_pass_through(node) and any(source in integer for source in node.all_input_nodes):
                integer.add(node)
        return integer

    def _allowed(self, node: Node) -> bool:
        path = module_path(node)
        return not (path and is_under(path, self.exclude))

    def _annotate_weighted(self, node: Node, wanted: set[Node]) -> None:
        last = _end_of_unit(node)
        output = self._activation if _is_convolution(node) or last in wanted else None
        _annotate(node, {node.args[0]: self._activation, node.args[1]: self._weight}, output if last is node else None)
        if last is not node and output is not None:
            _annotate(last, {}, output)

    def _annotate_arithmetic(self, node: Node) -> None:
        last = _end_of_unit(node)
        inputs: dict[Node, QuantizationSpecBase] = dict.fromkeys(node.all_input_nodes, self._activation)
        _annotate(node, inputs, self._activation if last is node else None)
        if last is not node:
            _annotate(last, {}, self._activation)

    def _annotate_pass_through(self, node: Node) -> None:
        first, *others = node.all_input_nodes
        shared = SharedQuantizationSpec((first, node))
        inputs: dict[Node, QuantizationSpecBase] = dict.fromkeys(others, shared)
        _annotate(node, {first: self._activation, **inputs}, shared)


def _annotate(node: Node, inputs: dict[Any, QuantizationSpecBase], output: QuantizationSpecBase | None) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, output, _annotated=True)


def _layer_call(node: Node, path: str, *, quantized: bool) -> LayerCall:
    weights = [source for source in node.all_input_nodes if source.op == "get_attr"]
    weight = node.args[1] if is_weighted(node) else next(iter(weights), None)
    if not isinstance(weight, Node):
        return LayerCall(path, quantized, multiply_accumulates(node), "", 0)
    return LayerCall(path, quantized, multiply_accumulates(node), str(weight.target), math.prod(sizes(weight)))


def _is_convolution(node: Node) -> bool:
    return str(node.target).startswith(CONVOLUTIONS)


def _is_arithmetic(node: Node) -> bool:
    """An operator with an integer kernel that computes new values from float32 tensors."""
    if node.op != "call_function" or node.target not in _ARITHMETIC or not is_float32(node):
        return False
    if node.target in (aten.add.Tensor, aten.mul.Tensor):
        both = all(isinstance(operand, Node) and is_float32(operand) for operand in node.args[:2])
        return both and argument(node, 2, "alpha", 1) == 1
    if node.target is aten.mean.dim:
        rank, dims = len(shape_of(node.all_input_nodes[0])), argument(node, 1, "dim")
        spatial = sorted(int(d) % rank for d in dims) if isinstance(dims, (list, tuple)) else []
        return rank >= 3 and spatial == list(range(2, rank))
    return True


def _is_pass_through(node: Node) -> bool:
    """An operator whose results are codes of its inputs, possibly clipped."""
    if node.op != "call_function" or node.target not in _PASS_THROUGH or not is_float32(node):
        return False
    if node.target in ACTIVATIONS:
        return len(node.all_input_nodes) == 1
    if node.target is aten.constant_pad_nd.default:
        return not argument(node, 2, "value", 0)
    if node.target is aten.pad.default:
        return argument(node, 2, "mode", "constant") == "constant" and not argument(node, 3, "value")
    return all(is_float32(source) for source in node.all_input_nodes)


def _end_of_unit(node: Node) -> Node:
    """Last node of the unit a layer or an arithmetic operator starts: itself, its batch norm, or its activation."""
    last = node
    for followers in ({aten.batch_norm.default}, ACTIVATIONS):
        users = list(last.users)
        if len(users) == 1 and users[0].target in followers and len(users[0].args) > 0 and users[0].args[0] is last:
            last = users[0]
    return last


def _is_fused_activation(node: Node, weighted: set[Node], integer: set[Node]) -> bool:
    """Whether the activation is the last node of a unit, which has annotated it already."""
    if node.target not in ACTIVATIONS:
        return False
    source = node.all_input_nodes[0]
    source = source.all_input_nodes[0] if source.target is aten.batch_norm.default else source
    starts_unit = source in weighted or (source in integer and _is_arithmetic(source))
    return starts_unit and _end_of_unit(source) is node
