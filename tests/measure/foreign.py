"""Small ONNX files as other people's tools write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def _unary(operator: str, before: Any, after: Any) -> onnx.ModelProto:
    return model([h.make_node(operator, ["x"], ["y"])], [before], [after], [])


def _gather(rows: int) -> onnx.ModelProto:
    table = constant("E", np.ones((rows, 3)))
    return model(
        [h.make_node("Gather", ["E", "i"], ["y"])], [tensor("i", T.INT64, ["n"])], [Y], [table]
    )


FINE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "fixed batch of 1": (
        lambda: model([product()], [tensor("x", T.FLOAT, [1, 4])], [tensor("y", T.FLOAT, [1, 3])]),
        "takes 1 item",
    ),
    "fixed batch of 8": (
        lambda: model([product()], [tensor("x", T.FLOAT, [8, 4])], [tensor("y", T.FLOAT, [8, 3])]),
        "takes 8 item",
    ),
    "fixed, but not first": (lambda: lstm(7, 2), "no size that it declares is a free batch"),
    "fixed batch, free length": (
        lambda: _unary(
            "Relu", tensor("x", T.FLOAT, [1, "length", 4]), tensor("y", T.FLOAT, [1, "length", 4])
        ),
        "no other batch\nnote: of its free sizes, these were tried: x (1, 16, 4)",
    ),
    "scalar input": (
        lambda: model(
            [product(y="p"), h.make_node("Mul", ["p", "s"], ["y"])], [X, tensor("s", T.FLOAT, [])]
        ),
        "batch 5: finite outputs y (5, 3)",
    ),
    "only a scalar": (
        lambda: _unary("Relu", tensor("x", T.FLOAT, []), tensor("y", T.FLOAT, [])),
        "no size that it declares is a free batch",
    ),
    "batch second, called n": (lambda: lstm("time", "n"), "batch 5: finite outputs y (1, 5, 5)"),
    "batch second, by the output": (
        lambda: lstm("steps", "series"),
        "batch 5: finite outputs y (1, 5, 5)",
    ),
    "state with the batch second": (
        lambda: model(
            [
                h.make_node("Gather", ["h", "zero"], ["last"], axis=0),
                h.make_node("Add", ["x", "last"], ["y"]),
            ],
            [tensor("x", T.FLOAT, ["batch", 4]), tensor("h", T.FLOAT, [2, "batch", 4])],
            [tensor("y", T.FLOAT, ["batch", 4])],
            [constant("zero", 0, np.int64)],
        ),
        "batch 5: finite outputs y (5, 4)",
    ),
    "one name in several places": (
        lambda: model(
            [h.make_node("MatMul", ["a", "b"], ["y"])],
            [
                tensor("a", T.FLOAT, ["batch", "rows", "k"]),
                tensor("b", T.FLOAT, ["batch", "k", "rows"]),
            ],
            [tensor("y", T.FLOAT, ["batch", "rows", "rows"])],
            [],
        ),
        "batch 5: finite outputs y (5, 16, 16)",
    ),
    "a size that one input has twice": (
        lambda: model(
            [h.make_node("MatMul", ["a", "x"], ["y"])],
            [tensor("a", T.FLOAT, ["n", "n"]), X],
            [tensor("y", T.FLOAT, ["n", 4])],
            [],
        ),
        "a free batch\nnote: of its free sizes, these were tried: a (16, 16), x (16, 4)",
    ),
    "a size that follows from another": (
        lambda: model(
            [
                h.make_node("Concat", ["past", "new"], ["all"], axis=1),
                h.make_node("Add", ["all", "mask"], ["y"]),
            ],
            [
                tensor("past", T.FLOAT, ["batch", "past_length", 4]),
                tensor("new", T.FLOAT, ["batch", 1, 4]),
                tensor("mask", T.FLOAT, ["batch", "past_length + 1", 4]),
            ],
            [tensor("y", T.FLOAT, ["batch", "past_length + 1", 4])],
            [],
        ),
        "batch 5: finite outputs y (5, 17, 4)",
    ),
    "batches without a name": (
        lambda: model(
            [h.make_node("Add", ["a", "b"], ["y"])],
            [tensor("a", T.FLOAT, [None, 4]), tensor("b", T.FLOAT, [None, 4])],
            [tensor("y", T.FLOAT, [None, 4])],
            [],
        ),
        "batch 5: finite outputs y (5, 4)",
    ),
    "batches of different names": (
        lambda: model(
            [h.make_node("Add", ["a", "b"], ["y"])],
            [tensor("a", T.FLOAT, ["unk__1", 4]), tensor("b", T.FLOAT, ["unk__2", 4])],
            [tensor("y", T.FLOAT, ["unk__3", 4])],
            [],
        ),
        "batch 5: finite outputs y (5, 4)",
    ),
    "labels and a sequence": (
        lambda: model(
            [
                product(),
                h.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
                h.make_node("SequenceConstruct", ["y"], ["s"]),
            ],
            outputs=[
                tensor("label", T.INT64, ["n"]),
                h.make_tensor_sequence_value_info("s", T.FLOAT, None),
            ],
        ),
        "s[0] (5, 3)",
    ),
    "labels and maps": (zipmap, "label (5), z (5, 3)"),
    "optional input": (
        lambda: model(
            [h.make_node("OptionalGetElement", ["x"], ["g"]), product("g")],
            [h.make_value_info("x", optional(T.FLOAT))],
        ),
        "batch 5: finite outputs y (5, 3)",
    ),
    "optional output": (
        lambda: model(
            [h.make_node("Optional", ["x"], ["y"])],
            outputs=[h.make_value_info("y", optional(T.FLOAT))],
        ),
        "batch 5: finite outputs y (5, 4)",
    ),
    "bfloat16 input": (
        lambda: model(
            [h.make_node("Cast", ["x"], ["c"], to=T.FLOAT), product("c")],
            [tensor("x", T.BFLOAT16, ["n", 4])],
        ),
        "bfloat16 (n, 4)",
    ),
    "float16 throughout": (
        lambda: _unary("Relu", tensor("x", T.FLOAT16, ["n", 4]), tensor("y", T.FLOAT16, ["n", 4])),
        "float16 (n, 4)",
    ),
    "bool": (
        lambda: _unary("Not", tensor("x", T.BOOL, ["n", 4]), tensor("y", T.BOOL, ["n", 4])),
        "bool (n, 4)",
    ),
    "indices of two rows": (lambda: _gather(2), "batch 5: finite outputs y (5, 3)"),
    "a mask of -inf": (
        lambda: model(
            [product(y="p"), h.make_node("Add", ["p", "m"], ["y"])],
            constants=[W, constant("m", [0, 0, -np.inf])],
        ),
        "-inf at 5 of 15 places, whatever the inputs",
    ),
    "no inputs": (
        lambda: model([h.make_node("Relu", ["W"], ["y"])], [], [tensor("y", T.FLOAT, [4, 3])]),
        "takes no inputs",
    ),
    "no features": (
        lambda: _unary("Relu", tensor("x", T.FLOAT, ["n", 0]), tensor("y", T.FLOAT, ["n", 0])),
        "batch 5: finite outputs y (5, 0)",
    ),
    "no items": (
        lambda: _unary("Relu", tensor("x", T.FLOAT, [0, 4]), tensor("y", T.FLOAT, [0, 4])),
        "y (0, 4)",
    ),
    "weights among the inputs": (
        lambda: model(
            [product()], [X, tensor("W", T.FLOAT, [4, 3])], opsets=[h.make_opsetid("", 8)], ir=3
        ),
        "input   x: float32 (n, 4)\nbatch 1: ",
    ),
    "one value for the batch": (
        lambda: model(
            [product(y="p"), h.make_node("ReduceMean", ["p"], ["y"], keepdims=0)],
            outputs=[tensor("y", T.FLOAT, [])],
        ),
        "output 'y' has no part for each item of a batch",
    ),
    "a size that depends on the values": (
        lambda: model(
            [h.make_node("NonZero", ["x"], ["y"])], outputs=[tensor("y", T.INT64, [2, "k"])]
        ),
        "output 'y' has no part for each item of a batch",
    ),
}
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "text": (
        lambda: _unary(
            "Identity", tensor("x", T.STRING, ["n", 4]), tensor("y", T.STRING, ["n", 4])
        ),
        "input 'x' takes text.*--inputs file.npz",
    ),
    "positive numbers alone": (
        lambda: model([h.make_node("Log", ["x"], ["l"]), product("l")]),
        "'y' contains NaN or infinity: NaN at.*--inputs file.npz",
    ),
    "infinity here and there": (
        lambda: model(
            [h.make_node("Relu", ["x"], ["r"]), h.make_node("Log", ["r"], ["y"])], outputs=[Y]
        ),
        "-inf at .* places, which depend on the inputs.*--inputs file.npz",
    ),
    "NaN among the weights": (
        lambda: model([product()], constants=[constant("W", np.full((4, 3), np.nan))]),
        "'y' contains NaN or infinity: NaN at",
    ),
    "indices of one row": (
        lambda: _gather(1),
        "idx=1 must be within the inclusive range.*--inputs file.npz",
    ),
    "a sequence as input": (
        lambda: model(
            [h.make_node("SequenceAt", ["s", "zero"], ["y"])],
            [h.make_tensor_sequence_value_info("s", T.FLOAT, None)],
            [tensor("y", T.FLOAT, None)],
            [constant("zero", 0, np.int64)],
        ),
        r"input 's' is of type seq\(tensor\(float\)\), and petra feeds arrays",
    ),
    "float8 input": (
        lambda: _unary(
            "Identity", tensor("x", T.FLOAT8E4M3FN, ["n", 4]), tensor("y", T.FLOAT8E4M3FN, ["n", 4])
        ),
        "float8e4m3fn",
    ),
    "bfloat16 output": (
        lambda: model(
            [h.make_node("Cast", ["x"], ["y"], to=T.BFLOAT16)],
            outputs=[tensor("y", T.BFLOAT16, ["n", 4])],
        ),
        "output 'y' is bfloat16.*cast to float32",
    ),
    "weights that were left behind": (
        lost_weights,
        "External data path does not exist.*second file",
    ),
    "no operator sets": (
        lambda: model([product()], opsets=[]),
        "Missing opset.*opset_import is empty",
    ),
    "operators of the future": (
        lambda: model([product()], opsets=[h.make_opsetid("", 99)]),
        "[Oo]pset 99",
    ),
    "operators of somebody's own": (
        lambda: model(
            [h.make_node("Secret", ["x"], ["y"], domain="com.acme")],
            opsets=[h.make_opsetid("", 17), h.make_opsetid("com.acme", 1)],
        ),
        "com.acme.*Secret",
    ),
    "a format of the future": (lambda: model([product()], ir=99), "IR version.*newer"),
    "an enormous input": (
        lambda: _unary(
            "Relu", tensor("x", T.FLOAT, ["n", 100_000, 100_000]), tensor("y", T.FLOAT, None)
        ),
        "GB, and at most 1 GB are made up",
    ),
    "an enormous output": (
        lambda: model(
            [h.make_node("ConstantOfShape", ["big"], ["y"])],
            [X],
            [tensor("y", T.FLOAT, None)],
            [constant("big", [10**13], np.int64)],
        ),
        "Failed to allocate memory",
    ),
    "no outputs": (lambda: model([product()], outputs=[]), "it has no outputs"),
}


def write(path: Path, made: onnx.ModelProto) -> Path:
    """Save as it is: some of these are no valid models."""
    path.write_bytes(made.SerializeToString())
    return path
