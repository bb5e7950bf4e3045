"""LiteRT's files: integers where they are meant to be, agreement with PyTorch, their batch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError, ExportError
from petra.core.target import Target
from petra.methods.base import Context, Stage
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.runtimes.base import distribution_version
from petra.runtimes.litert import LiteRt
from petra.runtimes.verify import compare
from petra.tasks.classification import classification
from petra.testing.stage_suite import ResidualNet
from petra.workloads.digits import DigitsNet

pytestmark = [
    pytest.mark.slow,  # several seconds for every file
    pytest.mark.skipif(bool(LiteRt().lacks()), reason="ai-edge-litert is not installed"),
    pytest.mark.skipif(not distribution_version("litert-torch"), reason="litert-torch is missing"),
]
LITERT = Target("litert")
N = 64


class Words(nn.Module):
    """An embedding, a wide layer and a classifier, with a nonlinearity that no layer fuses."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.hidden = nn.Linear(32, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = nn.functional.gelu(self.hidden(self.embedding(tokens)))
        logits: Tensor = self.head(hidden.mean(1))
        return logits


class Pooling(nn.Module):
    """Every kind of operator that static graphs treat on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(16, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.first(x))
        x = torch.cat([x, nn.functional.max_pool2d(x, 3, 1, 1)], 1)
        x = nn.functional.avg_pool2d(self.second(x).clamp(-0.5, 0.7), 2)
        logits: Tensor = self.head(nn.functional.avg_pool2d(x * x + x, 2).flatten(1))
        return logits


def images() -> tuple[nn.Module, Tensor]:
    return ResidualNet(8), torch.randn(N, 3, 8, 8)


def pooling() -> tuple[nn.Module, Tensor]:
    return Pooling(), torch.randn(N, 3, 8, 8)


def alike() -> tuple[nn.Module, Tensor]:
    """Large weights of one shape, one after the other."""
    return DigitsNet(width=32), torch.rand(N, 1, 8, 8)


def words() -> tuple[nn.Module, Tensor]:
    return Words(), torch.randint(0, 50, (N, 6))


def quantized(model: nn.Module, x: Tensor, stage: Stage, target: Target) -> nn.Module:
    data = (x, torch.arange(len(x)) % model(x[:1]).shape[1])
    task = classification(data, data, data)
    context = Context(task=task, teacher=copy.deepcopy(model), seed=0, target=target)
    return stage.apply(model, context)[0]


def agrees(path: Path, model: nn.Module, x: Tensor, *, within: float) -> None:
    """The file's predictions of all of `x` differ by at most a share of the model's spread."""
    with torch.no_grad():
        expected = model(x).numpy()
    (got,) = LiteRt().load(path).run({"input": x.numpy()}).values()
    found = compare(got, expected, quantized=True, score=lambda p: float(p.mean()))
    assert found["relative_error"] < within


@pytest.mark.parametrize("make", [images, pooling, alike, words])
@pytest.mark.parametrize("stage", [StaticQuantize(), QuantizationAwareTrain(epochs=1)])
def test_static_graphs_are_integers_through_and_through(
    make: object, stage: Stage, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = make()  # type: ignore[operator]
    (plain,) = LiteRt().export(copy.deepcopy(model).eval(), x[:2], tmp_path / "plain.tflite")
    result = quantized(model.eval(), x, stage, LITERT)
    (path,) = LiteRt().export(result, x[:2], tmp_path / "q.tflite")
    operators = LiteRt().operators(path)
    assert operators.integer == operators.compute > 0
    assert LiteRt().operators(plain).integer == 0
    assert path.stat().st_size < plain.stat().st_size
    agrees(path, result, x, within=0.03)  # a code of the outputs is 2% of their spread


def test_a_graph_that_was_made_for_unsigned_codes_means_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = images()
    result = quantized(model.eval(), x, StaticQuantize(), Target("onnxruntime"))
    (path,) = LiteRt().export(result, x[:2], tmp_path / "q.tflite")
    agrees(path, result, x, within=0.01)


def test_dynamic_layers_compute_with_codes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = words()
    result = quantized(model.eval(), x, DynamicQuantize(), LITERT)
    (path,) = LiteRt().export(result, x[:2], tmp_path / "q.tflite")
    operators = LiteRt().operators(path)
    assert operators.integer == operators.compute == 2
    agrees(path, result, x, within=0.01)


@pytest.mark.parametrize("make", [images, words])
def test_weights_stored_as_codes_stay_codes(make: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = make()  # type: ignore[operator]
    (plain,) = LiteRt().export(copy.deepcopy(model).eval(), x[:2], tmp_path / "plain.tflite")
    result = quantized(model.eval(), x, WeightQuantize(bits=8), LITERT)
    (path,) = LiteRt().export(result, x[:2], tmp_path / "q.tflite")
    assert path.stat().st_size < 0.7 * plain.stat().st_size
    agrees(path, result, x, within=1e-4)


def test_a_file_takes_the_target_s_batch_and_a_session_any(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = images()
    four = LiteRt(Target("litert", batch=4))
    (path,) = four.export(model.eval(), x[:2], tmp_path / "m.tflite")
    session = four.load(path)
    assert four.fixed_batch == 4
    assert [spec.shape for spec in session.inputs] == [(4, 3, 8, 8)]
    assert [spec.shape for spec in session.outputs] == [(4, 4)]
    with torch.no_grad():
        expected = model(x).numpy()
    for n in (1, 4, 10):
        got = session.run({"input": x[:n].numpy()})["output"]
        np.testing.assert_allclose(got, expected[:n], atol=1e-5)


def test_outputs_survive_the_next_run(tmp_path: Path) -> None:
    """They are not views of memory that the session writes again."""
    model, x = images()
    (path,) = LiteRt().export(model.eval(), x[:2], tmp_path / "m.tflite")
    session = LiteRt().load(path)
    first = session.run({"input": x[:1].numpy()})["output"]
    kept = first.copy()
    session.run({"input": -x[:1].numpy()})
    np.testing.assert_array_equal(first, kept)


def test_an_operator_without_translation_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(ExportError, match="bessel_j0"):
        LiteRt().export(Odd().eval(), torch.randn(2, 3), tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_that_only_looks_like_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    with pytest.raises(ArtifactError, match=r"m\.tflite"):
        LiteRt().load(path)
