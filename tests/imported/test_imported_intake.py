"""An ONNX file as the model: names, checks, what may be done to it; files that agree with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_files import convolutional, run, two_towers
from onnx_tasks import pictures, towers
from torch import nn

import petra
from petra.config import parse_config
from petra.core.errors import ConfigError, DataError, ExportError
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.execute.apply import apply_pipeline
from petra.execute.build import BuildPayload, build_candidate
from petra.execute.built import Built
from petra.intake import examine, received
from petra.measure.client import write_split
from petra.measure.stored import load_arrays
from petra.methods.base import Context
from petra.methods.facts import beyond_file, facts_of
from petra.methods.table import STAGES
from petra.model.imported.build import read_model
from petra.problem import build_space, objections
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.verify import FLOAT_TOLERANCE, INT8_TOLERANCE
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE
from petra.tasks.base import Task

ONNXRUNTIME = Target("onnxruntime")
FILE_STAGES = ["quantize.dynamic", "quantize.half", "quantize.static", "quantize.weights"]


# -- received --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [False, True])
def test_data_are_given_the_names_of_the_file(tmp_path: Path, loader: bool) -> None:
    file = convolutional(tmp_path / "net.onnx")
    given = pictures(loader=loader)
    model, task = received(str(file), given, ONNXRUNTIME)
    examined = examine(model, task)
    assert [spec.name for spec in examined.interface.inputs] == ["image"]
    assert examined.interface.judged == ("scores",)
    assert isinstance(given.example(2), torch.Tensor), "the caller's task stays as it is"
    assert any("not trained" in remark for remark in examined.remarks)
    assert received(model, task, ONNXRUNTIME)[0] is model


def test_several_inputs_are_taken_in_the_order_of_the_file(tmp_path: Path) -> None:
    model, task = received(two_towers(tmp_path / "t.onnx"), towers(), ONNXRUNTIME)
    interface = examine(model, task).interface
    assert [spec.name for spec in interface.inputs] == ["codes", "values"]
    assert [spec.name for spec in interface.outputs] == ["state", "logits"]
    assert interface.judged == ("logits",)


def test_other_names_or_another_number_of_inputs_are_refused(tmp_path: Path) -> None:
    file = two_towers(tmp_path / "t.onnx")
    model, task = received(file, pictures(), ONNXRUNTIME)
    with pytest.raises(DataError, match=r"takes 2 inputs \(codes, values\), the data have 1"):
        examine(model, task)
    x, y = torch.zeros(20, 4), torch.arange(20) % 9
    part = ({"codes": torch.zeros(20, 3, dtype=torch.long), "numbers": x}, y)
    model, task = received(file, petra.classification(part, part, part), ONNXRUNTIME)
    with pytest.raises(DataError, match="takes codes, values; it was given codes, numbers"):
        examine(model, task)


def test_a_stated_number_of_items_is_freed(tmp_path: Path) -> None:
    model, task = received(convolutional(tmp_path / "n.onnx", batch=1), pictures(), ONNXRUNTIME)
    assert any("how many items" in remark for remark in examine(model, task).remarks)


def test_a_number_of_items_inside_the_graph_is_refused(tmp_path: Path) -> None:
    """As exported with ``x.view(1, -1)``."""
    file = convolutional(tmp_path / "n.onnx", batch=1)
    proto = onnx.load(file)
    nodes = [n for n in proto.graph.node if n.op_type not in ("Shape", "Gather", "Unsqueeze")]
    kept = [n for n in nodes if n.op_type != "Concat"]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    baked = onnx.numpy_helper.from_array(np.array([1, -1]), "wanted")
    proto.graph.initializer.append(baked)
    file.write_bytes(proto.SerializeToString())
    model, task = received(file, pictures(), ONNXRUNTIME)
    with pytest.raises(DataError, match="Gemm") as refused:
        examine(model, task)
    assert "free batch size" in refused.value.hint


def test_a_file_that_computes_something_else_is_found_out(tmp_path: Path) -> None:
    """As it would be if an operator meant something else than petra takes it for."""
    model, task = received(convolutional(tmp_path / "net.onnx"), pictures(), ONNXRUNTIME)
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        linear.bias[0] += 0.1
    with pytest.raises(DataError, match="computes something else than in ONNX Runtime"):
        examine(model, task)


def test_targets_that_read_no_onnx_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch\.compile does not read it"):
        received(convolutional(tmp_path / "n.onnx"), pictures(), Target("torch.compile"))


# -- what may be done ------------------------------------------------------------------------------


def test_only_stages_that_do_not_train_are_legal(tmp_path: Path) -> None:
    model = read_model(convolutional(tmp_path / "net.onnx"))
    assert FLOAT_WEIGHTS in facts_of(model)
    assert TRAINABLE not in facts_of(model)
    able = [name for name in STAGES.names() if not beyond_file(name, model)]
    assert sorted(able) == [*FILE_STAGES, "repair.batchnorm"]
    model, task = received(model, pictures(), ONNXRUNTIME)
    config = parse_config({"budget": {"trials": 3}})
    left = objections(config, model, task)
    assert "an ONNX file holds no training" in left["prune.structured"]
    space = build_space(config, task, model, without=left)
    assert {"quantize.static", "quantize.weights"} <= set(space.cards)
    assert not {"tune", "distill", "prune.structured", "lowrank.svd"} & set(space.cards)


@pytest.mark.parametrize(
    "space",
    [{"stages": ["prune.structured"]}, {"initial": [["distill"]]}, {"stages": ["lowrank.svd"]}],
)
def test_a_stage_that_is_asked_for_is_refused_with_the_reason(
    space: dict[str, Any], tmp_path: Path
) -> None:
    model, task = received(convolutional(tmp_path / "net.onnx"), pictures(), ONNXRUNTIME)
    config = parse_config({"budget": {"trials": 3}, "space": space})
    with pytest.raises(ConfigError, match="an ONNX file holds no training") as refused:
        build_space(config, task, model)
    assert "quantize.static" in refused.value.hint


def compressed(
    model: nn.Module, task: Task, kind: str, place: Path, **params: Any
) -> tuple[float, Path]:
    """Of what a stage makes: how far its file is from it, and the file."""
    spec = STAGES.get(kind).card_for(task).normalize(params)
    result, (trace,) = apply_pipeline(
        model,
        Pipeline((spec,)),
        lambda prefix: Context(task=task, teacher=model, seed=0),
        cache=None,
        on_stage=lambda i, s: None,
    )
    assert trace.touched
    example = task.example(40)
    (file,) = OnnxRuntime().export(result, task.example(2), place / f"{kind}.onnx")
    found = run(file, {name: x.numpy() for name, x in example.items()})  # type: ignore[union-attr]
    with torch.no_grad():
        wanted = result(**example)  # type: ignore[arg-type]
    name = "logits" if "logits" in wanted else next(iter(wanted))
    assert list(found) == list(wanted)
    difference = found[name] - wanted[name].numpy()
    return float(np.sqrt(np.mean(difference**2)) / wanted[name].std()), file


def test_an_untouched_model_ships_as_its_file(tmp_path: Path) -> None:
    """And the reference beside it, which the file is held against, is the model that was read."""
    file = convolutional(tmp_path / "net.onnx")
    model, task = received(file, pictures(), ONNXRUNTIME)
    examined = examine(model, task)
    data = tmp_path / "data"
    write_split(task.val, data / "val", examined.interface)
    payload = BuildPayload(examined.model, task, ONNXRUNTIME, 0, data, interface=examined.interface)
    exports = ((ONNXRUNTIME, tmp_path / "out"),)
    (built,) = build_candidate(payload, lambda note: None, Pipeline(), exports)
    assert isinstance(built, Built)
    assert (tmp_path / "out" / built.files[0].name).read_bytes() == file.read_bytes()
    x = task.val.head(60)["image"].numpy()  # type: ignore[call-overload]
    reference = load_arrays(tmp_path / "out" / built.reference.name)["scores"]
    np.testing.assert_allclose(reference, run(file, {"image": x})["scores"], atol=1e-5)
    assert built.params == sum(p.numel() for p in model.parameters())


STAGE_CASES = [
    ("quantize.weights", {"bits": 8}, FLOAT_TOLERANCE),
    ("quantize.weights", {"bits": 4}, FLOAT_TOLERANCE),
    ("quantize.weights", {"bits": 16}, FLOAT_TOLERANCE),
    ("quantize.dynamic", {}, INT8_TOLERANCE),
]


def net(path: Path) -> tuple[nn.Module, Task]:
    file = convolutional(path / "n.onnx", channels=32)
    return received(file, pictures(), ONNXRUNTIME)  # type: ignore[no-any-return]


def test_static_quantization_of_a_file_makes_a_file_that_agrees(tmp_path: Path) -> None:
    model, task = net(tmp_path)
    apart, file = compressed(model, task, "quantize.static", tmp_path, samples=128)
    assert apart < INT8_TOLERANCE
    proto = onnx.load(file)
    assert [v.name for v in proto.graph.input] == ["image"]
    assert [v.name for v in proto.graph.output] == ["scores"]
    counted = OnnxRuntime().operators(file)
    assert counted.integer == counted.compute == 3
    assert file.stat().st_size < 0.45 * (tmp_path / "n.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "params", "tolerance"), STAGE_CASES)
def test_what_stages_make_of_a_file_agrees_with_it(
    kind: str, params: dict[str, Any], tolerance: float, tmp_path: Path
) -> None:
    model, task = net(tmp_path)
    apart, file = compressed(model, task, kind, tmp_path, **params)
    assert apart < tolerance
    assert file.stat().st_size < (tmp_path / "n.onnx").stat().st_size
