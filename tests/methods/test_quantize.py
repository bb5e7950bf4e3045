"""Static int8 quantization: what becomes integer, what stays float, and that the answer stays the
same.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sequences import text_problem
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import DataError, StageRefused
from petra.methods.base import Context
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.ptq import QuantizationResult, quantize_static, simplify
from petra.methods.quantize.static import StaticQuantize
from petra.runtimes.onnx_export import export_onnx

MOVES = {
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Slice",
    "Pad",
    "Concat",
    "Clip",
    "MaxPool",
    "NhwcMaxPool",
}
INTEGER = {
    "QLinearConv",
    "QLinearAdd",
    "QLinearMul",
    "QGemm",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
} | MOVES
NOTHING: frozenset[str] = frozenset()


class DigitsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


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


def run_onnx(path: Path, x: Tensor) -> tuple[np.ndarray, Counter[str]]:
    """Outputs, and the operators ONNX Runtime really executes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    executed = Counter(
        node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node
    )
    return session.run(None, {"input": x.numpy()})[0], executed


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network trained on digits for a few steps, its training images, test images and test
    labels.
    """
    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(data.target)
    model = DigitsNet()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(100):
        rows = torch.arange(step * 64, step * 64 + 64) % 1400
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), x[:1400], x[1400:], y[1400:]


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


@pytest.mark.parametrize(
    ("exclude", "left"),
    [({"features.0"}, {"features.0"}), ({"features"}, {"features.0", "features.4"})],
)
def test_excluded_layers_stay_float(
    digits: tuple[nn.Module, Tensor, Tensor, Tensor],
    exclude: set[str],
    left: set[str],
    tmp_path: Path,
) -> None:
    model, train, x, _ = digits
    result = quantize_static(
        model, train[:2], [train[:32]], observer="minmax", exclude=frozenset(exclude)
    )
    assert result.layers_skipped == dict.fromkeys(left, "excluded")
    assert left.isdisjoint(result.layers_quantized)
    assert result.shares.macs_8_bit < 1
    path = export_onnx(result.model, x[:1], tmp_path / "m.onnx")
    weights = [t for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
    assert sum(t.data_type == onnx.TensorProto.FLOAT for t in weights) == len(left)
    assert sum(t.data_type == onnx.TensorProto.INT8 for t in weights) == 3 - len(left)
    with torch.no_grad():
        expected = result.model(x).numpy()
    outputs, _ = run_onnx(path, x)
    assert np.abs(outputs - expected).max() < 0.01 * float(np.ptp(expected))


def test_a_layer_called_twice_counts_twice() -> None:
    layer = nn.Linear(8, 8)
    model, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(16, 8)
    quantizer = DeploymentQuantizer(observer="minmax", exclude=NOTHING)
    quantizer.annotate(torch.export.export(model.eval(), (x,)).module())
    assert sum(quantizer.counts.values()) == 2
    result = quantize_static(model, x, [x], observer="minmax", exclude=NOTHING)
    assert result.shares.weights < 1


@pytest.mark.parametrize("weight_max", [64, 127])
def test_weights_stay_in_their_range(weight_max: int, tmp_path: Path) -> None:
    x = torch.randn(16, 768)
    result = quantize_static(
        nn.Linear(768, 10), x, [x], observer="minmax", exclude=NOTHING, weight_max=weight_max
    )
    tensors = onnx.load(export_onnx(result.model, x, tmp_path / "m.onnx")).graph.initializer
    (weight,) = (onnx.numpy_helper.to_array(t) for t in tensors if len(t.dims) == 2)
    assert weight.dtype == np.int8
    assert np.abs(weight.astype(int)).max(axis=1).tolist() == [weight_max] * 10


class Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x)


class MutatesView(nn.Module):
    """Half of a convolution's channels are clipped in place before the next one reads all of
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after, self.last = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 4, 3),
            nn.Conv2d(4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, :4].relu_()
        return self.last(self.after(y))


class NeedsThisBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(4, 8))


def test_refusals_name_the_reason() -> None:
    x = torch.randn(4, 8)
    linear = nn.Sequential(nn.Linear(8, 2))
    with pytest.raises(StageRefused, match="no parameterised layer"):
        quantize_static(Gelu(), x, [x], observer="minmax", exclude=NOTHING)
    with pytest.raises(StageRefused, match="0: excluded"):
        quantize_static(linear, x, [x], observer="minmax", exclude=frozenset({"0"}))
    with pytest.raises(StageRefused, match="no such module"):
        quantize_static(linear, x, [x], observer="minmax", exclude=frozenset({"heads"}))
    with pytest.raises(StageRefused, match="calibration"):
        quantize_static(linear, x, [], observer="minmax", exclude=NOTHING)
    with pytest.raises(StageRefused, match="free batch size"):
        quantize_static(NeedsThisBatch(), x, [x], observer="minmax", exclude=NOTHING)
    with pytest.raises(ValueError, match="allowed: minmax, histogram"):
        DeploymentQuantizer(observer="entropy", exclude=NOTHING)


def test_a_value_changed_in_place_is_not_copied_into_codes(tmp_path: Path) -> None:
    model, x = MutatesView(), torch.randn(8, 3, 8, 8)
    result = quantize_static(model, x, [x], observer="minmax", exclude=NOTHING)
    assert result.layers_quantized == ("conv", "last")
    assert "in place" in result.layers_skipped["after"]
    with torch.no_grad():
        expected, floating = result.model(x).numpy(), model(x).numpy()
    outputs, _ = run_onnx(export_onnx(result.model, x, tmp_path / "m.onnx"), x)
    assert np.abs(expected - floating).max() < 0.1 * float(np.ptp(floating))
    assert np.abs(outputs - expected).max() < 0.02 * float(np.ptp(floating))


def test_layers_without_an_integer_kernel_are_reported() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm, self.head = (
                nn.Embedding(50, 16),
                nn.LayerNorm(16),
                nn.Linear(16, 3),
            )

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.head(self.norm(self.embedding(ids) * mask.unsqueeze(-1)).mean(1))

    inputs = {"ids": torch.randint(0, 50, (6, 12)), "mask": torch.ones(6, 12)}
    result = quantize_static(Text(), inputs, [inputs], observer="minmax", exclude=NOTHING)
    assert result.layers_quantized == ("head",)
    assert set(result.layers_skipped) == {"embedding", "norm"}
    assert result.shares.weights == pytest.approx(48 / (48 + 3 + 800 + 32))


def test_resnet20_loses_less_than_half_a_point(tmp_path: Path) -> None:
    from petra.workloads.cifar10 import cifar10_task, pretrained

    try:
        model, task = pretrained("resnet20"), cifar10_task(train_items=256)
    except DataError as error:
        pytest.skip(str(error))
    train, x, y = task.train.head(256), task.val.head(2000), task.val.targets()
    assert isinstance(train, Tensor)
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    result = quantize_static(model, train[:2], train.split(64), observer="minmax", exclude=NOTHING)
    assert (result.samples, len(result.layers_quantized), result.layers_skipped) == (256, 20, {})
    path = export_onnx(result.model, x[:1], tmp_path / "m.onnx")
    assert path.stat().st_size < 290_000
    outputs, executed = run_onnx(path, x)
    assert executed["QLinearConv"] == 19
    assert executed["QLinearAdd"] == 9
    assert executed["QuantizeLinear"] == 1
    assert set(executed) - {"QuantizeLinear"} <= INTEGER
    assert (outputs.argmax(1) == y[:2000].numpy()).mean() > 0.917 - 0.005
    with torch.no_grad():
        expected = result.model(x[:256]).numpy()
    assert np.abs(outputs[:256] - expected).mean() < 0.002 * float(np.ptp(expected))


def test_embedding_tables_may_be_int8_too(tmp_path: Path) -> None:
    model, task, ids = text_problem()
    traces = {}
    for kind in ("float", "int8"):
        stage = StaticQuantize(observer="mse", samples=64, embeddings=kind)
        result, traces[kind] = stage.apply(
            copy.deepcopy(model), Context(task=task, teacher=model, seed=0)
        )
        path = export_onnx(result, ids[:2], tmp_path / f"{kind}.onnx")
        outputs, _ = run_onnx(path, ids)
        with torch.no_grad():
            expected = result(ids)
            assert float((expected - model(ids)).abs().max()) < 0.05 * float(
                np.ptp(expected.numpy())
            )
        assert np.abs(outputs - expected.numpy()).max() < 0.02 * float(np.ptp(expected.numpy()))
    assert traces["float"].skipped == {
        "embedding": "aten.embedding.default has no static integer kernel"
    }
    assert traces["int8"].touched == ("embedding", "up", "head")
    assert traces["int8"].skipped == {}
    bytes_share = [traces[kind].details["share_of_bytes"] for kind in ("float", "int8")]
    assert bytes_share[0] < 0.1
    assert bytes_share[1] > 0.7
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size
