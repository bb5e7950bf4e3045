"""Small ONNX files, written node by node as exporters write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    *,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> Path:
    """A file of `nodes`; shapes of inputs and outputs have a name where a size is free."""
    types = types or {}

    def values(shapes: Mapping[str, Sequence[Any]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, types.get(name, FLOAT), shape)
            for name, shape in shapes.items()
        ]

    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "graph", values(inputs), values(outputs), constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def convolutional(
    path: Path,
    *,
    batch: Any = "N",
    name: str = "image",
    last: str = "scores",
    channels: int = 8,
    classes: int = 10,
) -> Path:
    """Two convolutions with batch norms on (batch, 1, 8, 8), flattened in the long way that
    exporters write ``x.view(x.size(0), -1)``, with random weights.
    """
    random = np.random.default_rng(0)
    c, features = channels, 2 * channels * 4
    node = helper.make_node
    weights = {
        "body.0.weight": _matrix(random, c, 1, 3, 3),
        "body.0.bias": _matrix(random, c),
        "norm.scale": 1 + _matrix(random, c),
        "norm.bias": _matrix(random, c),
        "norm.mean": _matrix(random, c),
        "norm.var": 1 + np.abs(_matrix(random, c)),
        "body.3.weight": _matrix(random, 2 * c, c, 3, 3),
        "body.3.bias": _matrix(random, 2 * c),
        "head.weight": _matrix(random, classes, features),
        "head.bias": _matrix(random, classes),
        "rest": np.array([-1]),
        "first": np.array(0),
        "zero": np.array([0]),
    }
    norm = ["norm.scale", "norm.bias", "norm.mean", "norm.var"]
    nodes = [
        node("Conv", [name, "body.0.weight", "body.0.bias"], ["a"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", *norm], ["b"]),
        node("Relu", ["b"], ["c"]),
        node(
            "Conv",
            ["c", "body.3.weight", "body.3.bias"],
            ["d"],
            auto_pad="SAME_UPPER",
            strides=[2, 2],
        ),
        node("Clip", ["d", "low", "high"], ["e"]),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["f"], ["shape"]),
        node("Gather", ["shape", "first"], ["items"]),
        node("Unsqueeze", ["items", "zero"], ["row"]),
        node("Concat", ["row", "rest"], ["wanted"], axis=0),
        node("Reshape", ["f", "wanted"], ["g"]),
        node("Gemm", ["g", "head.weight", "head.bias"], [last], transB=1),
    ]
    weights |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    return write(path, nodes, weights, {name: [batch, 1, 8, 8]}, {last: [batch, classes]})


def _matrix(random: np.random.Generator, *shape: int) -> np.ndarray:
    scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
    return (scale * random.normal(size=shape)).astype(np.float32)


def two_towers(path: Path) -> Path:
    """Codes through an embedding, values through a product with a bias added after it; the table is
    also what scores are computed with, transposed. Two outputs.
    """
    random = np.random.default_rng(1)
    node = helper.make_node
    weights = {
        "table": _matrix(random, 9, 16),
        "w": _matrix(random, 4, 16),
        "b": _matrix(random, 16),
    }
    nodes = [
        node("Gather", ["table", "codes"], ["rows"]),
        node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        node("MatMul", ["values", "w"], ["product"]),
        node("Add", ["b", "product"], ["biased"]),
        node("Add", ["mean", "biased"], ["sum"]),
        node("Tanh", ["sum"], ["state"]),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["state", "turned"], ["logits"]),
    ]
    return write(
        path,
        nodes,
        weights,
        {"codes": ["n", 3], "values": ["n", 4]},
        {"state": ["n", 16], "logits": ["n", 9]},
        types={"codes": TensorProto.INT64},
    )


def run(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of a file, by the names of its outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))
