"""Quantization-aware training: what is trained is what ships, and it is worth the training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sequences import text_problem
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.ptq import converted, simplify, trace
from petra.methods.quantize.qat import QuantizationAwareTrain, SimulatedQuantization
from petra.methods.quantize.static import StaticQuantize
from petra.model.aten.graph import constant
from petra.runtimes.onnx_export import export_onnx
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.loop import TrainConfig, fit, predict


def digits_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(data.target)
    task = classification((x[:1000], y[:1000]), (x[1000:1400], y[1000:1400]), (x[1400:], y[1400:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = digits_model()
    fit(model, task, TrainConfig(epochs=6, lr=0.2, batch_size=50), seed=0)
    return model, task


def copy_of(model: nn.Module) -> nn.Module:
    twin = digits_model()
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def accuracy(model: nn.Module, task: Task) -> float:
    outputs, targets = predict(model, task.val)
    return float((outputs.argmax(1) == targets).float().mean())


def test_training_regains_what_few_codes_lose(
    trained: tuple[nn.Module, Task], tmp_path: Path
) -> None:
    """Weights of 4 bits: static quantization loses ten points, training brings them back, in the
    file too.
    """
    model, task = trained
    context = Context(task=task, teacher=model, seed=1)
    static, _ = StaticQuantize(observer="minmax", weight_max=7).apply(copy_of(model), context)
    stage = QuantizationAwareTrain(weight_max=7, epochs=2, lr=0.02, batch_size=50)
    aware, trace_ = stage.apply(copy_of(model), context)
    before, ptq, qat = accuracy(model, task), accuracy(static, task), accuracy(aware, task)
    assert before > 0.88
    assert ptq < before - 0.05
    assert qat > before - 0.02
    assert trace_.touched == ("0", "4", "7", "12")
    assert trace_.details["share_of_layers"] == 1.0

    x = task.example(64)
    assert isinstance(x, Tensor)
    session = onnxruntime.InferenceSession(str(export_onnx(aware, x, tmp_path / "m.onnx")))
    (outputs,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        expected = aware(x).numpy()
    assert np.abs(outputs - expected).max() < 0.02 * float(np.ptp(expected))


def prepared(
    model: nn.Module, weight_max: int = 7
) -> tuple[SimulatedQuantization, DeploymentQuantizer]:
    traced = trace(model, torch.rand(2, 1, 8, 8))
    simplify(traced)
    quantizer = DeploymentQuantizer(weight_max=weight_max, training=True)
    return SimulatedQuantization(prepare_qat_pt2e(traced, quantizer)), quantizer


def test_what_is_trained_is_what_is_converted(trained: tuple[nn.Module, Task]) -> None:
    """The simulated network and the converted one round to the same codes, at any number of
    codes.
    """
    model, task = trained
    x = task.example(64)
    student, quantizer = prepared(copy_of(model))
    student.train()
    student(x)
    student.eval()
    with torch.no_grad():
        expected = student(x)
        result = converted(student.graph, quantizer, samples=64, total_macs=1, notes={})
        got = result.model(x)
    assert isinstance(expected, Tensor)
    # Biases are rounded as well.
    assert float((got - expected).square().mean().sqrt()) < 0.01 * float(expected.std())


def test_evaluation_teaches_ranges_nothing(trained: tuple[nn.Module, Task]) -> None:
    model, task = trained
    student, _ = prepared(copy_of(model))
    x = task.example(8)
    student.train()
    student(x)
    kept = {k: v.clone() for k, v in student.state_dict().items()}
    student.eval()
    student(10 * x)
    names = [k for k in kept if "observer_enabled" not in k]
    assert all(torch.equal(student.state_dict()[k], kept[k]) for k in names)
    student.train()
    student(10 * x)
    assert not all(torch.equal(student.state_dict()[k], kept[k]) for k in names)


def test_the_simulation_moves_to_another_device() -> None:
    """`meta` is a device every machine has: what stayed behind on the CPU would fail to mix with
    it.
    """

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.plain = nn.Linear(4, 3), torch.full((3,), 2.0)
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            made = torch.zeros(x.shape[0], 3, device=x.device) + torch.arange(3, device=x.device)
            lifted = torch.tensor([1.0, 2.0, 3.0]).to(torch.device("cpu"), torch.float32)
            return self.linear(x) * self.plain.to(x.device) * lifted + self.shift + made

    x = torch.rand(6, 4)
    student = SimulatedQuantization(
        prepare_qat_pt2e(trace(Model().eval(), x), DeploymentQuantizer(training=True))
    )
    there = copy.deepcopy(student).move("meta")
    assert {t.device.type for t in (*there.parameters(), *there.buffers())} == {"meta"}
    for name, module in there.graph.named_children():
        if isinstance(module, FakeQuantize):  # reads a value, which nothing on meta has
            setattr(there.graph, name, nn.Identity())
    output = there.graph(torch.empty(5, 4, device="meta"))
    assert (output.device.type, output.shape) == ("meta", (5, 3))


def test_gradients_pass_through_the_rounding() -> None:
    student, _ = prepared(digits_model().eval())
    student.train()
    output = student(torch.rand(16, 1, 8, 8))
    assert isinstance(output, Tensor)
    functional.cross_entropy(output, torch.arange(16) % 10).backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.requires_grad}
    assert len(gradients) == 8  # four layers with the biases their batch norms became
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients.values())


def test_the_teacher_counts_by_alpha(trained: tuple[nn.Module, Task]) -> None:
    """A teacher that takes every digit for the next one draws the student to it where `alpha` says
    so.
    """
    model, task = trained
    teacher = copy_of(model)
    head = teacher.get_submodule("12")
    with torch.no_grad():
        for value in head.parameters():
            value.copy_(value.roll(1, 0))
    x = task.example(200)
    with torch.no_grad():
        wanted = teacher(x)

    def distance(student: nn.Module) -> float:
        with torch.no_grad():
            return float(task.distance()({"output": student(x)}, {"output": wanted}))

    context = Context(task=task, teacher=teacher, seed=1)
    found = {}
    for alpha in (0.0, 1.0):
        stage = QuantizationAwareTrain(epochs=1, alpha=alpha, batch_size=50)
        result, _ = stage.apply(copy_of(model), context)
        found[alpha] = distance(result)
    before = distance(model)
    assert found[1.0] < 0.8 * before
    assert 0.9 * before < found[0.0]


def test_the_most_sensitive_layers_stay_float(trained: tuple[nn.Module, Task]) -> None:
    """Those that static quantization keeps."""
    model, task = trained
    context = Context(task=task, teacher=model, seed=1)
    _, static = StaticQuantize(observer="minmax", samples=256, keep_float=2, weight_max=7).apply(
        copy_of(model), context
    )
    stage = QuantizationAwareTrain(epochs=1, batch_size=50, keep_float=2, weight_max=7)
    result, trace_ = stage.apply(copy_of(model), context)
    assert trace_.skipped == static.skipped
    assert sorted(trace_.skipped.values()) == [
        f"kept in float, number {n} in sensitivity" for n in (1, 2)
    ]
    assert trace_.details["sensitivity"] == static.details["sensitivity"]
    assert set(trace_.touched) == {"0", "4", "7", "12"} - set(static.skipped)
    assert isinstance(result, GraphModule)
    read = [constant(result, n) for n in result.graph.nodes if n.op == "get_attr"]
    kinds = [str(value.dtype) for value in read if value is not None and value.ndim > 1]
    assert sorted(kinds) == ["torch.float32"] * 2 + ["torch.int8"] * 2


def test_embedding_tables_may_be_int8_too() -> None:
    model, task, ids = text_problem()
    stage = QuantizationAwareTrain(epochs=1, batch_size=32, embeddings="int8", alpha=1.0)
    result, trace_ = stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))
    assert trace_.touched == ("embedding", "up", "head")
    assert trace_.skipped == {}
    assert trace_.details["share_of_layers"] == 1.0
    (table,) = (v for v in result.state_dict().values() if v.shape == (400, 16))
    assert table.dtype == torch.int8
    with torch.no_grad():
        assert float((result(ids) - model(ids)).abs().max()) < 0.1 * float(
            np.ptp(model(ids).numpy())
        )


def test_nothing_to_quantize_is_refused_before_any_training(
    trained: tuple[nn.Module, Task],
) -> None:
    model, task = trained
    with pytest.raises(StageRefused, match="excluded"):
        QuantizationAwareTrain(exclude="0,4,7,12").apply(
            copy_of(model), Context(task=task, teacher=model, seed=1)
        )
    with pytest.raises(StageRefused, match="no such module"):
        QuantizationAwareTrain(exclude="stem").apply(
            copy_of(model), Context(task=task, teacher=model, seed=1)
        )
