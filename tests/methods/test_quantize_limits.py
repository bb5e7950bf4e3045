"""What static quantization leaves out, refuses and reports."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from quantize_models import INTEGER, NOTHING, run_onnx
from sequences import text_problem
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import DataError, StageRefused
from petra.methods.base import Context
from petra.methods.quantize.annotate import DeploymentQuantizer
from petra.methods.quantize.ptq import quantize_static
from petra.methods.quantize.static import StaticQuantize
from petra.runtimes.onnx_export import export_onnx


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.slow
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
