"""Make an exported ONNX file small, without changing what it computes.

Everything that is not computation goes: doc strings, exporter metadata, shapes of intermediate
values, long names, attributes that repeat a default, copies of equal constants, operators on
constants. For a small int8 model that is a third of the file.

Every function takes an `onnx.ModelProto` or `GraphProto` and changes it in place.
"""

from __future__ import annotations

import hashlib
import itertools
import string
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from petra.runtimes import onnx_codes
from petra.runtimes.onnx_graph import (
    Array,
    add_constant,
    constants_of,
    consumers,
    producers,
    reads,
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
}

# Defaults that the standard states in words only, because how many values they have depends on the
# input.
_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}
_UNSAID = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}


def make_lean(model: ModelProto) -> None:
    """All passes in order; graph inputs and outputs keep their names and types."""
    graph = model.graph
    share_constants(graph)
    fold_constants(graph)
    onnx_codes.transpose_quantized_weights(graph)
    onnx_codes.spell_global_average(graph)
    for rewrite in (onnx_codes.drop_saturated_clips, onnx_codes.work_on_codes):
        while rewrite(graph):
            pass
    onnx_codes.pad_in_convolutions(graph)
    drop_unused(model)
    merge_slices(graph)
    onnx_codes.quantize_gemm_biases(graph)
    onnx_codes.keep_float_layers(graph)
    strip(model)
    share_constants(graph)
    drop_unused(model)
    shorten_names(graph)


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


def share_constants(graph: GraphProto) -> None:
    """Keep one of every set of equal initialisers."""
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    for tensor in graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(tensor.raw_data).digest())
        if key in first and tensor.name not in outputs:
            renamed[tensor.name] = first[key]
        else:
            first.setdefault(key, tensor.name)
    _drop_initializers(graph, lambda name: name in renamed)
    rename_inputs(graph, renamed)


def drop_unused(model: ModelProto) -> None:
    """Remove nodes and initialisers nothing reads, functions nothing calls and opsets nothing
    uses.
    """
    graph = model.graph
    while True:
        read = {name for node in graph.node for name in reads(node)} | {
            output.name for output in graph.output
        }
        dead = [node for node in graph.node if not any(output in read for output in node.output)]
        for node in dead:
            graph.node.remove(node)
        if not dead:
            break
    _drop_initializers(graph, lambda name: name not in read)
    domains = (
        {node.domain for node in graph.node}
        | {node.domain for f in model.functions for node in f.node}
        | {""}
    )
    functions = [f for f in model.functions if f.domain in domains]
    del model.functions[:]
    model.functions.extend(functions)
    opsets = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


def _drop_initializers(graph: GraphProto, unwanted: Callable[[str], bool]) -> None:
    """In place: moving tensors to a new list would serialise each, which protobuf refuses past 2
    GiB.
    """
    for index in reversed(range(len(graph.initializer))):
        if unwanted(graph.initializer[index].name):
            del graph.initializer[index]


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
    """Starts, ends, axes and steps of a Slice when all are given and constant, with no negative
    axis.
    """
    if len(node.input) != 5 or not all(name in constants for name in node.input[1:]):
        return None
    bounds = [[int(v) for v in constants[name].ravel()] for name in node.input[1:]]
    return None if any(axis < 0 for axis in bounds[2]) else bounds
