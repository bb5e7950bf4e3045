"""What other people's ONNX files are made of, and whole ones that several tests want."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as n

_RNG = np.random.default_rng(0)
tensor = h.make_tensor_value_info
W = n.from_array(_RNG.standard_normal((4, 3)).astype(np.float32), "W")
X, Y = tensor("x", T.FLOAT, ["n", 4]), tensor("y", T.FLOAT, ["n", 3])


def constant(name: str, value: Any, dtype: Any = np.float32) -> Any:
    return n.from_array(np.asarray(value, dtype), name)


def product(x: str = "x", y: str = "y") -> Any:
    return h.make_node("MatMul", [x, "W"], [y])


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any] = (X,),
    outputs: Sequence[Any] = (Y,),
    constants: Sequence[Any] = (W,),
    *,
    opsets: Sequence[Any] = (h.make_opsetid("", 18), h.make_opsetid("ai.onnx.ml", 3)),
    ir: int = 8,
) -> onnx.ModelProto:
    graph = h.make_graph(nodes, "g", inputs, outputs, list(constants))
    return h.make_model(graph, opset_imports=list(opsets), ir_version=ir)


def lstm(time: object, batch: object) -> onnx.ModelProto:
    """Time first, as PyTorch's recurrent layers have it by default; only the last state is
    returned.
    """
    weights = [
        constant("Wi", _RNG.standard_normal((1, 20, 4))),
        constant("R", _RNG.standard_normal((1, 20, 5))),
    ]
    node = h.make_node("LSTM", ["x", "Wi", "R"], ["", "y"], hidden_size=5)
    return model(
        [node],
        [tensor("x", T.FLOAT, [time, batch, 4])],
        [tensor("y", T.FLOAT, [1, batch, 5])],
        weights,
    )


def endless(step: Sequence[Any] = ()) -> onnx.ModelProto:
    """A loop without end; `step` is done in every turn, from v to w."""
    step = step or [h.make_node("Identity", ["v"], ["w"])]
    body = h.make_graph(
        [h.make_node("Identity", ["go"], ["on"]), *step],
        "body",
        [tensor("i", T.INT64, []), tensor("go", T.BOOL, []), tensor("v", T.FLOAT, None)],
        [tensor("on", T.BOOL, []), tensor("w", T.FLOAT, None)],
    )
    loop = h.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    return model(
        [loop], outputs=[tensor("y", T.FLOAT, None)], constants=[constant("yes", True, bool)]
    )


def bomb() -> onnx.ModelProto:
    """Doubles what it holds in every turn."""
    return endless([h.make_node("Concat", ["v", "v"], ["w"], axis=0)])


def zipmap() -> onnx.ModelProto:
    """A classifier as scikit-learn's converter writes it: labels, and a map of probabilities for
    every item.
    """
    scores = h.make_sequence_type_proto(
        h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, None))
    )
    nodes = [
        product(y="p"),
        h.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        h.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    return model(nodes, outputs=[tensor("label", T.INT64, ["n"]), h.make_value_info("z", scores)])


def optional(kind: object) -> Any:
    return h.make_optional_type_proto(h.make_tensor_type_proto(kind, ["n", 4]))


def lost_weights() -> onnx.ModelProto:
    weights = constant("W", np.zeros((4, 3)))
    weights.ClearField("raw_data")
    weights.data_location = T.EXTERNAL
    place = weights.external_data.add()
    place.key, place.value = "location", "lost.bin"
    return model([product()], constants=[weights])


def unary(operator: str, before: Any, after: Any) -> onnx.ModelProto:
    return model([h.make_node(operator, ["x"], ["y"])], [before], [after], [])


def gather(rows: int) -> onnx.ModelProto:
    table = constant("E", np.ones((rows, 3)))
    return model(
        [h.make_node("Gather", ["E", "i"], ["y"])], [tensor("i", T.INT64, ["n"])], [Y], [table]
    )


def write(path: Path, made: onnx.ModelProto) -> Path:
    """Save as it is: some of these are no valid models."""
    path.write_bytes(made.SerializeToString())
    return path
