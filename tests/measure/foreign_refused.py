"""ONNX files that are refused, each with what the refusal says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from foreign_parts import X, Y, constant, gather, lost_weights, model, product, tensor, unary
from onnx import TensorProto as T
from onnx import helper as h

REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "text": (
        lambda: unary("Identity", tensor("x", T.STRING, ["n", 4]), tensor("y", T.STRING, ["n", 4])),
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
        lambda: gather(1),
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
        lambda: unary(
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
        lambda: unary(
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
