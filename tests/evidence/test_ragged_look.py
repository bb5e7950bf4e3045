"""Items of different length: what is looked at, and a sample that is padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from petra.core.ragged import Padding, Ragged
from petra.core.target import Target
from petra.measure.evidence import Looked, Replay, look_at, replay
from petra.measure.stored import write_ragged

ITEMS = 20


def write_masked_sum(path: Path) -> None:
    """x (batch, length, 3) and mask (batch, length) to the sum over what is no padding."""
    nodes = [
        helper.make_node("Unsqueeze", ["mask", "two"], ["column"]),
        helper.make_node("Mul", ["x", "column"], ["inside"]),
        helper.make_node("ReduceSum", ["inside", "one"], ["output"], keepdims=0),
    ]
    axes = [helper.make_tensor(n, TensorProto.INT64, [1], [i]) for n, i in (("one", 1), ("two", 2))]
    sizes = {"x": ["batch", "length", 3], "mask": ["batch", "length"], "output": ["batch", 3]}
    x, mask, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in sizes.items()
    )
    graph = helper.make_graph(nodes, "sum", [x, mask], [output], axes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))


def test_a_sample_of_ragged_items_is_padded_and_replays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, ITEMS).astype(np.int64)
    values = random.normal(size=(int(lengths.sum()), 3)).astype(np.float32)
    padding = Padding(mask="mask", mask_type="float32")
    write_ragged(Ragged({"x": values}, lengths, padding), tmp_path / "data" / "val")
    np.save(tmp_path / "data" / "val.targets.npy", np.zeros(ITEMS, np.int64))
    file, inputs, outputs = (str(tmp_path / n) for n in ("m.onnx", "in.npz", "out.npz"))
    write_masked_sum(Path(file))
    found = look_at(Looked(Target(), file, str(tmp_path / "data"), 16, inputs, outputs))
    assert found["sample"] == {"items": 16}
    assert set(found["observed"]["inputs"]) == {"x"}, "a mask tells nothing of the data"
    assert found["data"]["val"]["items"] == ITEMS
    ends = np.cumsum(lengths)
    sums = [values[end - n : end].sum(0) for n, end in zip(lengths, ends, strict=True)]
    np.testing.assert_allclose(np.load(outputs)["output"], sums[:16], atol=1e-5)
    replayed = replay(Replay(Target(), file, inputs, outputs, {}))
    assert replayed["outputs"]["output"]["max_abs_error"] == 0
