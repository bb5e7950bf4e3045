"""Rewrites of a QDQ graph that let more of it run on 8-bit codes and compute the same.

Between a dequantize and a quantize with the same parameters, an operator that only selects, moves
or clips values works on the codes themselves. Runtimes do part of this themselves; a file that has
it done is smaller, and runs alike on all of them.

Every function changes the graph in place. Equal constants must share one name.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, NodeProto

from petra.runtimes.onnx_graph import (
    Array,
    add_constant,
    attribute_of,
    constants_of,
    consumers,
    producers,
    rename_inputs,
)

_MOVES_CODES = {
    "Slice",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "MaxPool",
    "Identity",
    "Concat",
}


def work_on_codes(graph: GraphProto) -> bool:
    """Dequantize -> move -> quantize with the same parameters: move the codes. One rewrite; True
    when one was made.

    Moves are slicing, reshaping, transposing, max pooling, concatenation, padding with zero (whose
    code is the zero point) and clipping. A quantize right after its own dequantize disappears.
    """
    producer, readers, constants = producers(graph), consumers(graph), constants_of(graph)
    for node in list(graph.node):
        source = producer.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if (
            source is not None
            and source.op_type == "DequantizeLinear"
            and _parameters(source) == _parameters(node)
        ):
            rename_inputs(graph, {node.output[0]: source.input[0]})
            graph.node.remove(node)
            return True
        after = readers[node.output[0]] if len(node.output) == 1 else []
        if len(after) != 1 or after[0].op_type != "QuantizeLinear":
            continue
        quantize = after[0]
        data = node.input if node.op_type == "Concat" else node.input[:1]
        sources = [producer.get(name) for name in data]
        if any(
            source is None
            or source.op_type != "DequantizeLinear"
            or _parameters(source) != _parameters(quantize)
            for source in sources
        ):
            continue
        zero_point = constants.get(quantize.input[2]) if len(quantize.input) > 2 else None
        scale = constants.get(quantize.input[1])
        if scale is None or zero_point is None or scale.size != 1:
            continue
        moved = _on_codes(graph, node, float(scale.item()), zero_point, constants)
        if not moved:
            continue
        for index, source in enumerate(sources):
            assert source is not None
            node.input[index] = source.input[0]
        node.output[0] = quantize.output[0]
        graph.node.remove(quantize)
        return True
    return False


def _on_codes(
    graph: GraphProto, node: NodeProto, scale: float, zero_point: Array, constants: dict[str, Array]
) -> bool:
    """Turn a float operator into the same one on codes, but for its data; False if it has none."""
    if node.op_type in _MOVES_CODES:
        return True
    if node.op_type == "Pad":
        if attribute_of(node, "mode", b"constant") != b"constant" or (
            len(node.input) > 2 and node.input[2]
        ):
            padding = constants.get(node.input[2]) if len(node.input) > 2 else None
            if padding is None or padding.any():
                return False
        axes = list(node.input[3:])
        del node.input[2:]
        node.input.extend(
            [add_constant(graph, f"{node.output[0]}_zero", zero_point.reshape(())), *axes]
        )
        return True
    bounds = _clip_codes(node, scale, zero_point, constants)
    if bounds is None:
        return False
    node.op_type = "Clip"
    del node.input[1:]
    names = (f"{node.output[0]}_low", f"{node.output[0]}_high")
    node.input.extend(
        add_constant(graph, name, code) for name, code in zip(names, bounds, strict=True)
    )
    return True


def drop_saturated_clips(graph: GraphProto) -> bool:
    """Remove a Relu or Clip before a quantize that saturates there anyway, or clip the codes."""
    producer, readers, constants = producers(graph), consumers(graph), constants_of(graph)
    for node in list(graph.node):
        after = readers[node.output[0]] if node.op_type in ("Relu", "Clip") else []
        source = producer.get(node.input[0]) if after else None
        if len(after) != 1 or after[0].op_type != "QuantizeLinear" or len(after[0].input) < 3:
            continue
        if (
            source is None
            or source.op_type == "DequantizeLinear"
            or len(readers[node.input[0]]) != 1
        ):
            continue
        quantize = after[0]
        scale, zero_point = constants.get(quantize.input[1]), constants.get(quantize.input[2])
        if scale is None or zero_point is None or scale.size != 1:
            continue
        bounds = _clip_codes(node, float(scale.item()), zero_point, constants)
        if bounds is None:
            continue
        info, codes = np.iinfo(zero_point.dtype), quantize.output[0]
        new: list[NodeProto] = []
        if int(bounds[0]) > info.min or int(bounds[1]) < info.max:
            quantize.output[0] = f"{codes}_free"
            names = [
                add_constant(graph, f"{codes}_{k}", b)
                for k, b in zip(("low", "high"), bounds, strict=True)
            ]
            new.append(onnx.helper.make_node("Clip", [quantize.output[0], *names], [codes]))
        quantize.input[0] = node.input[0]
        position = list(graph.node).index(quantize)
        for extra in new:
            graph.node.insert(position + 1, extra)
        graph.node.remove(node)
        return True
    return False


def _clip_codes(
    node: NodeProto, scale: float, zero_point: Array, constants: dict[str, Array]
) -> tuple[Array, Array] | None:
    """Lowest and highest code a Relu or Clip lets through, saturated to the code's type."""
    if node.op_type == "Relu":
        low, high = 0.0, float("inf")
    elif node.op_type == "Clip":
        given = [constants.get(name) if name else None for name in node.input[1:3]]
        if any(name and value is None for name, value in zip(node.input[1:3], given, strict=True)):
            return None
        given += [None] * (2 - len(given))
        low = -float("inf") if given[0] is None else float(given[0].item())
        high = float("inf") if given[1] is None else float(given[1].item())
    else:
        return None
    info = np.iinfo(zero_point.dtype)
    codes = [np.rint(bound / scale) + float(zero_point.item()) for bound in (low, high)]
    lowest, highest = (
        np.asarray(np.clip(code, info.min, info.max), dtype=zero_point.dtype) for code in codes
    )
    return lowest, highest


def _parameters(node: NodeProto) -> tuple[object, ...]:
    """What fixes the meaning of a node's codes; equal constants must already share their name."""
    return (*node.input[1:], attribute_of(node, "axis", 1))
