"""Patterns a runtime has an integer kernel for, spelled the way it looks for them.

Runtimes do part of this themselves; a file that has it done is smaller, and runs alike on all of
them. Every function changes the graph in place, and not what it computes.
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
    ranks,
    substitute,
)


def transpose_quantized_weights(graph: GraphProto) -> None:
    """Transpose(Dequantize(w)) = Dequantize(w transposed) for a constant w read only there."""
    constants, producer = constants_of(graph), producers(graph)
    for node in list(graph.node):
        source = producer.get(node.input[0]) if node.op_type == "Transpose" else None
        if (
            source is None
            or source.op_type != "DequantizeLinear"
            or source.input[0] not in constants
        ):
            continue
        if (
            len(consumers(graph)[source.output[0]]) != 1
            or len(consumers(graph)[source.input[0]]) != 1
        ):
            continue
        weight = constants[source.input[0]]
        order = list(attribute_of(node, "perm", list(range(weight.ndim))[::-1]))
        transposed = np.ascontiguousarray(weight.transpose(order))
        source.input[0] = add_constant(graph, f"{node.output[0]}_transposed", transposed)
        for attribute in source.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(attribute.i % weight.ndim)
        source.output[0] = node.output[0]
        graph.node.remove(node)


def spell_global_average(graph: GraphProto) -> None:
    """ReduceMean over all spatial dimensions -> GlobalAveragePool, which has an integer kernel."""
    constants, rank = constants_of(graph), ranks(graph)
    for node in list(graph.node):
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        dims = rank.get(node.input[0], 0)
        axes = (
            sorted(int(axis) % dims for axis in constants[node.input[1]].ravel())
            if dims >= 3
            else []
        )
        if axes != list(range(2, dims)) or not axes:
            continue
        keep, result = attribute_of(node, "keepdims", 1), node.output[0]
        pooled = result if keep else f"{result}_pooled"
        new = [onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled])]
        readers = consumers(graph)[result]
        if not keep and len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
            quantize = readers[0]
            codes = quantize.output[0]
            new.append(
                onnx.helper.make_node(
                    "QuantizeLinear", [pooled, *quantize.input[1:]], [f"{codes}_pooled"]
                )
            )
            new.append(onnx.helper.make_node("Flatten", [f"{codes}_pooled"], [codes], axis=1))
            graph.node.remove(quantize)
        elif not keep:
            new.append(onnx.helper.make_node("Flatten", [pooled], [result], axis=1))
        substitute(graph, node, new)


def pad_in_convolutions(graph: GraphProto) -> None:
    """Pad -> Conv, or Pad -> dequantize -> Conv, where zeros are padded around the image: the
    convolution pads itself.

    Networks from TensorFlow need it: their 'same' padding of strided convolutions is not symmetric.
    """
    constants = constants_of(graph)
    for node in list(graph.node):
        if node.op_type != "Conv" or attribute_of(node, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        producer, readers = producers(graph), consumers(graph)
        reader, zero = node, np.zeros(())
        dequantize = producer.get(node.input[0])
        if (
            dequantize is not None
            and dequantize.op_type == "DequantizeLinear"
            and len(dequantize.input) > 2
        ):
            if len(readers[dequantize.output[0]]) != 1 or dequantize.input[2] not in constants:
                continue
            reader, zero = dequantize, constants[dequantize.input[2]]
        pad = producer.get(reader.input[0])
        if pad is None or len(readers[pad.output[0]]) != 1:
            continue
        around = _padding(pad, zero, constants)
        if around is None:
            continue
        own = attribute_of(node, "pads", [0] * len(around))
        kept = [attribute for attribute in node.attribute if attribute.name != "pads"]
        pads = onnx.helper.make_attribute("pads", [a + b for a, b in zip(own, around, strict=True)])
        del node.attribute[:]
        node.attribute.extend([*kept, pads])
        reader.input[0] = pad.input[0]
        graph.node.remove(pad)


def _padding(node: NodeProto, zero: Array, constants: dict[str, Array]) -> list[int] | None:
    """What a Pad puts before and after every spatial dimension, if it pads nothing else and with
    nothing but `zero`.
    """
    if (
        node.op_type != "Pad"
        or attribute_of(node, "mode", b"constant") != b"constant"
        or any(node.input[3:])
    ):
        return None
    given = len(node.input) > 2 and node.input[2]
    value, amounts = (
        constants.get(node.input[2]) if given else np.zeros(()),
        constants.get(node.input[1]),
    )
    if (
        value is None
        or amounts is None
        or zero.size != 1
        or float(value.item()) != float(zero.item())
    ):
        return None
    before, after = amounts.reshape(2, -1)
    around = [*map(int, before[2:]), *map(int, after[2:])]
    return None if before[:2].any() or after[:2].any() or min(around) < 0 else around


def keep_float_layers(graph: GraphProto) -> None:
    """Part a float layer from the dequantize before it where its result is quantized again.

    ONNX Runtime (its WeightBiasQuantization) would quantize the float weights of such a layer while
    it loads the file, which undoes mixed precision in silence. A Clip that clips nothing stops it
    and costs one pass over the input.
    """
    producer, readers, constants = producers(graph), consumers(graph), constants_of(graph)
    for node in list(graph.node):
        if (
            node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul")
            or node.input[1] not in constants
        ):
            continue
        source, after = producer.get(node.input[0]), readers[node.output[0]]
        while len(after) == 1 and after[0].op_type in ("Relu", "Clip", "Add"):
            after = readers[after[0].output[0]]
        if source is None or source.op_type != "DequantizeLinear":
            continue
        if all(reader.op_type != "QuantizeLinear" for reader in after):
            continue
        name = f"{node.output[0]}_apart"
        lowest = add_constant(
            graph, f"{name}_low", np.asarray(np.finfo(np.float32).min, dtype=np.float32)
        )
        clip = onnx.helper.make_node("Clip", [node.input[0], lowest], [name])
        graph.node.insert(list(graph.node).index(node), clip)
        node.input[0] = name


def quantize_gemm_biases(graph: GraphProto) -> None:
    """Store the bias of an all-integer Gemm as int32 codes of scale (input scale x weight scale).

    ONNX Runtime does this itself for convolutions, but leaves a Gemm with a float bias in float.
    """
    producer, constants = producers(graph), constants_of(graph)
    for node in list(graph.node):
        if node.op_type != "Gemm" or len(node.input) != 3 or node.input[2] not in constants:
            continue
        data, weight = producer.get(node.input[0]), producer.get(node.input[1])
        if any(source is None or source.op_type != "DequantizeLinear" for source in (data, weight)):
            continue
        assert data is not None
        assert weight is not None
        if data.input[1] not in constants or weight.input[1] not in constants:
            continue
        bias = constants[node.input[2]]
        scale = (
            (constants[data.input[1]] * constants[weight.input[1]]).astype(np.float32).reshape(-1)
        )
        codes = np.rint(bias / scale.astype(np.float64))
        if (
            scale.size not in (1, bias.size)
            or np.abs(codes).max(initial=0) > np.iinfo(np.int32).max
        ):
            continue
        name = f"{node.output[0]}_bias"
        inputs = [add_constant(graph, f"{name}_codes", codes.astype(np.int32))]
        inputs.append(
            add_constant(graph, f"{name}_scale", scale if scale.size > 1 else scale.reshape(()))
        )
        # `axis` is ignored for the scalar scale of a per-tensor weight.
        dequantize = onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=0)
        graph.node.insert(list(graph.node).index(node), dequantize)
        node.input[2] = name
