"""The operators of `petra.model.layers.quantized` in ONNX, and those that stay whole.

The exporter writes each of them as one node of a private domain (`onnx_private`): it would decode
small weights and store them in float. `lower` then puts standard operators in the place of those
nodes. ONNX Runtime decodes constant weights once, when it loads the file, and fuses
the integer layers into single operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from petra.runtimes import onnx_attention, onnx_recurrent
from petra.runtimes.onnx_graph import add_constant, constants_of, substitute
from petra.runtimes.onnx_private import DOMAIN, private

_MICROSOFT = "com.microsoft"


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """A `custom_translation_table` for `torch.onnx.export`: operator -> what writes its node."""
    import torch

    import petra.model.layers.quantized  # noqa: F401  (registers the operators)

    def decode(codes: Any, scale: Any = None) -> Any:
        return _given("Decode", codes, scale)

    def dynamic_linear(x: Any, codes: Any, scale: Any, bias: Any = None) -> Any:
        return _given("DynamicLinear", x, codes, scale, bias)

    def int4_linear(x: Any, codes: Any, scale: Any, bias: Any = None) -> Any:
        return _given("Int4Linear", x, codes, scale, bias)

    operators = torch.ops.petra
    return {
        operators.decode.default: decode,
        operators.dynamic_linear.default: dynamic_linear,
        operators.int4_linear.default: int4_linear,
        **onnx_recurrent.translations(),
        **onnx_attention.translations(),
    }


def _given(name: str, *inputs: Any) -> Any:
    """A private node of those inputs that are there."""
    return private(name)(*(value for value in inputs if value is not None))


def lower(model: ModelProto) -> None:
    """Replace private nodes by standard operators (and com.microsoft's), in place."""
    graph = model.graph
    nodes = [node for node in graph.node if node.domain == DOMAIN]
    if not nodes:
        return
    written: dict[str, Callable[[GraphProto, NodeProto], list[NodeProto]]] = {
        onnx_recurrent.RECURRENCE: onnx_recurrent.write_recurrence,
        "Decode": _decode,
        "DynamicLinear": _dynamic_linear,
        "Int4Linear": _int4_linear,
    }
    # Recurrent layers look at how their weights are decoded, so they come first.
    for node in sorted(nodes, key=lambda node: node.op_type != onnx_recurrent.RECURRENCE):
        substitute(graph, node, written[node.op_type](graph, node))
    kept = [opset for opset in model.opset_import if opset.domain not in (DOMAIN, _MICROSOFT)]
    del model.opset_import[:]
    model.opset_import.extend([*kept, onnx.helper.make_opsetid(_MICROSOFT, 1)])


def _decode(graph: GraphProto, node: NodeProto) -> list[NodeProto]:
    """float(codes) * scale, the scales of 4-bit codes repeated for their blocks."""
    codes, out = node.input[0], node.output[0]
    scale = node.input[1] if len(node.input) > 1 else ""
    make = onnx.helper.make_node
    if not scale:
        return [make("Cast", [codes], [out], to=TensorProto.FLOAT)]
    if not _is_packed(graph, codes):
        return [
            make("Cast", [codes], [f"{out}_codes"], to=TensorProto.FLOAT),
            make("Mul", [f"{out}_codes", scale], [out]),
        ]
    return _decode_packed(graph, codes, scale, out)


def _decode_packed(graph: GraphProto, codes: str, scale: str, out: str) -> list[NodeProto]:
    """As `petra.model.layers.quantized.unpack`, in float arithmetic, which every runtime has."""
    (rows, inputs), groups = _packed_shape(graph, codes), constants_of(graph)[scale].shape[1]
    sixteen = add_constant(graph, f"{out}_16", np.array(16, np.float32))
    eight = add_constant(graph, f"{out}_8", np.array(8, np.float32))
    last = add_constant(graph, f"{out}_last", np.array([-1]))
    blocks = add_constant(graph, f"{out}_blocks", np.array([rows, groups, inputs // groups]))
    shape = add_constant(graph, f"{out}_shape", np.array([rows, inputs]))
    make = onnx.helper.make_node
    return [
        make("Cast", [codes], [f"{out}_both"], to=TensorProto.FLOAT),
        make("Div", [f"{out}_both", sixteen], [f"{out}_fraction"]),
        make("Floor", [f"{out}_fraction"], [f"{out}_high"]),
        make("Mul", [f"{out}_high", sixteen], [f"{out}_shifted"]),
        make("Sub", [f"{out}_both", f"{out}_shifted"], [f"{out}_low"]),
        make("Unsqueeze", [f"{out}_low", last], [f"{out}_first"]),
        make("Unsqueeze", [f"{out}_high", last], [f"{out}_second"]),
        make("Concat", [f"{out}_first", f"{out}_second"], [f"{out}_pairs"], axis=-1),
        make("Reshape", [f"{out}_pairs", blocks], [f"{out}_unsigned"]),
        make("Sub", [f"{out}_unsigned", eight], [f"{out}_signed"]),
        make("Unsqueeze", [scale, last], [f"{out}_scale"]),
        make("Mul", [f"{out}_signed", f"{out}_scale"], [f"{out}_decoded"]),
        make("Reshape", [f"{out}_decoded", shape], [out]),
    ]


def _dynamic_linear(graph: GraphProto, node: NodeProto) -> list[NodeProto]:
    """As ONNX Runtime fuses it into DynamicQuantizeMatMul; the order of operands matters."""
    x, codes, scale, *bias = node.input
    out = node.output[0]
    flat = add_constant(graph, f"{out}_flat", np.array([-1]))
    make = onnx.helper.make_node
    nodes = [
        make("DynamicQuantizeLinear", [x], [f"{out}_x", f"{out}_step", f"{out}_zero"]),
        make("Transpose", [codes], [f"{out}_codes"], perm=[1, 0]),
        make("MatMulInteger", [f"{out}_x", f"{out}_codes", f"{out}_zero"], [f"{out}_total"]),
        make("Cast", [f"{out}_total"], [f"{out}_float"], to=TensorProto.FLOAT),
        make("Reshape", [scale, flat], [f"{out}_scale"]),
        make("Mul", [f"{out}_step", f"{out}_scale"], [f"{out}_steps"]),
        make("Mul", [f"{out}_float", f"{out}_steps"], [f"{out}_product"]),
    ]
    return _add_bias(nodes, bias, out)


def _int4_linear(graph: GraphProto, node: NodeProto) -> list[NodeProto]:
    """ONNX Runtime's product with packed weights, which OpenVINO reads too; laid out as ours.

    It computes in float. At its accuracy level 4, which it chooses itself for opset 21's
    DequantizeLinear with blocks, it would quantize the activations too: three times as fast for a
    single row, as fast for many, 0.5% off per layer.
    """
    x, codes, scale, *bias = node.input
    (rows, inputs), groups = _packed_shape(graph, codes), constants_of(graph)[scale].shape[1]
    out, block = node.output[0], inputs // groups
    shape = add_constant(graph, f"{out}_shape", np.array([rows, groups, block // 2]))
    options = {"K": inputs, "N": rows, "bits": 4, "block_size": block}
    make = onnx.helper.make_node
    nodes = [
        make("Reshape", [codes, shape], [f"{out}_codes"]),
        make(
            "MatMulNBits",
            [x, f"{out}_codes", scale],
            [f"{out}_product"],
            domain=_MICROSOFT,
            **options,
        ),
    ]
    return _add_bias(nodes, bias, out)


def _add_bias(nodes: list[NodeProto], bias: list[str], out: str) -> list[NodeProto]:
    """Give the last node's product, with the bias added where there is one, the name `out`."""
    if bias and bias[0]:
        return [*nodes, onnx.helper.make_node("Add", [f"{out}_product", bias[0]], [out])]
    nodes[-1].output[0] = out
    return nodes


def _packed_shape(graph: GraphProto, codes: str) -> tuple[int, int]:
    """Shape of the weight behind two codes a byte."""
    rows, half = constants_of(graph)[codes].shape
    return rows, 2 * half


def _is_packed(graph: GraphProto, name: str) -> bool:
    return any(t.name == name and t.data_type == TensorProto.UINT8 for t in graph.initializer)
