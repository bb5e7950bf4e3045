"""What an ONNX file asks for: its layers, in which precision, and where floats become codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from petra.core.profile import (
    CODES,
    DYNAMIC,
    FLOAT,
    INPUT,
    INSIDE,
    INT8,
    OUTPUT,
    WEIGHTS,
    Border,
    FileContents,
    FileLayer,
    Stored,
)
from petra.runtimes.onnx_graph import attribute_of, consumers, producers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

TENSORS = 12
"""The largest tensors that are named."""

_TEXT = 200  # characters of a name
# The place among the inputs of a layer's weights.
_WEIGHTS_AT = dict.fromkeys(("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"), 1)
_WEIGHTS_AT |= dict.fromkeys(("MatMulInteger", "ConvInteger", "MatMulNBits"), 1)
_WEIGHTS_AT |= {"QLinearConv": 3, "QLinearMatMul": 3}
_OWN = {
    "MatMulInteger": DYNAMIC,
    "ConvInteger": DYNAMIC,
    "MatMulNBits": CODES,
    "QLinearConv": INT8,
    "QLinearMatMul": INT8,
}
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity", "Flatten")
_ABSORBED = (
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Add", "Mul", "Cast"),
    *("BatchNormalization", "QuantizeLinear", "DequantizeLinear"),
)
_PACKED = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}
_TO_CODES, _TO_FLOATS = ("QuantizeLinear", "DynamicQuantizeLinear"), ("DequantizeLinear",)


def load_graph(path: Path) -> ModelProto:
    """The graph of an ONNX file, without weights that are in a second file. Runs nothing."""
    import onnx

    return onnx.load(str(path), load_external_data=False)


def contents_of(model: ModelProto) -> FileContents:
    """What the file asks for. Nodes within loops and branches are not looked at. O(nodes)."""
    graph = model.graph
    reading = _Reading(
        graph,
        {tensor.name: tensor for tensor in graph.initializer},
        producers(graph),
        dict(consumers(graph)),
    )
    layers = [reading.layer(i, node) for i, node in enumerate(graph.node) if _multiplies(node)]
    place = {layer.node: at for at, layer in enumerate(layers)}
    readers = reading.first_readers(place)
    own = {tensor.name: tensor_bytes(tensor) for tensor in graph.initializer}
    held = dict.fromkeys(range(len(layers)), 0)
    for name, at in readers.items():
        held[at] += own.get(name, 0)
    tensors = sorted(graph.initializer, key=lambda t: (-own[t.name], t.name))[:TENSORS]
    return FileContents(
        layers=tuple(replace(layer, bytes=held[at]) for at, layer in enumerate(layers)),
        borders=tuple(reading.borders(place)),
        tensors=tuple(
            Stored(
                tensor.name[:_TEXT],
                tuple(tensor.dims),
                _type_name(tensor.data_type),
                own[tensor.name],
                readers.get(tensor.name),
                next((reader.op_type for reader in reading.readers.get(tensor.name, [])), ""),
            )
            for tensor in tensors
        ),
        nodes=len(graph.node),
        bytes=sum(own.values()),
    )


def absorbed(model: ModelProto, contents: FileContents) -> dict[int, int]:
    """Numbers of nodes -> the place of the layer whose kernel they may be part of: the layers
    themselves, and what follows them alone. Of two layers that are added, the later one.
    """
    graph, readers = model.graph, consumers(model.graph)
    number_of = {name: i for i, node in enumerate(graph.node) for name in node.output}
    found: dict[int, int] = {}
    for at, layer in enumerate(contents.layers):
        found[layer.node] = at
        after = readers[graph.node[layer.node].output[0]]
        for _ in range(8):
            if len(after) != 1 or after[0].op_type not in _ABSORBED:
                break
            found[number_of[after[0].output[0]]] = at
            after = readers[after[0].output[0]]
    return found


def _multiplies(node: NodeProto) -> bool:
    at = _WEIGHTS_AT.get(node.op_type)
    return at is not None and len(node.input) > at


@dataclass(frozen=True)
class _Reading:
    """A graph and what is looked up in it."""

    graph: GraphProto
    constants: dict[str, TensorProto]
    producer: dict[str, NodeProto]
    readers: dict[str, list[NodeProto]]

    def layer(self, number: int, node: NodeProto) -> FileLayer:
        constant, decoded = self._constant(node.input[_WEIGHTS_AT[node.op_type]])
        shape = tuple(constant.dims) if constant is not None else ()
        groups = int(attribute_of(node, "group", 1))
        return FileLayer(
            number,
            node.op_type,
            node.name[:_TEXT],
            shape,
            self._precision(node, constant, decoded=decoded),
            self._closed(node),
            depthwise=groups > 1 and min(shape[:2], default=0) == 1,
        )

    def _constant(self, name: str) -> tuple[TensorProto | None, bool]:
        """The constant behind a value, and whether it is decoded on the way; None: it is none."""
        decoded = False
        for _ in range(8):
            if name in self.constants:
                return self.constants[name], decoded
            node = self.producer.get(name)
            if node is None or node.op_type not in (*_TO_FLOATS, *_MOVES):
                return None, decoded
            decoded |= node.op_type in _TO_FLOATS
            name = node.input[0]
        return None, decoded

    def _precision(self, node: NodeProto, constant: TensorProto | None, *, decoded: bool) -> str:
        if node.op_type in _OWN:
            return _OWN[node.op_type]
        source = self.producer.get(node.input[0])
        given_codes = source is not None and source.op_type in _TO_FLOATS
        if decoded or constant is None:
            both = constant is not None or self._is_decoded(node.input[1])
            return INT8 if given_codes and both else CODES if decoded else FLOAT
        return _type_name(constant.data_type)

    def _is_decoded(self, name: str) -> bool:
        node = self.producer.get(name)
        return node is not None and node.op_type in _TO_FLOATS

    def _closed(self, node: NodeProto) -> bool:
        """Whether what comes out is quantized, at once or after what a kernel may end with."""
        after = self.readers.get(node.output[0], [])
        for _ in range(8):
            if len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
                after = self.readers.get(after[0].output[0], [])
        return bool(after) and all(reader.op_type in _TO_CODES for reader in after)

    def first_readers(self, place: dict[int, int]) -> dict[str, int]:
        """Constants -> the place of the first layer that reads them, directly or decoded."""
        found: dict[str, int] = {}
        for number, at in place.items():
            for name in self.graph.node[number].input:
                for constant in self._made_of(name):
                    found.setdefault(constant, at)
        return found

    def _made_of(self, name: str) -> Iterator[str]:
        """The constants that a value is read from, and those that say how."""
        for _ in range(8):
            if name in self.constants:
                yield name
                return
            node = self.producer.get(name)
            if node is None or node.op_type not in (*_TO_FLOATS, *_MOVES):
                return
            yield from (other for other in node.input[1:] if other in self.constants)
            name = node.input[0]

    def borders(self, place: dict[int, int]) -> Iterator[Border]:
        """All quantize and dequantize operators."""
        inputs = {value.name for value in self.graph.input} - self.constants.keys()
        outputs = {value.name for value in self.graph.output}
        number_of = {name: i for i, node in enumerate(self.graph.node) for name in node.output}
        for number, node in enumerate(self.graph.node):
            if node.op_type not in (*_TO_CODES, *_TO_FLOATS):
                continue
            after = self.readers.get(node.output[0], [])
            served = (
                place.get(number_of.get(reader.output[0], -1)) for reader in after if reader.output
            )
            where = (
                INPUT
                if self._reached(node.input[0], inputs)
                else OUTPUT
                if outputs & set(node.output) or self._leads_out(node, outputs)
                else WEIGHTS
                if self._constant(node.input[0])[0] is not None
                else INSIDE
            )
            layer = next((at for at in served if at is not None), None)
            yield Border(number, node.op_type, where, layer)

    def _reached(self, name: str, inputs: set[str]) -> bool:
        """Whether a value is an input of the model, but for moving it."""
        for _ in range(8):
            if name in inputs:
                return True
            node = self.producer.get(name)
            if node is None or node.op_type not in _MOVES:
                return False
            name = node.input[0]
        return False

    def _leads_out(self, node: NodeProto, outputs: set[str]) -> bool:
        """Whether a dequantize is followed by moves alone up to an output of the model."""
        name = node.output[0]
        for _ in range(8):
            after = self.readers.get(name, [])
            if len(after) != 1 or after[0].op_type not in _MOVES:
                return False
            name = after[0].output[0]
            if name in outputs:
                return node.op_type in _TO_FLOATS
        return False


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a stored tensor, by what it says of itself: types below a byte are packed."""
    count: int = math.prod(tensor.dims)
    bits = _PACKED.get(_type_name(tensor.data_type), 8 * _item_bytes(tensor.data_type))
    return -(-count * bits // 8)


def _type_name(kind: int) -> str:
    """'float32', 'int8', ... of ONNX's number of a type."""
    import onnx

    name = onnx.TensorProto.DataType.Name(kind).lower() if kind in _known() else f"type {kind}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _known() -> frozenset[int]:
    import onnx

    return frozenset(onnx.TensorProto.DataType.values())


def _item_bytes(kind: int) -> int:
    import onnx

    try:
        size: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, TypeError, ValueError):
        return 0
    return size
