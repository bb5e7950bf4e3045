"""Where a deployed int8 graph quantizes: affine activations, symmetric per-channel weights, integer
end to end, as far as the target's `Kernels` go.

A runtime replaces float operators by integer kernels only where quantize-dequantize pairs surround
a whole unit it has a kernel for. Three kinds of operators follow from that:

- *weighted layers*, convolution or linear with a following activation: quantized inputs, weights
  and output, which a linear layer may leave in float where the kernels can;
- *arithmetic*, which makes new values: add and mul with a following activation, average pooling.
  Quantized inputs and a quantized output with a range of its own;
- *pass-through* operators, which only select, move or clip values (max pooling, reshaping, slicing,
  padding with zero, concatenation): they share the quantization parameters of their input, so that
  the runtime moves 8-bit codes.

Arithmetic and pass-through operators are quantized only on the way from one weighted layer to the
next: a float tail (the last pooling, the logits, the layer norm of a transformer) is cheaper and
more accurate in float.

Sources: Jacob et al. 2018 (arXiv:1712.05877) for the scheme; ONNX Runtime's QDQ selectors for the
units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from petra.core.kernels import USUAL, Kernels
from petra.methods.quantize.code_types import code_types
from petra.methods.quantize.integer_operators import IntegerOperators, is_convolution
from petra.methods.quantize.layer_calls import computes_with_codes, layer_call, reads_codes
from petra.methods.quantize.quantized_share import (
    EXCLUDED,
    KEPT,
    PRODUCTS,
    WITH_PARAMETERS,
    LayerCall,
)
from petra.model.aten.constants import from_parameters
from petra.model.aten.graph import (
    calls_weighted_layer,
    is_float32,
    module_path,
    shape_of,
    tensor_inputs,
    written,
)
from petra.model.aten.macs import multiply_accumulates
from petra.model.surgery import is_under

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
    "petra.padded",
    "aten.bilinear",
)


class DeploymentQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates an exported ATen graph for the integer kernels of a runtime.

    kernels: what the runtime has. observer: a name in `OBSERVERS`, in training in `WHILE_TRAINING`;
    by default minmax, or average. exclude: module paths whose layers, with all inside them, stay
    float. keep: more of them, the most sensitive first. weight_max: largest weight code, 1 to 127;
    None for the kernels' own. training: put in fake quantizers, which round in the forward pass and
    let gradients through.

    After `annotate`: `quantized` lists the paths of the quantized layers, one entry per call;
    `skipped` maps the path of every other parameterised layer to the reason; `calls` has the record
    of those with a weight matrix (norms have none), tables that hold codes already among them.

    Helps where convolutions and linear layers dominate. Does not help, and is not attempted, for
    attention products, normalisations, embeddings and recurrent cells, which stay float.
    """

    def __init__(
        self,
        kernels: Kernels = USUAL,
        *,
        observer: str = "",
        exclude: frozenset[str] = frozenset(),
        keep: Sequence[str] = (),
        weight_max: int | None = None,
        training: bool = False,
    ) -> None:
        self.kernels, self.operators = kernels, IntegerOperators(kernels)
        self.keep, self.exclude = keep, exclude.union(keep)
        self.quantized: list[str] = []
        self.skipped: dict[str, str] = {}
        self.calls: list[LayerCall] = []
        self.others: Counter[str] = Counter()
        self._written: set[Node] = set()
        largest = kernels.largest_weight if weight_max is None else weight_max
        observer = observer or ("average" if training else "minmax")
        self._activation, self._weight = code_types(kernels, observer, largest, training=training)

    @property
    def counts(self) -> Counter[str]:
        """Number of quantized calls of each layer."""
        return Counter(self.quantized)

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate the nodes of `model` in place."""
        self._written = written(model.graph)
        weighted = self._select_layers(model)
        wanted, moved = self._wanted(model, weighted)
        ends = {
            node: last
            for node in weighted
            if (last := self._integer_end(node, wanted, moved)) is not None
        }
        integer = self._integer_values(model, weighted, wanted, ends)
        operators = self.operators
        for node in model.graph.nodes:
            if node in weighted:
                self._annotate_weighted(node, ends.get(node))
            elif not self._allowed(node):
                continue
            elif operators.is_integer_arithmetic(node, integer):
                self._annotate_arithmetic(node)
            elif operators.moves_integers(node, integer) and not operators.is_fused_activation(
                node, weighted, integer
            ):
                self._annotate_pass_through(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing is left to check: only supported nodes are annotated."""

    def _select_layers(self, model: GraphModule) -> set[Node]:
        """The weighted layers to quantize; fills the record of quantized and skipped layers."""
        self.quantized, self.skipped, self.calls, self.others = [], {}, [], Counter()
        chosen, computed = set(), from_parameters(model)
        coded = {module_path(node) for node in model.graph.nodes if reads_codes(node)}
        for node in model.graph.nodes:
            kind = str(node.target) if node.op == "call_function" else ""
            path = module_path(node)
            if reads_codes(node):
                self.calls.append(layer_call(node, path, "", in_8_bits=computes_with_codes(node)))
            if (
                not (kind.startswith(_OTHER_WEIGHTED) or calls_weighted_layer(node))
                or path in coded
            ):
                if macs := 0 if path in coded else multiply_accumulates(node):
                    added = kind.startswith("aten.baddbmm")  # a third operand, the first, is added
                    alone = computed.isdisjoint(tensor_inputs(node)[added:])
                    self.others[PRODUCTS if alone else WITH_PARAMETERS] += macs
                continue
            reason = self._reason_to_skip(node)
            call = layer_call(node, path, reason, in_8_bits=not reason)
            if call.weights or call.macs:
                self.calls.append(call)
            if reason:
                self.skipped[path] = reason
            else:
                chosen.add(node)
                self.quantized.append(path)
        for path in self.quantized:
            self.skipped.pop(path, None)
        return chosen

    def _reason_to_skip(self, node: Node) -> str:
        path = module_path(node)
        if path in self.keep:
            return f"{KEPT}{self.keep.index(path) + 1} in sensitivity"
        if is_under(path, self.exclude):
            return EXCLUDED
        if not calls_weighted_layer(node):
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
        """Values some integer kernel will read: inputs of weighted layers, and of what leads only
        to them.

        The second set are those of them that reach a layer as they are, at most moved or clipped.
        """
        wanted: set[Node] = set()
        moved: set[Node] = set()
        for node in reversed(model.graph.nodes):
            if node in weighted:
                wanted.add(node.args[0])
                moved.add(node.args[0])
            elif node in wanted and self.operators.takes_part(node) and self._allowed(node):
                wanted.update(tensor_inputs(node))
                if node in moved and self.operators.shares_range(node):
                    moved.update(tensor_inputs(node))
        return wanted, moved

    def _integer_values(
        self, model: GraphModule, weighted: set[Node], wanted: set[Node], ends: dict[Node, Node]
    ) -> set[Node]:
        """Values that exist as 8-bit codes: inputs and outputs of weighted layers, and what is made
        of them alone.
        """
        integer = {source for node in weighted if isinstance(source := node.args[0], Node)}
        for node in model.graph.nodes:
            if node in weighted:
                integer.update([ends[node]] if node in ends else [])
            elif (
                node not in wanted
                or not self._allowed(node)
                or not any(source in integer for source in tensor_inputs(node))
            ):
                continue
            elif self.operators.is_arithmetic(node):
                integer.update((node, self.operators.end_of_unit(node)))
            elif self.operators.shares_range(node):
                integer.add(node)
        return integer

    def _allowed(self, node: Node) -> bool:
        path = module_path(node)
        touched = {node, *tensor_inputs(node)}
        return not (path and is_under(path, self.exclude)) and touched.isdisjoint(self._written)

    def _integer_end(self, node: Node, wanted: set[Node], moved: set[Node]) -> Node | None:
        """Last node of a layer's unit when it puts out codes.

        Convolutions always do, and linear layers where the kernels cannot put out float. Where they
        can, linear layers do where an integer kernel reads on; those over sequences, where that is
        another layer: the sums and gates of a transformer are a small part of its time and lose
        more than they gain.
        """
        last = self.operators.end_of_unit(node)
        reads_on = wanted if len(shape_of(node)) < 3 else moved
        always = is_convolution(node) or not self.kernels.float_results
        return last if (always or last in reads_on) and last not in self._written else None

    def _annotate_weighted(self, node: Node, last: Node | None) -> None:
        inputs = {node.args[0]: self._activation, node.args[1]: self._weight}
        _annotate(node, inputs, self._activation if last is node else None)
        if last is not node and last is not None:
            _annotate(last, {}, self._activation)

    def _annotate_arithmetic(self, node: Node) -> None:
        last = self.operators.end_of_unit(node)
        inputs: dict[Node, QuantizationSpecBase] = dict.fromkeys(
            tensor_inputs(node), self._activation
        )
        _annotate(node, inputs, self._activation if last is node else None)
        if last is not node:
            _annotate(last, {}, self._activation)

    def _annotate_pass_through(self, node: Node) -> None:
        first, *others = tensor_inputs(node)
        shared = SharedQuantizationSpec((first, node))
        inputs: dict[Node, QuantizationSpecBase] = dict.fromkeys(others, shared)
        _annotate(node, {first: self._activation, **inputs}, shared)


def _annotate(
    node: Node, inputs: dict[Any, QuantizationSpecBase], output: QuantizationSpecBase | None
) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, output, _annotated=True)
