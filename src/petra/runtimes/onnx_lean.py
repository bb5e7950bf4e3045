"""Make an exported ONNX file small, without changing what it computes.

Everything that is not computation goes: doc strings, exporter metadata, shapes of intermediate
values, long names, attributes that repeat a default, copies of equal constants, operators on
constants. For a small int8 model that is a third of the file.

What onnx_ir has a pass for is left to it. Every other function changes a graph in place.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from petra.runtimes import onnx_codes, onnx_spelling
from petra.runtimes.onnx_attention import drop_settled_choices
from petra.runtimes.onnx_graph import (
    Array,
    add_constant,
    constants_of,
    consumers,
    producers,
    rename_inputs,
)

_FOLDABLE = {
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Concat",
    "Cast",
    "Gather",
    "Identity",
    "ReduceMax",
    "Equal",
    "Where",
}

# Defaults that the standard states in words only, because how many values they have depends on the
# input.
_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}
_UNSAID = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}


def make_lean(model: ModelProto) -> ModelProto:
    """The model after all passes, in order; `model` itself is changed on the way.

    Inputs and outputs keep their names and types.
    """
    model = _shared(model)
    graph = model.graph
    fold_constants(graph)
    drop_settled_choices(graph)
    onnx_spelling.transpose_quantized_weights(graph)
    onnx_spelling.spell_global_average(graph)
    for rewrite in (onnx_codes.drop_saturated_clips, onnx_codes.work_on_codes):
        while rewrite(graph):
            pass
    onnx_spelling.pad_in_convolutions(graph)
    model = _used(model)
    graph = model.graph
    merge_slices(graph)
    onnx_spelling.quantize_gemm_biases(graph)
    onnx_spelling.keep_float_layers(graph)
    model = _used(_shared(model))
    strip(model)
    shorten_names(model.graph)
    return model


def _after(model: ModelProto, *passes: ir.passes.PassBase) -> ModelProto:
    """A copy of the model, after passes of onnx_ir."""
    return ir.to_proto(ir.passes.Sequential(*passes)(ir.from_proto(model)).model)


def _shared(model: ModelProto) -> ModelProto:
    """With one of every set of equal initialisers."""
    return _after(model, common.DeduplicateHashedInitializersPass())


def _used(model: ModelProto) -> ModelProto:
    """Without what nothing reads, calls or uses: nodes, initialisers, functions, opsets."""
    return _after(
        model,
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
    )


def strip(model: ModelProto) -> None:
    """Remove documentation, metadata, intermediate shapes and node names."""
    model.doc_string, model.producer_name, model.producer_version, model.domain = (
        "",
        "petra",
        "",
        "",
    )
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string, graph.name = "", "g"
    del graph.metadata_props[:], graph.value_info[:], graph.quantization_annotation[:]
    for item in (*graph.node, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    for node in graph.node:
        node.name = ""
        for attribute in node.attribute:
            attribute.doc_string = ""
        kept = [a for a in node.attribute if not _is_default(node, a)]
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_default(node: NodeProto, attribute: onnx.AttributeProto) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _WINDOWS and attribute.name in _UNSAID:
        return set(attribute.ints) == {_UNSAID[attribute.name]}
    declared = onnx.defs.get_schema(node.op_type).attributes.get(attribute.name)
    if (
        declared is None
        or declared.required
        or declared.default_value.type == onnx.AttributeProto.UNDEFINED
    ):
        return False
    default = onnx.helper.get_attribute_value(declared.default_value)
    return bool(onnx.helper.get_attribute_value(attribute) == default)


def shorten_names(graph: GraphProto) -> None:
    """Rename every value that is not a graph input or output to one or two letters."""
    if any(
        a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for n in graph.node
        for a in n.attribute
    ):
        return  # a subgraph reads outer values by name
    fixed = {value.name for value in (*graph.input, *graph.output)}
    fresh = (name for name in _short_names() if name not in fixed)
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name not in fixed:
            tensor.name = renamed.setdefault(tensor.name, next(fresh))
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name and name not in fixed:
                node.output[index] = renamed.setdefault(name, next(fresh))
    rename_inputs(graph, renamed)


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)


def fold_constants(graph: GraphProto) -> None:
    """Evaluate shape and layout operators on constants where the result takes no more room than
    what it replaces.
    """
    constants = constants_of(graph)
    for node in list(graph.node):
        if node.op_type not in _FOLDABLE or len(node.output) != 1:
            continue
        if not all(name in constants for name in node.input if name):
            continue
        feeds = {name: constants[name] for name in node.input if name}
        results: Any = ReferenceEvaluator(node).run(None, feeds)
        result = np.asarray(results[0])
        private = sum(feeds[name].nbytes for name in feeds if len(consumers(graph)[name]) == 1)
        if result.nbytes > private + 64:
            continue
        constants[node.output[0]] = result
        graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
        graph.node.remove(node)


def merge_slices(graph: GraphProto) -> None:
    """Slice(Slice(x)) over different axes with constant bounds -> one Slice."""
    for node in list(graph.node):
        inner = producers(graph).get(node.input[0]) if node.op_type == "Slice" else None
        if inner is None or inner.op_type != "Slice" or len(consumers(graph)[inner.output[0]]) != 1:
            continue
        constants = constants_of(graph)
        first, second = _slice_bounds(inner, constants), _slice_bounds(node, constants)
        if first is None or second is None or set(first[2]) & set(second[2]):
            continue
        del node.input[:]
        node.input.append(inner.input[0])
        for kind, head, tail in zip(
            ("starts", "ends", "axes", "steps"), first, second, strict=True
        ):
            bounds = np.asarray([*head, *tail], dtype=np.int64)
            node.input.append(add_constant(graph, f"{node.output[0]}_{kind}", bounds))
        graph.node.remove(inner)


def _slice_bounds(node: NodeProto, constants: dict[str, Array]) -> list[list[int]] | None:
    """Starts, ends, axes and steps of a Slice when all are constant and no axis is negative."""
    if len(node.input) != 5 or not all(name in constants for name in node.input[1:]):
        return None
    bounds = [[int(v) for v in constants[name].ravel()] for name in node.input[1:]]
    return None if any(axis < 0 for axis in bounds[2]) else bounds
