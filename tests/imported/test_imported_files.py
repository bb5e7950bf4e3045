"""What is read of an ONNX file, and what is refused, by name and with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import convolutional, run, two_towers, write
from torch import nn

from petra.model.imported.build import read_model
from petra.model.imported.tensors import OnnxRefused
from petra.runtimes.onnx_given import ship

node = helper.make_node
W = np.eye(4, dtype=np.float32)


def simple(path: Path, *nodes: onnx.NodeProto, **options: Any) -> Path:
    """From x (n, 4) to y, by nodes that may read w (4, 4)."""
    options = {"opset": 17, **options}
    weights = options.pop("weights", {"w": W})
    return write(path, nodes, weights, {"x": ["n", 4]}, {"y": ["n", 4]}, **options)


def test_weights_are_in_layers_and_outputs_are_the_files(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "net.onnx")
    model = read_model(file)
    kinds = [type(layer) for layer in model.children()]
    assert kinds.count(nn.Conv2d) == 1
    assert kinds.count(nn.Linear) == 1
    assert "body_0" in dict(model.named_children())
    assert not model.training
    x = np.random.default_rng(2).normal(size=(5, 1, 8, 8)).astype(np.float32)
    found = model(torch.from_numpy(x))
    np.testing.assert_allclose(
        found["scores"].detach().numpy(), run(file, {"image": x})["scores"], atol=1e-5
    )


def test_a_shared_table_stays_shared_and_a_bias_is_part_of_its_layer(tmp_path: Path) -> None:
    file = two_towers(tmp_path / "towers.onnx")
    model = read_model(file)
    assert sum(p.numel() for p in model.parameters()) == 9 * 16 + 4 * 16 + 16
    assert [type(m) for m in model.children()] == [nn.Embedding, nn.Linear, nn.Linear]
    random = np.random.default_rng(0)
    inputs = {
        "codes": random.integers(0, 9, (6, 3)),
        "values": random.normal(size=(6, 4)).astype(np.float32),
    }
    found = model(**{name: torch.from_numpy(x) for name, x in inputs.items()})
    for name, wanted in run(file, inputs).items():
        np.testing.assert_allclose(found[name].detach().numpy(), wanted, atol=1e-6)


def test_a_file_ships_byte_by_byte_unless_its_names_or_items_forbid(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "net.onnx")
    (copy,) = ship(read_model(file), tmp_path / "out" / "model.onnx")
    assert copy.read_bytes() == file.read_bytes()

    odd = convolutional(tmp_path / "odd.onnx", batch=1, name="image.1", last="/head/Gemm_output")
    model = read_model(odd)
    (changed,) = ship(model, tmp_path / "out" / "odd.onnx")
    x = np.random.default_rng(2).normal(size=(3, 1, 8, 8)).astype(np.float32)
    found = run(changed, {"image_1": x})["head_Gemm_output"]
    one = run(odd, {"image.1": x[:1]})["/head/Gemm_output"]
    np.testing.assert_allclose(found[:1], one, atol=1e-5)
    own = model(image_1=torch.from_numpy(x))["head_Gemm_output"].detach().numpy()
    np.testing.assert_allclose(own, found, atol=1e-5)


def test_a_file_that_changed_since_is_not_shipped(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "net.onnx")
    model = read_model(file)
    convolutional(file, channels=4)
    with pytest.raises(OnnxRefused, match="has changed since"):
        ship(model, tmp_path / "model.onnx")


def external(tmp_path: Path, location: str = "net.bin") -> Path:
    """The convolutional file with its weights in another one."""
    whole = onnx.load(convolutional(tmp_path / "whole.onnx"))
    file = tmp_path / "sub" / "net.onnx"
    file.parent.mkdir()
    onnx.save_model(whole, file, save_as_external_data=True, location="net.bin", size_threshold=64)
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(model.SerializeToString())
    return file


def test_weights_beside_the_file_are_read_and_shipped(tmp_path: Path) -> None:
    file = external(tmp_path)
    model = read_model(file)
    assert [Path(p).name for p in model.source.beside] == ["net.bin"]
    (shipped,) = ship(model, tmp_path / "out" / "model.onnx")
    x = np.random.default_rng(2).normal(size=(3, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(
        run(shipped, {"image": x})["scores"], run(file, {"image": x})["scores"]
    )


@pytest.mark.parametrize("location", ["../net.bin", "/etc/hostname", "", "a/../../net.bin"])
def test_weights_outside_of_the_directory_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "net.bin").write_bytes(bytes(10**6))
    with pytest.raises(OnnxRefused, match="outside of its directory"):
        read_model(external(tmp_path, location))


def test_a_link_to_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    file = external(tmp_path)
    data = file.parent / "net.bin"
    data.rename(tmp_path / "elsewhere.bin")
    data.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(OnnxRefused, match="outside of its directory"):
        read_model(file)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    file = external(tmp_path)
    data = file.parent / "net.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(OnnxRefused, match=r"is not in net\.bin"):
        read_model(file)


def loop() -> onnx.NodeProto:
    body = helper.make_graph([node("Identity", ["a"], ["b"])], "body", [], [])
    return node("If", ["x"], ["y"], then_branch=body, else_branch=body)


Make = Callable[[Path], Path]
REFUSED: dict[str, tuple[Make, str]] = {
    "nothing": (lambda p: p, "no such file"),
    "no onnx": (lambda p: (p.write_bytes(b"PK\3\4" * 99), p)[1], "no ONNX file|no operators"),
    "cut off": (
        lambda p: (p.write_bytes(convolutional(p).read_bytes()[:-900]), p)[1],
        "no ONNX file",
    ),
    "old": (lambda p: simple(p, node("Relu", ["x"], ["y"]), opset=6), "opset 6"),
    "of the future": (lambda p: simple(p, node("Relu", ["x"], ["y"]), opset=99), "opset 99"),
    "quantized": (
        lambda p: simple(p, node("QuantizeLinear", ["x", "w"], ["y"])),
        r"quantized already \(QuantizeLinear\)",
    ),
    "4 bits": (
        lambda p: simple(p, node("MatMulNBits", ["x", "w"], ["y"], domain="com.microsoft")),
        r"quantized already \(MatMulNBits\)",
    ),
    "custom": (
        lambda p: simple(p, node("Bend", ["x"], ["y"], domain="ai.example")),
        r"ai\.example\.Bend.*no operator of ONNX's own",
    ),
    "branches": (lambda p: simple(p, loop()), "is If: a graph inside the graph"),
    "unknown": (
        lambda p: simple(p, node("NonMaxSuppression", ["x"], ["y"])),
        "NonMaxSuppression.*does not read this operator",
    ),
    "cycle": (
        lambda p: simple(p, node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])),
        "which nothing before it makes",
    ),
    "twice": (
        lambda p: simple(p, node("Relu", ["x"], ["y"]), node("Tanh", ["x"], ["y"])),
        "is made twice",
    ),
    "no output": (lambda p: simple(p, node("Relu", ["x"], ["z"])), "nothing makes output 'y'"),
    "half": (
        lambda p: simple(p, node("MatMul", ["x", "w"], ["y"]), weights={"w": W.astype("f2")}),
        "tensor 'w' is float16",
    ),
    "half inside": (
        lambda p: simple(p, node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)),
        "float16|float32",
    ),
    "text": (
        lambda p: simple(p, node("Relu", ["x"], ["y"]), types={"x": TensorProto.STRING}),
        "input 'x' is",
    ),
    "computed weights": (
        lambda p: simple(p, node("Conv", ["x", "x"], ["y"])),
        "whose weights are computed",
    ),
    "huge shape": (lambda p: huge(p), r"does not hold its values"),
    "huge constant": (
        lambda p: simple(
            p,
            node("ConstantOfShape", ["big"], ["a"]),
            node("Add", ["x", "a"], ["y"]),
            weights={"big": np.array([2**20, 2**20])},
        ),
        "more than",
    ),
    "reset before": (
        lambda p: simple(
            p,
            node("GRU", ["x", "w", "r"], ["y"], hidden_size=4),
            weights={"w": np.zeros((1, 12, 4), "f4"), "r": np.zeros((1, 12, 4), "f4")},
        ),
        "linear_before_reset=0",
    ),
}


def huge(path: Path) -> Path:
    """A tensor that says to be of 2^60 numbers and holds 16."""
    model = onnx.load(simple(path, node("MatMul", ["x", "w"], ["y"])))
    model.graph.initializer[0].dims[:] = [2**30, 2**30]
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_is_refused_by_name(what: str, tmp_path: Path) -> None:
    make, said = REFUSED[what]
    with pytest.raises(OnnxRefused, match=said) as refused:
        read_model(make(tmp_path / "model.onnx"))
    assert "model.onnx" in refused.value.message
    assert refused.value.hint or re.search("twice|output", said)


def test_names_cannot_reach_out_of_a_directory(tmp_path: Path) -> None:
    """Inputs give names to files that petra writes."""
    nodes = [node("Relu", ["../../x"], ["y"])]
    model = read_model(write(tmp_path / "m.onnx", nodes, {}, {"../../x": ["n"]}, {"y": ["n"]}))
    assert [port.public for port in model.inputs] == ["x"]


def test_values_are_freed_once_nobody_reads_them(tmp_path: Path) -> None:
    model = read_model(convolutional(tmp_path / "net.onnx"))
    done = [name for step in model.steps for name in step.done]
    assert sorted(done) == sorted(set(done))
    assert {"image", "a", "b"} <= set(done)
    assert "scores" not in done


def test_constants_are_computed_once(tmp_path: Path) -> None:
    """A weight that a file turns round before each use is a weight."""
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])]
    w = np.arange(16, dtype=np.float32).reshape(4, 4)
    model = read_model(simple(tmp_path / "m.onnx", *nodes, weights={"w": w}))
    (layer,) = model.children()
    assert isinstance(layer, nn.Linear)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), w)
