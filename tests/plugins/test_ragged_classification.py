"""The plugin for items of different length, from training to the measured file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from ragged_classification import EventNet, event_task
from torch import Tensor, nn

import petra
from petra.core.errors import ExportError
from petra.core.interface import BATCH, LENGTH, TENSOR, Axis, Interface, TensorSpec
from petra.core.target import Target
from petra.core.trial import TrialStatus
from petra.execute.reference import save_reference
from petra.intake import examine
from petra.measure import protocol
from petra.measure.bench_main import Request, measure, predict
from petra.measure.client import write_split
from petra.measure.stored import load_arrays, load_split
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.report.record import StudyRecord
from petra.runtimes.table import RUNTIMES, runtime_for
from petra.tasks.base import Task
from petra.tasks.inputs import call
from petra.testing.measures_suites import TaskSuite
from petra.training.loop import TrainConfig, fit


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task, Interface]:
    task = event_task()
    torch.manual_seed(0)
    model = EventNet()
    fit(model, task, TrainConfig(epochs=5, lr=0.02, optimizer="adamw", batch_size=32), seed=0)
    examined = examine(model, task)
    return examined.model, examined.task, examined.interface


@pytest.fixture(scope="module")
def exported(
    trained: tuple[nn.Module, Task, Interface], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The file of the untouched model, and the validation split as it is written."""
    model, task, interface = trained
    place = tmp_path_factory.mktemp("exported")
    runtime = RUNTIMES.get("onnxruntime")()
    (path,) = runtime.export(model, task.example(2), place / "model.onnx", interface)
    write_split(task.val, place / "val", interface)
    return path, place / "val"


class TestEventClassification(TaskSuite):
    @pytest.fixture
    def problem(self, trained: tuple[nn.Module, Task, Interface]) -> tuple[nn.Module, Task]:
        model, task, _ = trained
        return model, task


def test_the_network_learns_the_classes(trained: tuple[nn.Module, Task, Interface]) -> None:
    model, task, _ = trained
    predictions, targets = zip(
        *((call(model, x), y) for x, y in task.test.batches(64)), strict=True
    )
    found = task.score(torch.cat(predictions), torch.cat(targets))
    assert found.mean > 0.8


def test_the_interface_names_its_axes(trained: tuple[nn.Module, Task, Interface]) -> None:
    _, task, interface = trained
    lengths = task.val.source.ragged.lengths
    assert {spec.name: spec.names for spec in interface.inputs} == {
        "kinds": ("batch", "length"),
        "amounts": ("batch", "length", ""),
        "facts": ("batch", ""),
        "mask": ("batch", "length"),
    }
    assert [spec.shape for spec in interface.outputs] == [(None, 3)]
    assert interface.lengths == tuple(np.percentile(lengths, [50, 95], method="higher"))
    assert interface.input("kinds").axes[1].most == max(
        int(split.source.ragged.lengths.max()) for _, split in task.splits()
    )


@pytest.mark.parametrize("kind", ["", "quantize.static"])
def test_the_file_computes_what_pytorch_does_at_any_length(
    trained: tuple[nn.Module, Task, Interface],
    exported: tuple[Path, Path],
    kind: str,
    tmp_path: Path,
) -> None:
    model, task, interface = trained
    path, data = exported
    runtime = RUNTIMES.get("onnxruntime")()
    if kind:
        stage = STAGES.get(kind)(samples=128)
        context = Context(task, model, seed=0, interface=interface)
        model, _ = stage.apply(copy.deepcopy(model), context)
        (path,) = runtime.export(model, task.example(2), tmp_path / "model.onnx", interface)
    save_reference(model, data, task.example(2), tmp_path / "reference.npz", items=1000)
    split = load_split(data)
    session = runtime.load(path)
    predicted = predict(session, split)
    reference = load_arrays(tmp_path / "reference.npz")
    spread = reference["output"].std()
    np.testing.assert_allclose(predicted["output"], reference["output"], atol=0.02 * spread)
    # Items alone, unpadded, at many lengths: the same, whatever they were padded to before.
    lengths = task.val.source.ragged.lengths
    for item in np.argsort(lengths)[:: len(lengths) // 20]:
        inputs = split.items.batch(np.array([item]))
        assert inputs["mask"].shape == (1, lengths[item])
        alone = session.run(inputs)["output"][0]
        np.testing.assert_allclose(alone, predicted["output"][item], atol=0.02 * spread)


def test_speed_is_measured_at_the_stated_lengths(
    trained: tuple[nn.Module, Task, Interface],
    exported: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, interface = trained
    path, data = exported
    split = load_split(data)
    for length in interface.lengths:
        inputs = split.items.at_length(length, 5)
        assert inputs["kinds"].shape == (5, length)
        assert inputs["mask"].all()
    monkeypatch.setattr(protocol, "SEARCH", protocol.Protocol(min_rounds=2, max_rounds=2))
    request = Request(petra.Target(), str(path), str(data), baseline=str(path))
    found = measure(request)
    assert found["latency_ms"]["mean"] > 0
    assert found["latency_long_ms"]["mean"] > 0


def test_a_length_that_tracing_fixes_is_named(tmp_path: Path) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(x.shape[0], 4)
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    axes = (Axis(BATCH), Axis(LENGTH, 2, 9, (5, 9)), Axis.fixed(3))
    interface = Interface((TensorSpec("input", "float32", axes, 0),), structure=TENSOR)
    runtime = runtime_for(Target("onnxruntime"))
    with pytest.raises(ExportError, match="a free length: it fixes the size") as raised:
        runtime.export(Loop().eval(), torch.randn(2, 5, 3), tmp_path / "m.onnx", interface)
    assert "nn.LSTM, nn.GRU and nn.RNN stay whole" in raised.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_study(trained: tuple[nn.Module, Task, Interface], runtime: str, tmp_path: Path) -> None:
    model, task, interface = trained
    pipelines = [
        [{"stage": "quantize.static"}],
        [{"stage": "quantize.dynamic"}],
        [
            {"stage": "prune.structured", "params": {"ratio": 0.3}},
            {"stage": "distill", "params": {"epochs": 2}},
            {"stage": "quantize.static", "params": {"correct_bias": True}},
        ],
        [{"stage": "lowrank.svd"}, {"stage": "tune", "params": {"epochs": 1}}],
        [{"stage": "quantize.qat", "params": {"epochs": 1}}],
    ]
    study = petra.compress(
        model,
        task,
        target=runtime,
        budget={"trials": len(pipelines)},
        space={"initial": pipelines},
        workdir=tmp_path / "study",
    )
    trials = study.trials
    assert [t.failure for t in trials if t.status is TrialStatus.FAILED] == []
    assert "latency_long_ratio" in trials[0].metrics
    assert all("latency_long_ratio" in trial.test for trial in study.front.members)
    assert StudyRecord.load(tmp_path / "study").interface == interface
    file = study.front.pick("best").export(tmp_path / "export/")
    card = (file.parent / "MODEL_CARD.md").read_text()
    assert f"of items of length {interface.lengths[0]}, the median of the data" in card
