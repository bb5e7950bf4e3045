"""Every operator that is read, against the examples that define it: ONNX's own test cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from petra.core.errors import DataError
from petra.model.imported.build import read_model
from petra.model.imported.file import OPSETS
from petra.model.imported.layers import LAYERS
from petra.model.imported.operators import OPERATORS

pytestmark = pytest.mark.slow  # making the examples takes half a minute

NO_EXAMPLES = {"GRU", "Cast", "CastLike", "Einsum"}
"""The standard's are of a kind or a type that is refused."""


@cache
def cases() -> dict[str, list[Any]]:
    """ONNX's test cases of one operator each, by operator."""
    from onnx.backend.test.case.node import collect_testcases

    found = defaultdict(list)
    for case in collect_testcases(None):
        graph = case.model.graph
        if len(graph.node) == 1 and graph.node[0].domain in ("", "ai.onnx"):
            found[graph.node[0].op_type].append(case)
    return found


def variants(case: Any) -> Iterator[tuple[onnx.ModelProto, list[np.ndarray]]]:
    """The case as it is, and with all inputs but the first as constants, as files have them; with
    the first output alone, and of an opset that is read where the operator is of a newer one.
    """
    inputs = list(case.data_sets[0][0])
    asked = onnx.ModelProto()
    asked.CopyFrom(case.model)
    for imported in asked.opset_import:
        imported.version = min(max(imported.version, OPSETS[0]), OPSETS[-1])
    if case.model.graph.node[0].op_type == "LayerNormalization":
        del asked.graph.output[1:]
    yield asked, inputs
    names = [value.name for value in asked.graph.input]
    if len(inputs) == len(names) and all(isinstance(x, np.ndarray) for x in inputs):
        model = onnx.ModelProto()
        model.CopyFrom(asked)
        constants = [
            numpy_helper.from_array(np.asarray(x), name)
            for name, x in zip(names[1:], inputs[1:], strict=True)
        ]
        model.graph.initializer.extend(constants)
        del model.graph.input[1:]
        yield model, inputs[:1]


def outcome(model: onnx.ModelProto, inputs: list[np.ndarray], case: Any, path: Path) -> str:
    """ "equal", "refused", or how it differs."""
    if any(np.asarray(x).dtype == object for x in inputs):
        return "refused"
    path.write_bytes(model.SerializeToString())
    try:
        read = read_model(path)
        tensors = [torch.from_numpy(np.array(x)) for x in inputs]
        given = dict(zip((port.public for port in read.inputs), tensors, strict=True))
        with torch.no_grad():
            found = read(**given)
    except DataError:
        return "refused"
    for own, wanted in zip(found.values(), case.data_sets[0][1], strict=False):
        if tuple(own.shape) != np.shape(wanted):
            return f"{case.name}: shape {tuple(own.shape)}, not {np.shape(wanted)}"
        exact = np.asarray(wanted).dtype.kind in "biu"
        tolerance = (
            {"rtol": 0, "atol": 0} if exact else {"rtol": max(case.rtol, 1e-3), "atol": 1e-5}
        )
        if not np.allclose(own.numpy(), wanted, equal_nan=True, **tolerance):
            return f"{case.name}: {own.numpy().reshape(-1)[:4]}, not {np.reshape(wanted, -1)[:4]}"
    return "equal"


def check(op: str, tmp_path: Path) -> None:
    found = [
        outcome(model, inputs, case, tmp_path / "case.onnx")
        for case in cases()[op]
        for model, inputs in variants(case)
    ]
    wrong = [said for said in found if said not in ("equal", "refused")]
    assert not wrong
    assert "equal" in found, found


@pytest.mark.parametrize("op", sorted({*OPERATORS, *LAYERS} - NO_EXAMPLES))
def test_an_operator_does_what_its_definition_says(op: str, tmp_path: Path) -> None:
    check(op, tmp_path)


@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "shufflenet", "inception_v1"])
def test_well_known_networks_compute_what_the_file_does(name: str, tmp_path: Path) -> None:
    """Written by the first exporters, opset 9 and older, with the batch stated."""
    from onnx_files import run

    place = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(place / f"light_{name}.onnx")
    random = np.random.default_rng(0)
    for node in model.graph.node:  # their weights are all the same: let them differ
        for attribute in node.attribute:
            if node.op_type == "ConstantOfShape" and attribute.name == "value":
                attribute.t.CopyFrom(numpy_helper.from_array(np.float32([random.normal() / 50])))
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    read = read_model(path)
    (port,) = read.inputs
    x = random.normal(size=[size or 1 for size in port.shape]).astype(np.float32)
    with torch.no_grad():
        (own,) = read(torch.from_numpy(x)).values()
    (wanted,) = run(path, {port.name: x}).values()
    np.testing.assert_allclose(own.numpy(), wanted, rtol=1e-3, atol=1e-5)
