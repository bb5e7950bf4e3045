"""Where a deployed int8 graph quantizes: u8 affine activations, s8 symmetric per-channel weights, integer end to end.

A runtime replaces float operators by integer kernels only where quantize-dequantize pairs surround a whole unit it
has a kernel for. Three kinds of operators follow from that:

- *weighted layers*, convolution or linear with a following activation: quantized inputs, weights and output;
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
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import (
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from petra.methods.quantize.observers import OBSERVERS
from petra.model.graph import (
    ACTIVATIONS,
    CONVOLUTIONS,
    argument,
    aten,
    is_float32,
    is_weighted,
    multiply_accumulates,
    readers,
    shape_of,
    sizes,
    tensor_inputs,
    written,
)

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
    "aten.rms_norm",
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
    """Path of the module a node was traced in, '' for the model itself; the same for every call of a module."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return re.sub(r"@\d+", "", next(reversed(stack.values()))[0]) if stack else ""


def is_under(path: str, names: frozenset[str]) -> bool:
    """Whether a module path is one of `names` or lies inside one of them."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


class DeploymentQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates an exported ATen graph for ONNX Runtime and OpenVINO.

    observer: a name in `OBSERVERS`. exclude: module paths whose layers, with all inside them, stay float. weight_max:
    largest weight code, 1 to 127 (see `WEIGHT_MAX`). training: put in fake quantizers, which round in the forward pass
    and let gradients through; their ranges follow moving averages of the extremes, whatever `observer` says.

    After `annotate`: `quantized` lists the paths of the quantized layers, one entry per call; `skipped` maps the
    path of every other parameterised layer to the reason; `layers` has the record of both.

    Helps where convolutions and linear layers dominate. Does not help, and is not attempted, for attention products,
    normalisations, embeddings and recurrent cells, which stay float.
    """

    def __init__(
        self,
        *,
        observer: str = "minmax",
        exclude: frozenset[str] = frozenset(),
        weight_max: int = WEIGHT_MAX,
        training: bool = False,
    ) -> None:
        if observer not in OBSERVERS:
            raise ValueError(f"observer {observer!r} is unknown, allowed: {', '.join(OBSERVERS)}")
        if not 1 <= weight_max <= 127:
            raise ValueError(f"weight_max {weight_max} is out of range, allowed: 1 to 127")
        self.exclude = exclude
        self.quantized: list[str] = []
        self.skipped: dict[str, str] = {}
        self.layers: list[LayerCall] = []
        self._written: set[Node] = set()
        if training:
            # Weight ranges are those of the present weights: an average of 1.0 remembers nothing.
            activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=_ACTIVATION_EPS)
            weight = FakeQuantize.with_args(
                observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, eps=_WEIGHT_EPS
            )
        else:
            activation = OBSERVERS[observer].with_args(eps=_ACTIVATION_EPS)
            weight = PerChannelMinMaxObserver.with_args(eps=_WEIGHT_EPS)
        self._activation = QuantizationSpec(torch.uint8, activation, 0, 255, torch.per_tensor_affine)
        symmetric = torch.per_channel_symmetric
        self._weight = QuantizationSpec(torch.int8, weight, -weight_max, weight_max, symmetric, ch_axis=0)

    @property
    def counts(self) -> Counter[str]:
        """Number of quantized calls of each layer."""
        return Counter(self.quantized)

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate the nodes of `model` in place."""
        self._written = written(model.graph)
        weighted = self._select_layers(model)
        wanted, moved = self._wanted(model, weighted)
        ends = {node: last for node in weighted if (last := self._integer_end(node, wanted, moved)) is not None}
        integer = self._integer_values(model, weighted, wanted, ends)
        for node in model.graph.nodes:
            if node in weighted:
                self._annotate_weighted(node, ends.get(node))
            elif not self._allowed(node):
                continue
            elif _is_integer_arithmetic(node, integer):
                self._annotate_arithmetic(node)
            elif _moves_integers(node, integer) and not _is_fused_activation(node, weighted, integer):
                self._annotate_pass_through(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing is left to check: only supported nodes are annotated."""

    def _select_layers(self, model: GraphModule) -> set[Node]:
        """The weighted layers to quantize; fills the record of quantized and skipped layers."""
        self.quantized, self.skipped, self.layers = [], {}, []
        chosen = set()
        coded = {module_path(node) for node in model.graph.nodes if _reads_codes(node)}
        for node in model.graph.nodes:
            kind = str(node.target) if node.op == "call_function" else ""
            if not (kind.startswith(_OTHER_WEIGHTED) or is_weighted(node)) or module_path(node) in coded:
                continue
            reason = self._reason_to_skip(node)
            path = module_path(node)
            self.layers.append(_layer_call(node, path, quantized=not reason))
            if reason:
                self.skipped[path] = reason
            else:
                chosen.add(node)
                self.quantized.append(path)
        for path in self.quantized:
            self.skipped.pop(path, None)
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
        if node.args[0] in self._written:
            return "its input is changed in place, through a view of it"
        return ""

    def _wanted(self, model: GraphModule, weighted: set[Node]) -> tuple[set[Node], set[Node]]:
        """Values some integer kernel will read: inputs of weighted layers, and of what leads only to them.

        The second set are those of them that reach a layer as they are, at most moved or clipped.
        """
        wanted: set[Node] = set()
        moved: set[Node] = set()
        for node in reversed(model.graph.nodes):
            if node in weighted:
                wanted.add(node.args[0])
                moved.add(node.args[0])
            elif node in wanted and (_is_arithmetic(node) or is_pass_through(node)) and self._allowed(node):
                wanted.update(tensor_inputs(node))
                if node in moved and is_pass_through(node):
                    moved.update(tensor_inputs(node))
        return wanted, moved

    def _integer_values(
        self, model: GraphModule, weighted: set[Node], wanted: set[Node], ends: dict[Node, Node]
    ) -> set[Node]:
        """Values that exist as 8-bit codes: inputs and outputs of weighted layers, and what is made of them alone."""
        integer = {source for node in weighted if isinstance(source := node.args[0], Node)}
        for node in model.graph.nodes:
            if node in weighted:
                integer.update([ends[node]] if node in ends else [])
            elif node not in wanted or not self._allowed(node):
                continue
            elif _is_arithmetic(node):
                if any(source in integer for source in tensor_inputs(node)):
                    integer.update((node, _end_of_unit(node)))
            elif is_pass_through(node) and any(source in integer for source in tensor_inputs(node)):
                integer.add(node)
        return integer

    def _allowed(self, node: Node) -> bool:
        path = module_path(node)
        touched = {node, *tensor_inputs(node)}
        return not (path and is_under(path, self.exclude)) and touched.isdisjoint(self._written)

    def _integer_end(self, node: Node, wanted: set[Node], moved: set[Node]) -> Node | None:
        """Last node of a layer's unit when it puts out codes.

        Convolutions always do. Linear layers do where an integer kernel reads on; those over sequences, where that is
        another layer: the sums and gates of a transformer are a small part of its time and lose more than they gain.
        """
        last = _end_of_unit(node)
        reads_on = wanted if len(shape_of(node)) < 3 else moved
        return last if (_is_convolution(node) or last in reads_on) and last not in self._written else None

    def _annotate_weighted(self, node: Node, last: Node | None) -> None:
        inputs = {node.args[0]: self._activation, node.args[1]: self._weight}
        _annotate(node, inputs, self._activation if last is node else None)
        if last is not node and last is not None:
            _annotate(last, {}, self._activation)

    def _annotate_arithmetic(self, node: Node) -> None:
        last = _end_of_unit(node)
        inputs: dict[Node, QuantizationSpecBase] = dict.fromkeys(tensor_inputs(node), self._activation)
        _annotate(node, inputs, self._activation if last is node else None)
        if last is not node:
            _annotate(last, {}, self._activation)

    def _annotate_pass_through(self, node: Node) -> None:
        first, *others = tensor_inputs(node)
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


def _reads_codes(node: Node) -> bool:
    """Whether a layer looks up an int8 weight, as a quantized embedding does."""
    table = node.args[0] if node.target is aten.embedding.default else None
    return isinstance(table, Node) and table.meta["val"].dtype == torch.int8


def _is_convolution(node: Node) -> bool:
    return str(node.target).startswith(CONVOLUTIONS)


def _is_arithmetic(node: Node) -> bool:
    """An operator with an integer kernel that computes new values from float32 tensors."""
    if node.op != "call_function" or node.target not in _ARITHMETIC or not is_float32(node):
        return False
    if node.target in (aten.add.Tensor, aten.mul.Tensor):
        operands = [operand for operand in node.args[:2] if isinstance(operand, Node) and is_float32(operand)]
        if node.target is aten.mul.Tensor and any(operand.op == "get_attr" for operand in operands):
            return False  # a scale per channel, which one scale per tensor would blur
        return len(operands) == 2 and argument(node, 2, "alpha", 1) == 1
    if node.target is aten.mean.dim:
        rank, dims = len(shape_of(node.all_input_nodes[0])), argument(node, 1, "dim")
        spatial = sorted(int(d) % rank for d in dims) if isinstance(dims, (list, tuple)) else []
        return rank >= 3 and spatial == list(range(2, rank))
    return True


def _is_integer_arithmetic(node: Node, integer: set[Node]) -> bool:
    """Whether the node computes codes from codes; one whose inputs are all float is left to float kernels."""
    return node in integer and _is_arithmetic(node) and any(source in integer for source in tensor_inputs(node))


def _moves_integers(node: Node, integer: set[Node]) -> bool:
    """Whether the node moves codes that exist; one that moves float values is followed by the rounding instead."""
    return node in integer and is_pass_through(node) and any(source in integer for source in tensor_inputs(node))


def is_pass_through(node: Node) -> bool:
    """An operator whose results are codes of its inputs, possibly clipped."""
    if node.op != "call_function" or node.target not in _PASS_THROUGH or not is_float32(node):
        return False
    if node.target in ACTIVATIONS:
        return len(node.all_input_nodes) == 1
    if node.target is aten.constant_pad_nd.default:
        return not argument(node, 2, "value", 0)
    if node.target is aten.pad.default:
        return argument(node, 2, "mode", "constant") == "constant" and not argument(node, 3, "value")
    return all(is_float32(source) for source in tensor_inputs(node))


def _end_of_unit(node: Node) -> Node:
    """Last node of the unit a layer or an arithmetic operator starts: itself, or the activation that alone reads it."""
    users = readers(node)
    fused = len(users) == 1 and users[0].target in ACTIVATIONS and users[0].args[0] is node
    return users[0] if fused else node


def _is_fused_activation(node: Node, weighted: set[Node], integer: set[Node]) -> bool:
    """Whether the activation is the last node of a unit, which has annotated it already."""
    if node.target not in ACTIVATIONS:
        return False
    source = node.all_input_nodes[0]
    starts_unit = source in weighted or _is_integer_arithmetic(source, integer)
    return starts_unit and _end_of_unit(source) is node
