"""Static int8 quantization: what becomes integer, what stays float, and that the answer stays the
same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from quantize_models import INTEGER, NOTHING, run_onnx
from torch import Tensor, nn
from torch.nn import functional

from petra.methods.quantize.ptq import QuantizationResult, quantize_static, simplify
from petra.runtimes.onnx_export import export_onnx


class DepthwiseResidual(nn.Module):
    """MobileNet-like: relu6, depthwise, grouped, an in-place residual sum, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.expand = nn.Sequential(
            nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.project = nn.Conv2d(32, 8, 1)
        self.grouped = nn.Conv2d(8, 16, 3, groups=4)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.project(self.depthwise(self.expand(x)))
        y += x
        return self.head(functional.adaptive_avg_pool2d(self.grouped(y), 1).flatten(1))


class Inception1d(nn.Module):
    """One InceptionTime block: a batch norm and a relu behind a concatenation, max pooling of the
    raw input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(2, 8, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv1d(8, 8, k, padding="same", bias=False) for k in (5, 9, 19)
        )
        self.pooled = nn.Conv1d(2, 8, 1, bias=False)
        self.bn = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bottleneck(x)
        parts = [branch(y) for branch in self.branches] + [
            self.pooled(functional.max_pool1d(x, 3, 1, 1))
        ]
        return self.head(functional.relu(self.bn(torch.cat(parts, 1))).mean(-1))


class PreActivation(nn.Module):
    """A batch norm that no convolution can absorb, a value read twice, and a strided zero-padded
    shortcut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.bn1, self.head = nn.BatchNorm2d(8), nn.Linear(16 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y = self.conv2(functional.relu(self.bn1(x)))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(functional.max_pool2d(functional.relu(y + shortcut), 2).flatten(1))


def mlp() -> nn.Module:
    layers = (
        nn.Flatten(),
        nn.Linear(768, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.ReLU6(),
    )
    return nn.Sequential(*layers, nn.Linear(32, 10))


def randomise_statistics(model: nn.Module) -> nn.Module:
    """A new batch norm is the identity; give it something to do."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.3)
    return model.eval()


IMAGES, SERIES = (3, 16, 16), (2, 64)


MODELS = {
    "depthwise": (DepthwiseResidual, IMAGES),
    "inception1d": (Inception1d, SERIES),
    "preactivation": (PreActivation, IMAGES),
    "mlp": (mlp, IMAGES),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits_int8(digits: tuple[nn.Module, Tensor, Tensor, Tensor]) -> QuantizationResult:
    model, train, _, _ = digits
    return quantize_static(
        model, train[:1], train[:200].split(64), observer="histogram", exclude=NOTHING
    )


def test_digits_keep_their_accuracy_in_integer_kernels(
    digits: tuple[nn.Module, Tensor, Tensor, Tensor],
    digits_int8: QuantizationResult,
    tmp_path: Path,
) -> None:
    model, _, x, y = digits
    outputs, executed = run_onnx(export_onnx(digits_int8.model, x[:1], tmp_path / "m.onnx"), x)
    with torch.no_grad():
        expected, floating = digits_int8.model(x), model(x)
    assert np.abs(outputs - expected.numpy()).max() < 0.01 * float(expected.max() - expected.min())
    accuracy, before = (
        (t.argmax(1) == y).float().mean().item() for t in (torch.tensor(outputs), floating)
    )
    assert before > 0.85
    assert accuracy > before - 0.01
    assert executed["QuantizeLinear"] == 1
    assert set(executed) - {"QuantizeLinear"} <= INTEGER


def test_the_result_says_what_was_done(digits_int8: QuantizationResult) -> None:
    assert digits_int8.samples == 200
    assert digits_int8.layers_quantized == ("features.0", "features.4", "head")
    assert digits_int8.layers_skipped == {}
    assert digits_int8.shares.macs_8_bit == 1.0
    assert 0.95 < digits_int8.shares.weights < 1.0  # biases are not int8


def test_the_model_is_left_as_it_was(digits: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, train, x, _ = digits
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, model(x[:8])
    model.train()
    model.features[7].eval()
    quantize_static(model, train[:2], [train[:8]], observer="minmax", exclude=NOTHING)
    assert model.training
    assert model.features.training
    assert not model.features[7].training
    model.eval()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x[:8]), before)


@pytest.mark.parametrize("name", MODELS)
def test_whole_networks_run_in_integers(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model, x = randomise_statistics(make()), torch.randn(48, *shape)
    result = quantize_static(model, x[:2], [x], observer="minmax", exclude=NOTHING)
    assert result.layers_skipped == {}
    outputs, executed = run_onnx(export_onnx(result.model, x[:2], tmp_path / "m.onnx"), x)
    with torch.no_grad():
        expected, floating = result.model(x).numpy(), model(x).numpy()
    scale = float(np.ptp(floating))
    assert np.abs(outputs - expected).max() < 0.02 * scale
    assert np.abs(outputs - expected).mean() < 0.001 * scale
    assert np.abs(expected - floating).max() < 0.1 * scale
    assert executed["QuantizeLinear"] == 1
    assert set(executed) - {"QuantizeLinear"} <= INTEGER


@pytest.mark.parametrize("name", MODELS)
def test_rewrites_are_exact(name: str) -> None:
    make, shape = MODELS[name]
    model, x = randomise_statistics(make()), torch.randn(4, *shape)
    with torch.no_grad():
        expected = model(x)
        traced = torch.export.export(model, (x,)).module()
        simplify(traced)
        torch.testing.assert_close(traced(x), expected, rtol=1e-4, atol=1e-5)
