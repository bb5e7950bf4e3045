"""Small ONNX files as other people's tools write them: what is judged, beside what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from foreign_parts import (
    W,
    X,
    bomb,
    constant,
    endless,
    gather,
    lstm,
    model,
    optional,
    product,
    tensor,
    unary,
    write,
    zipmap,
)
from foreign_refused import REFUSED
from onnx import TensorProto as T
from onnx import helper as h

__all__ = ["FINE", "REFUSED", "bomb", "endless", "model", "product", "write"]

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
        lambda: unary(
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
        lambda: unary("Relu", tensor("x", T.FLOAT, []), tensor("y", T.FLOAT, [])),
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
        lambda: unary("Relu", tensor("x", T.FLOAT16, ["n", 4]), tensor("y", T.FLOAT16, ["n", 4])),
        "float16 (n, 4)",
    ),
    "bool": (
        lambda: unary("Not", tensor("x", T.BOOL, ["n", 4]), tensor("y", T.BOOL, ["n", 4])),
        "bool (n, 4)",
    ),
    "indices of two rows": (lambda: gather(2), "batch 5: finite outputs y (5, 3)"),
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
        lambda: unary("Relu", tensor("x", T.FLOAT, ["n", 0]), tensor("y", T.FLOAT, ["n", 0])),
        "batch 5: finite outputs y (5, 0)",
    ),
    "no items": (
        lambda: unary("Relu", tensor("x", T.FLOAT, [0, 4]), tensor("y", T.FLOAT, [0, 4])),
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
